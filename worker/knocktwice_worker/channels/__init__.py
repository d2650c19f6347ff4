"""Channels: a channel turns a message into an HTTP request, and the answer into one of four outcomes.

A channel sends nothing itself. :class:`~knocktwice_worker.channels.outbound.transport.Transport` sends the requests of
a whole batch side by side, so a provider consists of two pure functions and is tested as such. A provider's exceptions
and error codes never leave its folder.

Each channel of later steps is one folder here and one entry in ``registry.py``. The entry contains all that other rooms
need to know of the channel. No module outside a provider's folder names the provider.

This room imports ``content``, ``limits``, ``notation`` and ``lifecycle``. It knows neither the settings nor the
services: :class:`~knocktwice_worker.channels.channel.Wiring` contains the settings of the installation.
"""
