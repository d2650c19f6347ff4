"""Reporting: what became of notifications, for a person (a story) and for a business (figures).

It reads what the store has written and keeps roll-ups of its own. It changes no notification, and nothing on a
notification's way waits for it. It may use the store's change feed, channels' names and the database; it must not know
blasts, webhooks or the wiring.
"""
