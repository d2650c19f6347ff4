"""Embedded: our own PostgreSQL and Valkey, started from installed packages and kept in a folder, with one supervisor.

It knows processes, sockets and files, and no other room.
"""
