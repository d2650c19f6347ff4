"""The channels of later steps with an installation's settings. Each channel is opened when it is first needed."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from knocktwice_shared.channels import MEDIA
from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.channels.channel import Wiring
from knocktwice_worker.channels.http_sms.provider import RemovedProvider
from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.content import media
from knocktwice_worker.database.test_rows import STAND_IN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from knocktwice_shared.messages import Step
    from knocktwice_worker.channels.channel import OpenChannel, StepChannel
    from knocktwice_worker.channels.outbound.pacing import Pace
    from knocktwice_worker.channels.outbound.provider_choice import Providers
    from knocktwice_worker.channels.provider import Rate, StepProvider
    from knocktwice_worker.channels.reports import Books, Receiver


#: Why a message is not sent that no provider can carry.
NO_CARRIER = "none of the providers takes media; docs/providers.md says how one is told to"


#: What a provider is asked about, to learn whether it takes media.
_SOME_MEDIA = media.joined("", ["https://knocktwice.example"])


def require_carriers(plan: Sequence[Step], opened: Callable[[str], OpenChannel]) -> None:
    """Refuse a plan with media that no provider takes.

    Args:
        opened: returns a channel with the settings of the installation; :func:`with_settings` makes one.

    Raises:
        InvalidMessage: the step is named.
    """
    for place, step in enumerate(plan):
        if MEDIA in step.content and not _carriers(opened(step.channel), _SOME_MEDIA):
            raise InvalidMessage(f"plan[{place}].{MEDIA}", f"cannot be sent: {NO_CARRIER}")


def with_settings(settings: object) -> Callable[[str], OpenChannel]:
    """Return what opens a channel with some settings, to look at. It cannot send or verify anything."""
    return lambda name: CHANNELS[name].open(Wiring(settings, ""))


def _carriers(opened: OpenChannel, text: str) -> list[str]:
    names = [opened.usual] if opened.weights is None else list(opened.weights)
    return [name for name in names if opened.providers[name].carries(text)]


class Channels:
    """The channels of an installation.

    Args:
        wiring: the installation's settings and secret.
        pace: makes the token bucket of a rate.
        choice: makes the chooser among providers from their weights.
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
        """Return the registry's entry of a channel."""
        return CHANNELS[channel]

    def provider(self, channel: str, name: str) -> StepProvider:
        """Return a provider of a channel. One that the settings no longer contain cannot send.

        Nor can what stands in for one: whoever sends for a test by mistake is refused here.
        """
        if name == STAND_IN:
            return RemovedProvider(name)
        opened = self[channel]
        return opened.providers.get(name) or opened.removed(name)

    def usual(self, channel: str) -> StepProvider:
        """Return the provider of a channel that sends if there is no choice."""
        opened = self[channel]
        return opened.providers[opened.usual]

    def carriers(self, channel: str, text: str) -> Sequence[str]:
        """Return the names of the providers that a message of a channel may go by; none, if none can send it.

        Args:
            text: as the channel's wording wrote it.
        """
        return _carriers(self[channel], text)

    def pace(self, channel: str, provider: str, sender: str | None) -> Pace:
        """Return the pace of one sender of a provider; without a sender, the provider's own pace."""
        rate = self.provider(channel, provider).pace(sender)
        if rate.name not in self._paces:
            self._paces[rate.name] = self._make_pace(rate)
        return self._paces[rate.name]

    def choice(self, channel: str) -> Providers | None:
        """Return the chooser among the providers of a channel; ``None``: there is no choice."""
        if channel not in self._choices:
            weights = self[channel].weights
            self._choices[channel] = None if weights is None else self._make_choice(weights)
        return self._choices[channel]

    @cached_property
    def books(self) -> Mapping[str, Books]:
        """Provider → its list of sent messages, for the providers that have one. Channels of one provider share it."""
        found: dict[str, Books] = {}
        for name in CHANNELS:
            for provider in self[name].providers.values():
                if provider.books is not None:
                    found.setdefault(provider.provider, provider.books)
        return found

    @cached_property
    def receivers(self) -> Mapping[str, Receiver]:
        """Path of a callback route → the receiver that reads its requests."""
        return {path: receiver for name in CHANNELS for path, receiver in self[name].receivers.items()}

    @property
    def prices(self) -> Mapping[str, Mapping[str, float]]:
        """Channel → price of one message, or of one part, by country."""
        return {entry.name: opened.prices for entry, opened in self.all()}

    def all(self) -> Iterator[tuple[StepChannel, OpenChannel]]:
        """Yield all channels."""
        for name, entry in CHANNELS.items():
            yield entry, self[name]
