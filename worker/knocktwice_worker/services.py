"""What a worker process holds for its whole life: connections, channels, limits. Built on first use, once per process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from psycopg2.extensions import new_type, register_type

from knocktwice_shared.messages import Channel
from knocktwice_worker import config
from knocktwice_worker.audience.erased import Erased
from knocktwice_worker.audience.receipt_health import SilentKinds
from knocktwice_worker.blasts.expansion import Expansion
from knocktwice_worker.channels.fcm import FcmChannel
from knocktwice_worker.channels.http_sms import file as provider_file
from knocktwice_worker.channels.http_sms.callbacks import HttpCallbacks
from knocktwice_worker.channels.http_sms.file import TWILIO
from knocktwice_worker.channels.http_sms.provider import HttpSmsChannel, RemovedProvider
from knocktwice_worker.channels.outbound.pacing import Pace
from knocktwice_worker.channels.outbound.provider_choice import Providers
from knocktwice_worker.channels.outbound.transport import Transport
from knocktwice_worker.channels.twilio.reports import TwilioReports
from knocktwice_worker.channels.twilio.sms import TwilioSmsChannel
from knocktwice_worker.channels.twilio.whatsapp import TwilioWhatsappChannel
from knocktwice_worker.content.links import short_links
from knocktwice_worker.content.links.receipt_urls import ReceiptTokens, ReceiptUrls
from knocktwice_worker.content.links.short_links import ShortLinks
from knocktwice_worker.database import arrays
from knocktwice_worker.embedded import servers as embedded
from knocktwice_worker.limits.counting import Counting
from knocktwice_worker.limits.per_number import Limits, RedisLimits
from knocktwice_worker.notifications.inbox.accepted import Inbox
from knocktwice_worker.notifications.pipeline.delivery_reports import DeliveryReports
from knocktwice_worker.notifications.pipeline.fallback import Fallback
from knocktwice_worker.notifications.pipeline.later_steps import LaterSteps
from knocktwice_worker.notifications.pipeline.push import Allowed, Pushes
from knocktwice_worker.notifications.pipeline.quiet import QuietGate
from knocktwice_worker.notifications.pipeline.reconcile import Reconcile
from knocktwice_worker.notifications.pipeline.withdraw import Withdrawals
from knocktwice_worker.privacy.erasure import Erasure
from knocktwice_worker.privacy.guard import ErasureGuard
from knocktwice_worker.webhooks.carrier import Hooks
from knocktwice_worker.webhooks.sending import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis import Redis

    from knocktwice_shared.messages import Batch
    from knocktwice_worker.channels import Messaging
    from knocktwice_worker.channels.http_sms.file import ProviderFile
    from knocktwice_worker.config import Settings
    from knocktwice_worker.content.links.short_links import Tracker


#: Connections for short transactions; whoever runs more threads than that lets some of them wait.
CONNECTIONS = 10
#: Bytes of an answer; a page of a provider's list has some hundred thousand.
LARGEST_ANSWER = 32 << 20


@dataclass(frozen=True)
class Services:
    """Everything a task needs, by name. Each part is made when it is first asked for."""

    settings: Settings

    @cached_property
    def engine(self) -> sa.Engine:
        """Short transactions: claims, decisions, records."""
        return _engine(self.settings, pool_size=CONNECTIONS)

    @cached_property
    def senders(self) -> sa.Engine:
        """Transactions that stay open during a provider call, so that they cannot starve the short ones."""
        return _engine(self.settings, pool_size=20)

    @cached_property
    def redis(self) -> Redis:
        """The inbox and the limits."""
        return connect_redis(broker_url(self.settings))

    @cached_property
    def limits(self) -> RedisLimits:
        """The per-number limits."""
        settings = self.settings
        return RedisLimits(
            self.redis,
            Limits(
                per_day=settings.sms_per_day,
                same_content=settings.same_content,
                zone=settings.day_zone,
                secret=secret(settings).encode(),
                budget=settings.budget,
            ),
        )

    @cached_property
    def erased(self) -> Erased:
        """Who was erased."""
        return Erased(self.engine, secret(self.settings).encode())

    @cached_property
    def transport(self) -> Transport:
        """The HTTP engine."""
        settings = self.settings
        return Transport(
            timeout=settings.provider_timeout_s, in_flight=settings.provider_in_flight, most_bytes=LARGEST_ANSWER
        )

    @cached_property
    def hooks(self) -> Hooks:
        """Where webhooks go out."""
        return Hooks(private=self.settings.webhook_private)

    @cached_property
    def webhooks(self) -> Sender:
        """Tells endpoints what happens."""
        give_up = timedelta(seconds=self.settings.webhook_give_up_s)
        return Sender(engine=self.engine, hooks=self.hooks, secret=secret(self.settings), give_up=give_up)

    @cached_property
    def guard(self) -> ErasureGuard:
        """Takes erased people out of what is processed."""
        return ErasureGuard(engine=self.engine, erased=self.erased, secret=secret(self.settings).encode())

    @cached_property
    def erasure(self) -> Erasure:
        """Erases people."""
        own = secret(self.settings).encode()
        return Erasure(engine=self.engine, redis=self.redis, limits=self.limits, erased=self.erased, secret=own)

    @cached_property
    def expansion(self) -> Expansion:
        """Carries blasts out."""
        return Expansion(engine=self.engine, redis=self.redis, lease=self.settings.lease, send=self.send)

    def send(self, batches: Sequence[Batch], wanted: Callable[[sa.Connection], bool] = lambda _: True) -> None:
        """Accept batches and push them, without people who were erased after the batches were made.

        Args:
            wanted: asked in the transaction that writes the rows; unless it agrees nothing is written.
        """
        self.pushes.send_all([self.guard.without_erased(batch) for batch in batches], wanted)

    @cached_property
    def push(self) -> FcmChannel:
        """Firebase Cloud Messaging."""
        return FcmChannel.from_settings(self.settings)

    @cached_property
    def sms(self) -> TwilioSmsChannel:
        """Twilio."""
        return TwilioSmsChannel.from_settings(self.settings, secret=secret(self.settings))

    @cached_property
    def whatsapp(self) -> TwilioWhatsappChannel:
        """WhatsApp through Twilio."""
        return TwilioWhatsappChannel.from_settings(self.settings, secret=secret(self.settings))

    @cached_property
    def reports(self) -> TwilioReports:
        """What Twilio says became of messages."""
        return TwilioReports.from_settings(self.settings, secret=secret(self.settings))

    @cached_property
    def _provider_file(self) -> ProviderFile | None:
        path = self.settings.sms_providers_file
        return provider_file.read(str(path)) if path else None

    @cached_property
    def _http_providers(self) -> dict[str, HttpSmsChannel]:
        specs = self._provider_file.providers if self._provider_file else ()
        callbacks, usual = self.sms_callbacks, self.settings.twilio_from
        return {s.name: HttpSmsChannel(s, usual_sender=usual, callbacks=callbacks.get(s.name)) for s in specs}

    @cached_property
    def sms_callbacks(self) -> dict[str, HttpCallbacks]:
        """What SMS providers of the file call back, by their names."""
        specs = self._provider_file.providers if self._provider_file else ()
        url, own = self.settings.public_url, secret(self.settings)
        return {s.name: HttpCallbacks(s.name, s.callbacks, public_url=url, secret=own) for s in specs if s.callbacks}

    @cached_property
    def providers(self) -> Providers | None:
        """The SMS providers to choose from; ``None``: there is only Twilio, and nothing to choose."""
        file, settings = self._provider_file, self.settings
        if file is None:
            return None
        # Without an account Twilio would only fail.
        weights = {TWILIO: file.twilio.weight} if settings.twilio_account_sid else {}
        weights |= {spec.name: spec.weight for spec in file.providers}
        return Providers(
            self.redis,
            weights,
            share=settings.sms_provider_error_share,
            sample=settings.sms_provider_sample,
            pause=timedelta(seconds=settings.sms_provider_probe_s),
            patience=settings.lease,
        )

    def messaging(self, channel: str, provider: str | None = None) -> Messaging:
        """Return the channel of a later step, by a provider; ``None`` is Twilio."""
        if channel == Channel.WHATSAPP:
            return self.whatsapp
        if provider in (None, TWILIO):
            return self.sms
        return self._http_providers.get(provider) or RemovedProvider(provider)

    def pace(self, channel: str, sender: str | None, provider: str | None = None) -> Pace:
        """Return the pace of a later step's channel, sender and provider; ``None`` is the default one."""
        if channel == Channel.WHATSAPP:
            return self.whatsapp_pace
        if provider in (None, TWILIO):
            return self.sms_pace(sender)
        return self._provider_pace(provider, sender)

    def _provider_pace(self, provider: str, sender: str | None) -> Pace:
        own = self._http_providers.get(provider)
        name = f"{provider}:{(own.sender_of(sender) if own else sender) or ''}"
        if name not in self._sms_paces:
            self._sms_paces[name] = Pace(self.redis, name=f"sms:{name}", per_s=own.parts_per_s if own else 0)
        return self._sms_paces[name]

    @cached_property
    def receipt_tokens(self) -> ReceiptTokens:
        """Signs and reads what pushes carry for their receipts."""
        own = self.settings.receipt_secret
        secrets = own.get_secret_value().split(",") if own else [secret(self.settings)]
        return ReceiptTokens([s.strip().encode() for s in secrets], self.settings.receipt_valid)

    @cached_property
    def receipt_urls(self) -> ReceiptUrls | None:
        """Makes the addresses at which apps report; ``None`` while nobody could reach them."""
        url = self.settings.public_url
        return ReceiptUrls(url, self.receipt_tokens) if url else None

    @cached_property
    def short_links(self) -> ShortLinks | None:
        """Makes short links; ``None`` while nobody could open them."""
        url = short_links.address(self.settings)
        return ShortLinks(url, secret(self.settings).encode()) if url else None

    def links(self, notification: str, step: int) -> Tracker | None:
        """Return what makes the links in a step's message, if anything does."""
        return self.short_links.of(notification, step) if self.short_links else None

    @cached_property
    def silent_kinds(self) -> SilentKinds:
        """The kinds of devices that never report deliveries."""
        return SilentKinds(self.settings)

    @cached_property
    def push_pace(self) -> Pace:
        """How fast the Firebase project may be spoken to."""
        return Pace(self.redis, name=f"fcm:{self.settings.fcm_project or ''}", per_s=self.settings.push_per_s)

    def sms_pace(self, sender: str | None) -> Pace:
        """How fast an SMS sender may be spoken to; ``None`` is the default one."""
        name = sender or self.settings.twilio_from or ""
        if name not in self._sms_paces:
            self._sms_paces[name] = Pace(self.redis, name=f"sms:{name}", per_s=self.settings.sms_parts_per_s)
        return self._sms_paces[name]

    @cached_property
    def _sms_paces(self) -> dict[str, Pace]:
        return {}

    @cached_property
    def whatsapp_pace(self) -> Pace:
        """How fast the WhatsApp sender may be spoken to."""
        name = f"whatsapp:{self.settings.whatsapp_from or ''}"
        return Pace(self.redis, name=name, per_s=self.settings.whatsapp_per_s)

    @cached_property
    def inbox(self) -> Inbox:
        """What producers were promised and is not in Postgres yet."""
        return Inbox(redis=self.redis, engine=self.engine, grace_s=self.settings.inbox_grace_s)

    @cached_property
    def counting(self) -> Counting:
        """The limits, in Redis or in Postgres."""
        return Counting(redis=self.limits)

    @cached_property
    def quiet(self) -> QuietGate:
        """The quiet hours."""
        return QuietGate(hours=self.settings.quiet, default_zone=self.settings.default_zone)

    @cached_property
    def pushes(self) -> Pushes:
        """The first step: the push."""
        settings = self.settings
        return Pushes(
            engine=self.engine,
            channel=self.push,
            transport=self.transport,
            pace=self.push_pace,
            links=self.links,
            receipt_urls=self.receipt_urls,
            allowed=Allowed(settings.min_after_s, settings.max_after_s, settings.max_ahead_days),
            default_zone=settings.default_zone,
            lease=settings.lease,
            retry_for=timedelta(seconds=settings.push_retry_s),
            ttl_grace=timedelta(seconds=settings.ttl_grace_s),
        )

    @cached_property
    def fallback(self) -> Fallback:
        """The decision about a later step."""
        settings = self.settings
        return Fallback(
            engine=self.engine,
            limits=self.counting,
            quiet=self.quiet,
            silent_kinds=self.silent_kinds,
            unconfirmed_policy=settings.unconfirmed_policy,
            countries=settings.sms_countries,
            sms_sender=settings.twilio_from,
            whatsapp_sender=settings.whatsapp_from,
            links=self.links,
            lease=settings.lease,
        )

    @cached_property
    def later_steps(self) -> LaterSteps:
        """The messages of later steps."""
        return LaterSteps(
            engine=self.engine,
            senders=self.senders,
            transport=self.transport,
            messaging=self.messaging,
            pace=self.pace,
            providers=self.providers,
            limits=self.counting,
            quiet=self.quiet,
            lease=self.settings.lease,
            retry_for=timedelta(seconds=self.settings.sms_retry_s),
        )

    @cached_property
    def reconcile(self) -> Reconcile:
        """The outcomes that nobody recorded."""
        settings = self.settings
        return Reconcile(
            engine=self.engine,
            senders=self.senders,
            transport=self.transport,
            messaging=self.messaging,
            lease=settings.lease,
            retry_for=timedelta(seconds=settings.sms_retry_s),
            unknown_grace=timedelta(seconds=settings.sms_unknown_grace_s),
            retry_unknown=settings.sms_retry_unknown,
        )

    @cached_property
    def withdrawals(self) -> Withdrawals:
        """Pushes that later steps have overtaken."""
        return Withdrawals(engine=self.engine, channel=self.push, transport=self.transport, pace=self.push_pace)

    @cached_property
    def delivery_reports(self) -> DeliveryReports:
        """What providers say became of messages."""
        return DeliveryReports(
            engine=self.engine, reports=self.reports, transport=self.transport, wait=self.settings.sms_report_wait
        )

    def close(self) -> None:
        """Close what was opened."""
        for name, close in (
            ("engine", "dispose"),
            ("senders", "dispose"),
            ("redis", "close"),
            ("transport", "close"),
            ("hooks", "close"),
        ):
            if name in self.__dict__:
                getattr(self.__dict__.pop(name), close)()


