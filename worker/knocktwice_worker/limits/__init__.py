"""Limits: how many texts one number may get, what a day may cost, and at what hour a text may go out.

It answers questions about a number and a moment. It may use the database and the lifecycle's words. It must not know people,
notifications or providers.
"""
