"""Accepted messages: they wait in Redis until their rows are committed. A message that no worker can process is parked.

The room may import ``database`` and Redis. It must not know the content of messages: the tasks do.
"""
