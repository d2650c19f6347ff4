"""Accepted messages: they wait in Redis until their rows are committed, and are parked if no worker can process them.

It may import ``database`` and Redis. It must not know what the messages say: tasks do.
"""
