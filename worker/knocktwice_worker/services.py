"""The long-lived parts of a worker process: connections, channels, limits. Built on first use, once per process."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from knocktwice_shared import rabbitmq
from knocktwice_shared.errors import KnocktwiceError
from knocktwice_shared.messages import (
    Cancellation,
    OptOutSet,
    parse_audience,
    parse_batch,
    parse_blast,
    parse_cancellation,
    parse_receipts,
)
from knocktwice_shared.names import Task, scoped
from knocktwice_worker import config
from knocktwice_worker.audience import opt_out_log, people
from knocktwice_worker.audience.erased import Erased
from knocktwice_worker.audience.receipt_health import SilentKinds
from knocktwice_worker.blasts import clock_jumps as blast_clock_jumps
from knocktwice_worker.blasts import request, states
from knocktwice_worker.blasts.expansion import Expansion
from knocktwice_worker.cells.neighbours import Neighbours
from knocktwice_worker.channels.channel import Wiring
from knocktwice_worker.channels.fcm import FcmChannel
from knocktwice_worker.channels.opened import Channels
from knocktwice_worker.channels.outbound.pacing import Pace
from knocktwice_worker.channels.outbound.provider_choice import Providers
from knocktwice_worker.channels.outbound.transport import Transport
from knocktwice_worker.channels.outbound.troubles import Troubles
from knocktwice_worker.content.links.receipt_urls import ReceiptTokens, ReceiptUrls
from knocktwice_worker.content.links.short_links import ShortLinks
from knocktwice_worker.counters.counters import Count, Counters, Span
from knocktwice_worker.database import engine
from knocktwice_worker.embedded.installation import broker_url, connect_redis, database_url, secret, state_url
from knocktwice_worker.limits.asks import Limits, ProjectLimits
from knocktwice_worker.limits.counting import Counting
from knocktwice_worker.limits.homes import CellCounting, HomeLimits
from knocktwice_worker.limits.per_number import RedisLimits
from knocktwice_worker.limits.quiet_hours import QuietHours
from knocktwice_worker.notifications.inbox.accepted import Inbox, Work
from knocktwice_worker.notifications.pipeline import cancellation, receipts
from knocktwice_worker.notifications.pipeline.brake import BrakeGate
from knocktwice_worker.notifications.pipeline.catch_up import CatchUp
from knocktwice_worker.notifications.pipeline.clock_watch import ClockWatch
from knocktwice_worker.notifications.pipeline.delivery_reports import DeliveryReports
from knocktwice_worker.notifications.pipeline.experiment import Experiment
from knocktwice_worker.notifications.pipeline.fallback import Fallback
from knocktwice_worker.notifications.pipeline.later_steps import LaterSteps
from knocktwice_worker.notifications.pipeline.pauses import PauseGate
from knocktwice_worker.notifications.pipeline.push import Allowed, Pushes
from knocktwice_worker.notifications.pipeline.quiet import QuietGate
from knocktwice_worker.notifications.pipeline.reconcile import Reconcile
from knocktwice_worker.notifications.pipeline.trial import Trial
from knocktwice_worker.notifications.pipeline.withdraw import Withdrawals
from knocktwice_worker.privacy.erasure import Erasure
from knocktwice_worker.privacy.guard import ErasureGuard
from knocktwice_worker.queues.lengths import InRabbitMq, InRedis
from knocktwice_worker.switches import overrides
from knocktwice_worker.webhooks import replies
from knocktwice_worker.webhooks.carrier import Hooks
from knocktwice_worker.webhooks.sending import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import SecretStr
    from redis import Redis
    from sqlalchemy import Connection, Engine

    from knocktwice_shared.messages import Batch
    from knocktwice_worker.config import Settings
    from knocktwice_worker.content.links.short_links import Tracker
    from knocktwice_worker.projects.file import Projects
    from knocktwice_worker.queues.lengths import Lengths


log = structlog.get_logger(__name__)

#: Connections for short transactions. If more threads need one at once, some of them wait.
CONNECTIONS = 10
#: How long a short transaction may be idle. The limits are asked within one, and Redis may take ten seconds to answer.
_IDLE = timedelta(seconds=20)
#: The most bytes of an answer; a page of a provider's list has some hundred thousand.
LARGEST_ANSWER = 32 << 20


@dataclass(frozen=True)
class Services:
    """All parts that tasks need, by name. Each part is built when it is first used.

    Attributes:
        settings: the settings of the installation.
    """

    settings: Settings

    @cached_property
    def engine(self) -> Engine:
        """The engine for short transactions: claims, decisions, records."""
        settings = self.settings
        return engine.create(database_url(settings), pool_size=CONNECTIONS, idle=_IDLE, pooled=settings.database_pooled)

    @cached_property
    def senders(self) -> Engine:
        """The engine for transactions that last as long as a provider call; separate, to keep short ones free."""
        settings = self.settings
        return engine.create(
            database_url(settings), pool_size=20, idle=2 * settings.lease, pooled=settings.database_pooled
        )

    @cached_property
    def redis(self) -> Redis:
        """The client of Redis, which has the inbox and the limits."""
        return connect_redis(state_url(self.settings))

    @cached_property
    def queues(self) -> Lengths:
        """The queues' lengths."""
        url = broker_url(self.settings)
        return InRabbitMq(url) if rabbitmq.carries(url) else InRedis(self.redis)

    @cached_property
    def projects(self) -> Projects:
        """What projects have of their own."""
        return self.settings.projects()

    @cached_property
    def limits(self) -> RedisLimits:
        """The limits per number, in Redis."""
        return RedisLimits(self.redis, self._configured_limits)

    @cached_property
    def _configured_limits(self) -> Limits:
        settings = self.settings
        return Limits(
            per_day=settings.sms_per_day,
            same_content=settings.same_content,
            zone=settings.day_zone,
            secret=secret(settings).encode(),
            budget=settings.budget,
            projects=self.projects.limits,
            trial=ProjectLimits(settings.trial.sms_per_day, settings.trial.same_content, settings.trial.budget),
            own_trials=self.projects.trials,
        )

    @cached_property
    def neighbours(self) -> Neighbours | None:
        """The cells; ``None``: this installation is alone."""
        cells, name = self.settings.cells(), self.settings.cell
        return None if cells is None or name is None else Neighbours(cells, name)

    @cached_property
    def agreement(self) -> str:
        """The digest of what cells must agree about before they count texts for each other."""
        cells, limits = self.settings.cells(), self._configured_limits
        rules = f"{limits.zone.key} {sorted(limits.projects)}"
        return "" if cells is None else cells.agreement(limits.secret, rules)

    @cached_property
    def erased(self) -> Erased:
        """The list of erased people."""
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
        """The sender of webhook requests."""
        return Hooks(private=self.settings.webhook_private)

    @cached_property
    def webhooks(self) -> Sender:
        """Sends events to webhook endpoints."""
        give_up = timedelta(seconds=self.settings.webhook_give_up_s)
        return Sender(
            engine=self.engine,
            hooks=self.hooks,
            secrets=self.webhook_secrets,
            give_up=give_up,
            reply=self._reply if self.settings.inbound_replies_per_h else None,
        )

    def _reply(self, inbound: str, reply: str, project: str | None = None) -> None:
        most = self.settings.inbound_replies_per_h
        with self.engine.begin() as conn:
            batch = replies.batch(conn, inbound, reply, most=most, project=project)
        if batch is not None:
            self.send([batch])

    @cached_property
    def webhook_secrets(self) -> list[str]:
        """The secrets of webhook signatures, the newest first."""
        return _listed(self.settings.webhook_secret) or [secret(self.settings)]

    @cached_property
    def guard(self) -> ErasureGuard:
        """Removes erased people from messages before they are processed."""
        return ErasureGuard(engine=self.engine, erased=self.erased, secret=secret(self.settings).encode())

    @cached_property
    def erasure(self) -> Erasure:
        """Erases people."""
        own = secret(self.settings).encode()
        limits = self.limits if self.neighbours is None else self._counting_in_homes(self.neighbours)
        return Erasure(engine=self.engine, redis=self.redis, limits=limits, erased=self.erased, secret=own)

    @cached_property
    def expansion(self) -> Expansion:
        """Expands blasts into notifications."""
        cell = None if self.neighbours is None else self.neighbours.own
        return Expansion(engine=self.engine, queues=self.queues, lease=self.settings.lease, send=self.send, cell=cell)

    def send(self, batches: Sequence[Batch], wanted: Callable[[Connection], bool] = lambda _: True) -> None:
        """Accept batches and push them, without people who were erased after the batches were made.

        Args:
            wanted: called in the transaction that writes the rows; if it returns ``False``, no row is written.
        """
        self.pushes.send_all([self.guard.without_erased(batch) for batch in batches], wanted)

    @cached_property
    def push(self) -> FcmChannel:
        """Firebase Cloud Messaging."""
        settings = self.settings
        return FcmChannel(
            url=settings.fcm_url, credentials_file=settings.google_application_credentials, project=settings.fcm_project
        )

    @cached_property
    def channels(self) -> Channels:
        """The channels of later steps."""
        settings = self.settings

        def choice(weights: Mapping[str, float]) -> Providers:
            return Providers(
                self.redis,
                weights,
                share=settings.sms_provider_error_share,
                sample=settings.sms_provider_sample,
                pause=timedelta(seconds=settings.sms_provider_probe_s),
                patience=settings.lease,
            )

        return Channels(
            Wiring(settings, secret(settings)),
            pace=lambda rate: Pace(self.redis, name=rate.name, per_s=rate.per_s),
            choice=choice,
        )

    @cached_property
    def receipt_tokens(self) -> ReceiptTokens:
        """Signs and reads the receipt tokens in pushes."""
        secrets = _listed(self.settings.receipt_secret) or [secret(self.settings)]
        return ReceiptTokens([s.encode() for s in secrets], self.settings.receipt_valid)

    @cached_property
    def user_token_secrets(self) -> list[str]:
        """The secrets of user tokens; the first signs."""
        return _listed(self.settings.user_token_secret) or [secret(self.settings)]

    @cached_property
    def receipt_urls(self) -> ReceiptUrls | None:
        """Makes the addresses to which apps report; ``None`` without a public URL."""
        url = self.settings.public_url
        return ReceiptUrls(url, self.receipt_tokens) if url else None

    @cached_property
    def short_links(self) -> ShortLinks | None:
        """Makes short links; ``None`` without an address for links."""
        url = self.settings.link_address
        return ShortLinks(url, secret(self.settings).encode()) if url else None

    def links(self, notification: str, step: int) -> Tracker | None:
        """Return the maker of the short links in a step's message; ``None``: links stay as they are."""
        return self.short_links.of(notification, step) if self.short_links else None

    @cached_property
    def silent_kinds(self) -> SilentKinds:
        """The kinds of devices that never report deliveries."""
        return SilentKinds(self.settings)

    @cached_property
    def push_pace(self) -> Pace:
        """The pace that the Firebase project accepts."""
        return Pace(self.redis, name=f"fcm:{self.settings.fcm_project or ''}", per_s=self.settings.push_per_s)

    @cached_property
    def inbox(self) -> Inbox:
        """The accepted messages that are not in Postgres yet."""
        settings = self.settings
        return Inbox(
            redis=self.redis,
            queues=self.queues,
            engine=self.engine,
            grace_s=settings.inbox_grace_s,
            most_messages=settings.backlog_messages,
            most_bytes=settings.backlog_bytes,
        )

    @cached_property
    def accepted(self) -> dict[Task, Work]:
        """Task → the function that carries out its accepted messages."""
        return {
            Task.SEND_PUSH: self._push_batches,
            Task.RECORD_EVENTS: self._record_receipts,
            Task.CANCEL: self._cancel,
            Task.UPDATE_AUDIENCE: self._update_audience,
            Task.BLAST: self._start_blasts,
        }

    @cached_property
    def catch_up(self) -> CatchUp:
        """Carries out accepted messages about a person before a decision about this person."""
        said = (Task.RECORD_EVENTS, Task.CANCEL, Task.UPDATE_AUDIENCE)
        work = {task: self.accepted[task] for task in said}
        return CatchUp(inbox=self.inbox, work=work, patience=timedelta(seconds=self.settings.await_accepted_s))

    def _push_batches(self, messages: Sequence[object]) -> None:
        batches = [parse_batch(message) for message in messages]
        self.send(batches)
        if (called := _called_at(batches)) is not None:
            self.counters.took(Span.ENQUEUE_TO_PROVIDER, time.time() - called, sum(len(b.recipients) for b in batches))

    def _record_receipts(self, messages: Sequence[object]) -> None:
        parsed = [receipt for message in messages for receipt in parse_receipts(message)]
        receipts.record(self.engine, parsed)
        self.counters.add_each(Count.RECEIPTS, (r.kind.value for r in parsed))
        self.counters.took(Span.RECEIPT_DELAY, time.time() - min(r.at for r in parsed).timestamp(), len(parsed))

    def _cancel(self, messages: Sequence[object]) -> None:
        wanted: dict[str | None, list[Cancellation]] = {}
        for message in messages:
            one = parse_cancellation(message)
            wanted.setdefault(one.project, []).append(one)
        for project, own in wanted.items():
            self._cancel_in(project, own)

    def _cancel_in(self, project: str | None, wanted: Sequence[Cancellation]) -> None:
        keys = [key for one in wanted for key in one.keys]
        ids = [str(id_) for one in wanted for id_ in one.ids]
        ids += self.inbox.ids_of([scoped(key, project) for key in keys])

        def abort_blasts(conn: Connection) -> None:
            for one in wanted:
                for key in one.blasts:
                    states.abort(conn, key, "cancelled by the application", project)

        cancellation.cancel(self.engine, ids, keys, project, also=abort_blasts)

    def _update_audience(self, messages: Sequence[object]) -> None:
        changes = [change for message in messages for change in parse_audience(message)]
        with self.engine.begin() as conn:
            valid = self.guard.still_valid(conn, changes)
            people.apply(conn, valid)
            self.guard.restore_opt_outs(conn, valid)
            said = [change for change in valid if isinstance(change, OptOutSet)]
            opt_out_log.say(conn, said, secret(self.settings).encode())
        self.erasure.erase_all(changes)

    def _start_blasts(self, messages: Sequence[object]) -> None:
        wanted = [parse_blast(message) for message in messages]
        with self.engine.begin() as conn:
            for one in wanted:
                request.start(conn, one, settings=self.settings)

    @cached_property
    def counters(self) -> Counters:
        """What this process counts."""
        return Counters(on=self.settings.metrics)

    @cached_property
    def troubles(self) -> Troubles:
        """The providers that refuse us or fail."""
        return Troubles(self.redis, self.counters)

    @cached_property
    def counting(self) -> Counting:
        """The limits, in Redis or in Postgres; with cells in each number's home."""
        return Counting(redis=self.limits) if self.neighbours is None else self._counting_in_homes(self.neighbours)

    def _counting_in_homes(self, neighbours: Neighbours) -> CellCounting:
        homes = {
            cell.number: HomeLimits(
                neighbours.redis(cell), self._configured_limits, self.agreement, neighbours.other_engines
            )
            for cell in neighbours.cells.all
        }
        return CellCounting(redis=homes[neighbours.own.number], cells=neighbours.cells, homes=homes)

    @cached_property
    def clock_watch(self) -> ClockWatch:
        """Notices that the database's clock went back."""
        return ClockWatch(engine=self.engine, redis=self.redis, others=[blast_clock_jumps.wake])

    @cached_property
    def quiet(self) -> QuietGate:
        """The quiet hours, and those that are tried."""
        settings = self.settings
        tried = QuietHours.parse(settings.trial.quiet_hours)
        return QuietGate(hours=settings.quiet, default_zone=settings.default_zone, tried=tried)

    @cached_property
    def pushes(self) -> Pushes:
        """The first step: the push."""
        settings = self.settings
        return Pushes(
            engine=self.engine,
            catch_up=self.catch_up,
            channel=self.push,
            transport=self.transport,
            pace=self.push_pace,
            troubles=self.troubles,
            links=self.links,
            receipt_urls=self.receipt_urls,
            allowed=Allowed(settings.min_after_s, settings.max_after_s, settings.max_ahead_days),
            default_zone=settings.default_zone,
            lease=settings.lease,
            retry_for=timedelta(seconds=settings.push_retry_s),
            ttl_grace=timedelta(seconds=settings.ttl_grace_s),
            useless_after=settings.useless_after,
            pauses=self.pauses,
        )

    @cached_property
    def pauses(self) -> PauseGate:
        """Stops messages that operators have paused."""
        return PauseGate()

    @cached_property
    def fallback(self) -> Fallback:
        """The decision about a later step."""
        settings = self.settings
        return Fallback(
            engine=self.engine,
            catch_up=self.catch_up,
            limits=self.counting,
            quiet=self.quiet,
            silent_kinds=self.silent_kinds,
            unconfirmed_policy=settings.unconfirmed_policy,
            numbers=settings.phone_rules,
            untextable_for=timedelta(days=settings.untextable_days),
            countries=settings.sms_countries,
            channels=self.channels,
            projects=self.projects,
            links=self.links,
            lease=settings.lease,
            useless_after=settings.useless_after,
            brake=self.brake,
            counters=self.counters,
            pauses=self.pauses,
            experiment=Experiment(
                settings.holdout_share, settings.probe_share, settings.probe_wait, secret(settings).encode()
            ),
            trial=Trial.of(settings),
        )

    @cached_property
    def brake(self) -> BrakeGate:
        """Holds messages while too many would fall back at once."""
        settings = self.settings
        return BrakeGate(
            blasts=settings.brake,
            singles=settings.brake_singles,
            sample=settings.brake_sample,
            pumping=settings.pumping,
            pause=timedelta(minutes=1) / settings.pumping_slow_per_min,
        )

    @cached_property
    def later_steps(self) -> LaterSteps:
        """The messages of later steps."""
        return LaterSteps(
            engine=self.engine,
            catch_up=self.catch_up,
            senders=self.senders,
            transport=self.transport,
            channels=self.channels,
            limits=self.counting,
            # What is tried was noted with the decision.
            quiet=replace(self.quiet, tried=QuietHours.parse("")),
            troubles=self.troubles,
            lease=self.settings.lease,
            retry_for=timedelta(seconds=self.settings.sms_retry_s),
            useless_after=self.settings.useless_after,
            brake=self.brake,
            pauses=self.pauses,
        )

    @cached_property
    def reconcile(self) -> Reconcile:
        """Settles messages whose outcome was not recorded."""
        settings = self.settings
        return Reconcile(
            engine=self.engine,
            senders=self.senders,
            transport=self.transport,
            channels=self.channels,
            lease=settings.lease,
            retry_for=timedelta(seconds=settings.sms_retry_s),
            unknown_grace=timedelta(seconds=settings.sms_unknown_grace_s),
            retry_unknown=settings.sms_retry_unknown,
        )

    @cached_property
    def withdrawals(self) -> Withdrawals:
        """Takes pushes off screens that later steps have overtaken."""
        return Withdrawals(engine=self.engine, channel=self.push, transport=self.transport, pace=self.push_pace)

    @cached_property
    def delivery_reports(self) -> DeliveryReports:
        """Fetches missing reports from providers."""
        return DeliveryReports(
            engine=self.engine,
            books=self.channels.books,
            transport=self.transport,
            wait=self.settings.sms_report_wait,
            useless_after=self.settings.useless_after,
        )

    def with_settings(self, settings: Settings) -> Services:
        """Return the same parts with other settings; the connections stay open and are shared."""
        other = Services(settings)
        other.__dict__.update({name: self.__dict__[name] for name in _KEPT if name in self.__dict__})
        return other

    def close(self) -> None:
        """Close all parts that were built."""
        for name, close in (
            ("engine", "dispose"),
            ("senders", "dispose"),
            ("queues", "close"),
            ("redis", "close"),
            ("transport", "close"),
            ("hooks", "close"),
            ("neighbours", "close"),
        ):
            if (part := self.__dict__.pop(name, None)) is not None:
                getattr(part, close)()


