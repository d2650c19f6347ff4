"""The runtime: the parts that a Celery worker needs to run our tasks.

It contains our consumer and its Redis channel, the dispatcher of due rows, the background threads, the gathering of
small messages, and the way tasks are published and shown. It may use the services and every room below them. It must
not know the tasks or the application: the worker that starts a bootstep hands over the application.
"""
