"""An entry of the registry: all that other rooms know of a channel of later steps."""

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
    """The agreement that marketing over a channel needs from a person."""

    #: Agreement to marketing by phone, as ``set_consent`` records it.
    PHONE = "phone"
    #: No agreement.
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Wiring:
    """The part of an installation that its channels get.

    Attributes:
        settings: the installation's settings. Each channel reads them through its own Protocol, which names the
            settings that it needs.
        secret: the key that signs the callback addresses given to providers.
    """

    settings: object
    secret: str


@dataclass(frozen=True, slots=True)
class OpenChannel:
    """A channel with the settings of an installation.

    Attributes:
        providers: name → provider. The names are known without opening any connection.
        usual: the name of the provider that sends if there is no choice.
        weights: provider → weight, if there are several providers to choose from; ``None``: there is no choice.
        removed: returns a stand-in for a provider that rows name and the settings no longer contain.
        sender: the sender, unless the message names another one.
        silent: no message can go, because no sender is configured.
        prices: the price of one message, or of one part, by country; ``*`` is for all other countries.
        receivers: path → the receiver that reads the requests of providers to this path.
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
    """An address, below the public URL, to which providers send reports and texts.

    Attributes:
        path: the path, with ``{provider}`` if one address serves several providers.
        name: the operation's name in the OpenAPI document.
        summary: the operation's first line in the OpenAPI document.
        methods: the HTTP methods.
        signature: the header that proves the sender: its name and its content; ``None``: the settings name it.
        form: the meaning of the form's fields, and an example; ``None``: each provider has its own form.
        reply: our answer and its media type; ``None``: an empty answer.
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
        content: the contract's description of its steps, with the channel's name in messages and rows.
        noun: the word for one message, in a sentence.
        open: combines the channel with the settings of an installation. It opens no connection.
        address: the kind of address that its messages go to.
        consent: the agreement that marketing needs.
        wording: writes and shows its messages.
        parts: returns the number of parts that a text is paid for; ``None``: its messages have no parts.
        sender_setting: the setting that names the sender, for a person who has not set it.
        prices_setting: the setting that names the prices.
        routes: the addresses that its providers call back.
        previews_as: the user agent of its app when the app fetches the links of a message for a preview, in lower case.
            Such a request is no click.
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
        """Return the number of parts of a message; 0 if the channel's messages have no parts."""
        return self.parts(text) if self.parts is not None else 0

    def shown(self, text: str) -> Mapping[str, Any]:
        """Return the content of a message, field by field."""
        return self.wording.shown(text)