def _listed(secrets: SecretStr | None) -> list[str]:
    """Return the secrets of a setting that may have several, separated by commas."""
    return [] if secrets is None else [s.strip() for s in secrets.get_secret_value().split(",") if s.strip()]


def _called_at(batches: Sequence[Batch]) -> float | None:
    """Return when the oldest of some batches was made, as Unix time, which its id (UUIDv7) begins with."""
    return min(((b.id.int >> 80) / 1000 for b in batches if b.id.version == 7), default=None)


#: How long the settings that operators have changed are taken as known, in seconds.
_FRESH_S = 1.0
#: What survives a change of the settings: connections, what has credentials, and what was counted and seen until then.
_KEPT = ("engine", "senders", "redis", "queues", "transport", "hooks", "push", "counters", "troubles", "neighbours")

_services: dict[int, Services] = {}


def services() -> Services:
    """Return this process's services; a forked child gets its own, because sockets do not survive a fork."""
    pid = os.getpid()
    if pid not in _services:
        _services.clear()
        _services[pid] = Services(config.load())
    return _services[pid]


@dataclass(slots=True)
class _Steered:
    """What operators have changed in this process's settings.

    Attributes:
        changed: environment variable → its value instead.
        looked_at: when that was asked, on the monotonic clock.
        lock: lets one thread ask at a time.
    """

    changed: dict[str, str] = field(default_factory=dict)
    looked_at: float = float("-inf")
    lock: threading.Lock = field(default_factory=threading.Lock)


_steered: dict[int, _Steered] = {}


def steered() -> Services:
    """Return this process's services with the settings that operators have changed, as they were a second ago at most.

    While the database does not answer, the settings stay as they were known last.
    """
    here, known = services(), _steered.setdefault(os.getpid(), _Steered())
    if time.monotonic() - known.looked_at <= _FRESH_S:
        return here
    with known.lock:
        if time.monotonic() - known.looked_at <= _FRESH_S:
            return services()
        # The time before the query counts: a worker that stands still during the query asks again.
        at = time.monotonic()
        try:
            with here.engine.connect() as conn:
                changed = {one.name: one.value for one in overrides.list_all(conn)}
            if changed != known.changed:
                _services[os.getpid()] = here.with_settings(overrides.applied(config.load(), changed))
                known.changed = changed
                log.warning("settings changed by an operator", names=sorted(changed))
        except (SQLAlchemyError, KnocktwiceError) as error:
            log.warning("changed settings are not known", error=type(error).__name__)
        known.looked_at = at
    return services()
