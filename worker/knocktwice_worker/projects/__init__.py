"""Projects: what each application that shares an installation has of its own, read from the operators' file.

It says which senders, limits and budgets are a project's. It may use ``limits`` and ``notation``, and must not know who
counts, who sends, or which notifications exist.
"""
