"""Messages that producers were promised: accepted in Redis, removed when their rows are committed, parked if nobody can.

It may import ``database`` and Redis. It must not know what the messages say: tasks do.
"""
