"""Counters: what a process has counted, added up in Redis for all processes, for metrics and ``knocktwice doctor``.

Workers and gateways are many processes on many machines, which come and go. Each counts in memory, once for each batch,
and adds its counts to a hash in Redis every few seconds. So whoever reads the hash reads the whole installation.
"""
