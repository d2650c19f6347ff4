"""The pipeline: the life of one notification, one file per step of it.

Each step loads, decides and acts. States are changed by the store; requests are made by channels and carried by their engine.
"""
