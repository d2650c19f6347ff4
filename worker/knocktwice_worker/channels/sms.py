"""SMS: the built-in provider and the providers of the operators' file (``http_sms/``), chosen by weight."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from knocktwice_shared.channels import sms as contract
from knocktwice_worker.channels.channel import CallbackRoute, OpenChannel, StepChannel
from knocktwice_worker.channels.http_sms import callbacks, file, inbound
from knocktwice_worker.channels.http_sms.callbacks import FileReceiver, HttpCallbacks
from knocktwice_worker.channels.http_sms.inbound import FileInboundReceiver, HttpInbound
from knocktwice_worker.channels.http_sms.provider import HttpSmsChannel, RemovedProvider
from knocktwice_worker.content import media

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from knocktwice_worker.channels.channel import Wiring
    from knocktwice_worker.channels.provider import StepProvider
    from knocktwice_worker.channels.reports import Receiver


#: The addresses that the providers of the file call back.
_FILE_ROUTES = (
    CallbackRoute(
        callbacks.ROUTE_PATH,
        "sms_status",
        "Take what an SMS provider reports of messages. Repeats, late ones and any order are harmless.",
    ),
    CallbackRoute(
        callbacks.ROUTE_PATH,
        "sms_status_in_query",
        "Take what an SMS provider reports of a message in the address.",
        methods=("GET",),
    ),
    CallbackRoute(
        inbound.INBOUND_PATH,
        "sms_inbound",
        "Take texts that somebody wrote: STOP ends texts to this number, START allows them again. Repeats are harmless.",
    ),
    CallbackRoute(
        inbound.INBOUND_PATH,
        "sms_inbound_in_query",
        "Take a text that somebody wrote, in the address.",
        methods=("GET",),
    ),
)


class Settings(Protocol):
    """The settings that all SMS providers share."""

    @property
    def sms_providers_file(self) -> Path | None:
        """The file that describes further providers."""

    @property
    def sms_prices(self) -> Mapping[str, float]:
        """The price of one part, by country."""

    @property
    def public_url(self) -> str | None:
        """The address at which the internet reaches the gateway."""


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """The provider that needs no file.

    Attributes:
        provider: the provider itself.
        sender: the sender, unless the message names another one.
        has_account: an account is configured. Without an account the provider gets no share of the messages if the file
            describes others.
        receivers: path → the receiver that reads the provider's requests.
    """

    provider: StepProvider
    sender: str | None
    has_account: bool
    receivers: Mapping[str, Receiver] = field(default_factory=dict)


def channel(
    built_in: Callable[[Wiring], BuiltIn], *, sender_setting: str, routes: tuple[CallbackRoute, ...]
) -> StepChannel:
    """Return the registry's entry of SMS.

    Args:
        built_in: opens the provider that needs no file.
        sender_setting: the setting that names its sender.
        routes: the addresses that it calls back.
    """

    def open_(wiring: Wiring) -> OpenChannel:
        return _open(wiring, built_in(wiring))

    return StepChannel(
        contract.CONTENT,
        noun="SMS",
        open=open_,
        parts=media.parts,
        sender_setting=sender_setting,
        prices_setting="KNOCKTWICE_SMS_PRICES",
        routes=(*routes, *_FILE_ROUTES),
    )


def _open(wiring: Wiring, own: BuiltIn) -> OpenChannel:
    settings = cast("Settings", wiring.settings)
    usual = own.provider.provider
    providers: dict[str, StepProvider] = {usual: own.provider}
    weights: dict[str, float] | None = None
    heard: dict[str, HttpCallbacks] = {}
    written: dict[str, HttpInbound] = {}
    if settings.sms_providers_file is not None:
        described = file.read(str(settings.sms_providers_file), built_in=usual)
        weights = {usual: described.built_in_weight} if own.has_account else {}
        for spec in described.providers:
            weights[spec.name] = spec.weight
            if spec.inbound is not None:
                written[spec.name] = HttpInbound(spec.name, spec.inbound)
            if spec.callbacks is not None:
                heard[spec.name] = HttpCallbacks(
                    spec.name, spec.callbacks, public_url=settings.public_url, secret=wiring.secret
                )
            providers[spec.name] = HttpSmsChannel(spec, usual_sender=own.sender, callbacks=heard.get(spec.name))
    return OpenChannel(
        providers,
        usual,
        removed=RemovedProvider,
        weights=weights,
        sender=own.sender,
        prices=settings.sms_prices,
        receivers={
            **own.receivers,
            callbacks.ROUTE_PATH: FileReceiver(heard),
            inbound.INBOUND_PATH: FileInboundReceiver(written),
        },
    )
