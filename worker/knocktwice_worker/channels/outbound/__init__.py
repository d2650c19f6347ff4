"""Sending: the HTTP engine, the pace that all workers share, and the choice among providers.

The folder may import what channels may import. It must not know any channel or provider by name.
"""
