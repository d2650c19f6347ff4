"""Metrics: the series for Prometheus, read from Redis and PostgreSQL, so that any gateway or exporter shows the whole.

Whatever a scrape costs does not grow with the rows: it reads counters, roll-ups, the ends of indexes, and counts no
further than some thousand.
"""
