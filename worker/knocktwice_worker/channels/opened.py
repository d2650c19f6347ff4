"""The channels of later steps as one installation has set them up: each is opened when it is first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from knocktwice_worker.channels.registry import CHANNELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from knocktwice_worker.channels.channel import OpenChannel, StepChannel, Wiring
    from knocktwice_worker.channels.outbound.pacing import Pace
    from knocktwice_worker.channels.outbound.provider_choice import Providers
    from knocktwice_worker.channels.provider import Rate, StepProvider
    from knocktwice_worker.channels.reports import Books, Receiver


class Channels:
    """The channels of an installation.

    Args:
        wiring: what they are opened with.
        pace: makes the bucket of a rate.
        choice: makes what chooses among providers, from their weights.
    """

    def __init__(
        self,
        wiring: Wiring,
        *,
        pace: Callable[[Rate], Pace],
        choice: Callable[[Mapping[str, float]], Providers],
    ) -> None:
        self._wiring = wiring
        self._make_pace = pace
        self._make_choice = choice
        self._open: dict[str, OpenChannel] = {}
        self._paces: dict[str, Pace] = {}
        self._choices: dict[str, Providers | None] = {}

    def __getitem__(self, channel: str) -> OpenChannel:
        """Return a channel with this installation's settings."""
        if channel not in self._open:
            self._open[channel] = CHANNELS[channel].open(self._wiring)
        return self._open[channel]

    def entry(self, channel: str) -> StepChannel:
        """Return what the registry says of a channel."""
        return CHANNELS[channel]

    def provider(self, channel: str, name: str) -> StepProvider:
        """Return a provider of a channel; one that the settings no longer know cannot send, but has its name."""
        opened = self[channel]
        return opened.providers.get(name) or opened.removed(name)

    def usual(self, channel: str) -> StepProvider:
        """Return the provider of a channel that sends where there is nothing to choose."""
        opened = self[channel]
        return opened.providers[opened.usual]

    def pace(self, channel: str, provider: str, sender: str | None) -> Pace:
        """Return the pace of a sender of a provider; without a sender it is the provider's own."""
        rate = self.provider(channel, provider).pace(sender)
        if rate.name not in self._paces:
            self._paces[rate.name] = self._make_pace(rate)
        return self._paces[rate.name]

    def choice(self, channel: str) -> Providers | None:
        """Return what chooses among the providers of a channel; ``None``: there is nothing to choose."""
        if channel not in self._choices:
            weights = self[channel].weights
            self._choices[channel] = None if weights is None else self._make_choice(weights)
        return self._choices[channel]

    @cached_property
    def books(self) -> Mapping[str, Books]:
        """Provider → its list of what it has sent, of all that have one. Channels of one provider share it."""
        found: dict[str, Books] = {}
        for name in CHANNELS:
            for provider in self[name].providers.values():
                if provider.books is not None:
                    found.setdefault(provider.provider, provider.books)
        return found

    @cached_property
    def receivers(self) -> Mapping[str, Receiver]:
        """Path of a callback route → who reads what comes there."""
        return {path: receiver for name in CHANNELS for path, receiver in self[name].receivers.items()}

    @property
    def prices(self) -> Mapping[str, Mapping[str, float]]:
        """Channel → price of one message, or of one part, by country."""
        return {entry.name: opened.prices for entry, opened in self.all()}

    def all(self) -> Iterator[tuple[StepChannel, OpenChannel]]:
        """Yield all channels."""
        for name, entry in CHANNELS.items():
            yield entry, self[name]
