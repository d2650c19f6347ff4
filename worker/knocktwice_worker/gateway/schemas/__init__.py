"""The schemas of requests and answers for the OpenAPI document: one file per group of routes.

They do not check the bodies of requests. The contract's validator does, in the gateway and in the worker, and tests
prove that the schemas agree with it.
"""