#: PostgreSQL's ``uuid``.
_ID_AS_TEXT = new_type((2950,), "UUID as text", lambda value, _: value)

_services: dict[int, Services] = {}


def services() -> Services:
    """Return this process's services; a forked child gets its own, because sockets do not survive a fork."""
    pid = os.getpid()
    if pid not in _services:
        _services.clear()
        _services[pid] = Services(config.load())
    return _services[pid]


def database_url(settings: Settings) -> str:
    """Return the SQLAlchemy URL of the operator's own PostgreSQL, or of the embedded one."""
    url = settings.database_url or embedded.addresses(settings.home).database_url
    for scheme in ("postgres://", "postgresql://"):
        if url.startswith(scheme):
            return "postgresql+psycopg2://" + url.removeprefix(scheme)
    return url


def broker_url(settings: Settings) -> str:
    """Return the kombu URL of the operator's own Redis or Valkey, or of the embedded one."""
    return settings.broker_url or embedded.addresses(settings.home).broker_url


def secret(settings: Settings) -> str:
    """Return the key for hashing numbers and signing; without a setting it is made once and kept in the home folder."""
    if settings.secret is not None:
        return settings.secret.get_secret_value()
    return embedded.secret(settings.home)


def connect_redis(url: str) -> Redis:
    """Connect to the broker as a plain Redis client, with bounded waits.

    Args:
        url: the broker's URL as kombu takes it.
    """
    import redis
    from redis.backoff import ExponentialBackoff
    from redis.retry import Retry

    plain = url
    if url.startswith("redis+socket://"):
        plain = "unix://" + url.removeprefix("redis+socket://").replace("virtual_host=", "db=")
    # One repeat: everything we ask of Redis is idempotent, and a longer outage is the caller's to handle.
    return redis.Redis.from_url(
        plain,
        socket_timeout=5,
        socket_connect_timeout=5,
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=1), 1),
    )


def _engine(settings: Settings, pool_size: int) -> sa.Engine:
    arrays.register()
    engine = sa.create_engine(
        database_url(settings),
        pool_size=pool_size,
        max_overflow=0,
        # An error's text is logged and shown; the values in it are personal data.
        hide_parameters=True,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 10, "application_name": "knocktwice"},
    )
    sa.event.listen(engine, "connect", _ids_as_text)
    return engine


def _ids_as_text(connection: Any, _: object) -> None:
    # We send ids as text and never look into them. Making an object of each and a text of that again cost more than
    # anything else that a row of a batch went through.
    register_type(_ID_AS_TEXT, connection)
