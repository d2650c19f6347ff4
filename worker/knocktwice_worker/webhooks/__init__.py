"""Webhooks: tell the application about its notifications, signed, repeated until accepted, in order.

The way of a notification writes nothing for this. A follower (``events.py``) finds what has happened by the times that
the rows carry. It writes each fact (``facts.py``) once into a durable table, in the transaction in which it keeps its
place; ``sending.py`` sends from there. The signature and the headers are those of https://www.standardwebhooks.com.

It may use the store's change feed, the HTTP engine of channels, and the lifecycle. It changes nothing but its own
tables, and must not know Celery, blasts or the wiring.
"""
