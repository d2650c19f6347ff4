"""What happens to notifications, told to the application: signed, repeated until it is taken, in order per notification.

Nothing on a notification's way writes for this. A follower (``events.py``) finds what has happened by the times that the rows carry,
and writes each fact once into a durable table, in the transaction in which it keeps its place; ``sending.py`` sends from
there. The signature and the headers are those of https://www.standardwebhooks.com.
"""
