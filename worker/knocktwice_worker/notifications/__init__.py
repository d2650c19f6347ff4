"""Notifications, from the accepted message to the last report: one step follows another until the person is reached.

- ``inbox``: messages that were accepted and are not written to the tables yet.
- ``store``: the rows and their states; no other code writes them.
- ``pipeline``: one file per stage of a notification's life; it connects the store, the limits and the channels.

The room may import the rooms below it (``audience``, ``channels``, ``content``, ``limits``, ``database``,
``lifecycle``). It must not know the wiring (``services``), Celery, blasts or the gateway: a function takes the values
that it needs.
"""
