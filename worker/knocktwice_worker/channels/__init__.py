"""How messages leave: a channel turns a message into an HTTP request, and its answer into one of four outcomes.

A channel sends nothing itself. :class:`~knocktwice_worker.channels.outbound.transport.Transport` carries the requests of a
whole batch in flight together, so a provider is two pure functions and is tested as such. Its exceptions and error codes
never leave its folder.

Each channel of later steps is one folder here and one entry in ``registry.py``, which says all that the rest of the house
needs to know of it. Nothing outside a provider's folder names the provider.

This room imports ``content``, ``limits``, ``notation`` and ``lifecycle``. It knows neither the settings nor the services:
:class:`~knocktwice_worker.channels.channel.Wiring` hands over what an installation has set.
"""
