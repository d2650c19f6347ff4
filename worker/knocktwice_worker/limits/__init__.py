"""How much may be sent, and at what hour: limits per number, the day's budget, quiet hours.

It may import ``database``, ``lifecycle`` and Redis. It counts what it is asked about and reads ``deliveries`` to seed
Redis; it must not know notifications' steps beyond their numbers, nor any channel, and it changes no row.
"""
