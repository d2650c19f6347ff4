"""Switches: what operators pause, and the settings that they change, on every worker within two seconds.

Both are rows, so they survive restarts. Each change leaves a line in ``audit``: who, when, what and why.
"""
