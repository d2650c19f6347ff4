"""Limits: messages per number, the day's budget, and quiet hours.

The room may import ``database``, ``lifecycle`` and Redis. It counts the messages that its callers name, and reads
``deliveries`` to restore the counters of a Redis that was wiped. It must not know more of a step than its number, nor
any channel, and it changes no row.
"""
