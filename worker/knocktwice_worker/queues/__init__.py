"""The queues: how many messages wait in them, in Redis or in RabbitMQ."""
