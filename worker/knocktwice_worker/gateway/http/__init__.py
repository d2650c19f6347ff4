"""Limits on a request before its content is read: for its head, its body, and the requests of one address."""
