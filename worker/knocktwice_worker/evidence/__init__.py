"""Evidence: what texts, plans and settings would do, from an operator's files, from the settings, and from what
happened.

It decides nothing and changes nothing.
"""
