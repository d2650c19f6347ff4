"""A simulated day: invented people with their phones and habits, on the real store and pipeline, under several sets of
rules.

What `knocktwice simulate` does. The clock is the simulation's, the providers are pretended, and all of it happens on
servers of its own in a temporary folder.
"""
