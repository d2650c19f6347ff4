"""From the event loop to durable: messages to the broker, receipts and callbacks to PostgreSQL, many requests' together."""
