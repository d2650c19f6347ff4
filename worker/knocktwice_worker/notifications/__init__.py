"""Notifications, from the accepted message to the last report: steps follow each other until the person is reached.

- ``inbox``: messages that were accepted and are not written yet.
- ``store``: the rows and their states; the only writer.
- ``pipeline``: one file per step of a notification's way; it joins the store, the limits and the channels.

It may import the rooms below (``audience``, ``channels``, ``content``, ``limits``, ``database``, ``lifecycle``). It must
not know the wiring (``services``), Celery, blasts or the gateway: functions take what they need.
"""
