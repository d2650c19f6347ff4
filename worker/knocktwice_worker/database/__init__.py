"""Database: the tables, the migrations that build them, and what PostgreSQL must be told so that it is fast.

It may import the contract and ``lifecycle``, whose states the tables check. It must not know who reads or writes the
tables, nor where the database is: a connection or an engine is handed in.
"""
