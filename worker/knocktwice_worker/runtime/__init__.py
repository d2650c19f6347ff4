"""The runtime: what a Celery worker needs to run our tasks.

Here are our consumer and the Redis channel below it, the dispatcher that rings what is due, the background threads, the
gathering of small messages, and how tasks are published and shown. It may use the services and every room below them. It must
not know the tasks or the application: the worker that starts a bootstep hands the application over.
"""
