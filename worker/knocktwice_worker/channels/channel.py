"""An entry of the registry: all that the rest of the house knows of a channel of later steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from knocktwice_worker.channels.address import NUMBER
from knocktwice_worker.content.wording import PLAIN_TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from knocktwice_shared.channels import StepContent
    from knocktwice_worker.channels.address import Address
    from knocktwice_worker.channels.provider import StepProvider
    from knocktwice_worker.channels.reports import Receiver
    from knocktwice_worker.content.wording import Wording


class Consent(StrEnum):
    """What a person must have agreed to before marketing goes over a channel."""

    #: Marketing by phone, as ``set_consent`` records it.
    PHONE = "phone"
    #: Nothing.
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Wiring:
    """What an installation hands to its channels.

    Attributes:
        settings: the installation's. A channel reads them through a Protocol of its own that names what it needs.
        secret: signs the addresses that providers call back.
    """

    settings: object
    secret: str


@dataclass(frozen=True, slots=True)
class OpenChannel:
    """A channel with the settings of an installation.

    Attributes:
        providers: name → who can send. The names are known without opening any connection.
        usual: who sends where there is nothing to choose.
        weights: provider → weight, where there are several to choose from; ``None``: there is nothing to choose.
        removed: returns what stands for a provider that rows name and the settings no longer do.
        sender: who it is sent from, where nothing else is said.
        silent: whether nothing can go for want of a sender.
        prices: price of one message, or of one part, by country; ``*`` for all others.
        receivers: path → who reads what providers send to it.
    """

    providers: Mapping[str, StepProvider]
    usual: str
    removed: Callable[[str], StepProvider]
    weights: Mapping[str, float] | None = None
    sender: str | None = None
    silent: bool = False
    prices: Mapping[str, float] = field(default_factory=dict)
    receivers: Mapping[str, Receiver] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CallbackRoute:
    """An address, below the public URL, to which providers send what they have to say.

    Attributes:
        path: with ``{provider}`` where one address serves several.
        name: of the operation, in the interface's document.
        summary: its first line there.
        methods: of HTTP.
        signature: the header that proves who sent it: its name and what it holds; ``None``: the settings say.
        form: what the fields are, and an example; ``None``: it is the provider's own.
        reply: what we answer, and its media type; ``None``: nothing.
    """

    path: str
    name: str
    summary: str
    methods: tuple[str, ...] = ("POST",)
    signature: tuple[str, str] | None = None
    form: tuple[str, Mapping[str, str]] | None = None
    reply: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class StepChannel:
    """A channel of later steps.

    Attributes:
        content: what the contract knows of its steps; among it the channel's name in messages and rows.
        noun: what one message is called, in a sentence.
        open: makes it ready with the settings of an installation; connects to nothing.
        address: where its messages go.
        consent: what marketing needs.
        wording: how its messages are written and shown.
        parts: returns in how many parts a text is paid for; ``None``: a message is one, and has no parts.
        sender_setting: the setting that names the sender, for people who miss it.
        prices_setting: the setting that names the prices.
        routes: where its providers call back.
        previews_as: how its app calls itself when it fetches the links of a message, which is no click; lower case.
    """

    content: StepContent
    noun: str
    open: Callable[[Wiring], OpenChannel]
    address: Address = NUMBER
    consent: Consent = Consent.PHONE
    wording: Wording = PLAIN_TEXT
    parts: Callable[[str], int] | None = None
    sender_setting: str = ""
    prices_setting: str = ""
    routes: tuple[CallbackRoute, ...] = ()
    previews_as: str = ""

    @property
    def name(self) -> str:
        """Its name in messages and rows."""
        return self.content.channel

    def size(self, text: str) -> int:
        """Return how many parts a message has; 0 where parts are not what is paid for."""
        return self.parts(text) if self.parts is not None else 0

    def shown(self, text: str) -> Mapping[str, Any]:
        """Return what a message says, field by field."""
        return self.wording.shown(text)
