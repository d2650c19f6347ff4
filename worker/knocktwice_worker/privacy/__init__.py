"""Privacy: deleting people, and deleting what is old.

It knows every table in which something personal stands. It changes no state: it cancels through the store, and empties
or deletes rows that nobody works on any more. It may use blasts, webhooks, notifications and the audience; none of
these may use it. They meet what an erasure has made void through :mod:`.guard`, which the wiring hands to them.
"""
