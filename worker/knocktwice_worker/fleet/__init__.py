"""The fleet: what each running worker and beat says of itself, so that others need not guess from their own
environment.
"""
