"""What requests and answers look like, for the OpenAPI document: one file per group of routes.

Bodies of requests are not checked by these: the contract's validator is the judge, here and in the worker. Tests prove
that both agree.
"""
