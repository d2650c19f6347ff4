"""The parts of a process that are made of the settings: each room's class with the values that it needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from knocktwice_shared.names import Task
from knocktwice_worker.audience.erased import Erased
from knocktwice_worker.audience.receipt_health import SilentKinds
from knocktwice_worker.blasts import clock_jumps as blast_clock_jumps
from knocktwice_worker.blasts.expansion import Expansion
from knocktwice_worker.channels.channel import Wiring
from knocktwice_worker.channels.opened import Channels
from knocktwice_worker.channels.outbound.pacing import Pace
from knocktwice_worker.channels.outbound.provider_choice import Providers
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.limits.asks import Limits, ProjectLimits
from knocktwice_worker.limits.counting import Counting
from knocktwice_worker.limits.homes import CellCounting, HomeLimits
from knocktwice_worker.limits.per_number import RedisLimits
from knocktwice_worker.limits.quiet_hours import QuietHours
from knocktwice_worker.notifications.inbox.accepted import Inbox, Work
from knocktwice_worker.notifications.pipeline.brake import BrakeGate
from knocktwice_worker.notifications.pipeline.carrier_choice import CarrierChoice
from knocktwice_worker.notifications.pipeline.catch_up import CatchUp
from knocktwice_worker.notifications.pipeline.clock_watch import ClockWatch
from knocktwice_worker.notifications.pipeline.delivery_reports import DeliveryReports
from knocktwice_worker.notifications.pipeline.experiment import Experiment
from knocktwice_worker.notifications.pipeline.fallback import Fallback
from knocktwice_worker.notifications.pipeline.fallback_gates import FallbackGates
from knocktwice_worker.notifications.pipeline.fallback_texts import FallbackTexts
from knocktwice_worker.notifications.pipeline.later_claims import LaterClaims
from knocktwice_worker.notifications.pipeline.later_steps import LaterSteps
from knocktwice_worker.notifications.pipeline.pauses import PauseGate
from knocktwice_worker.notifications.pipeline.push import Pushes
from knocktwice_worker.notifications.pipeline.push_delivery import PushDelivery
from knocktwice_worker.notifications.pipeline.push_texts import Allowed, PushTexts
from knocktwice_worker.notifications.pipeline.quiet import QuietGate
from knocktwice_worker.notifications.pipeline.reconcile import Reconcile
from knocktwice_worker.notifications.pipeline.trial import Trial
from knocktwice_worker.notifications.pipeline.withdraw import Withdrawals
from knocktwice_worker.privacy.erasure import Erasure
from knocktwice_worker.privacy.guard import ErasureGuard
from knocktwice_worker.services.accepted_work import AcceptedWork
from knocktwice_worker.services.signing import Signing
from knocktwice_worker.webhooks import replies
from knocktwice_worker.webhooks.sending import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from knocktwice_shared.messages import Batch
    from knocktwice_worker.cells.neighbours import Neighbours
    from knocktwice_worker.config import Settings
    from knocktwice_worker.projects.file import Projects


@dataclass(frozen=True)
class Services(Signing):
    """All parts that tasks need, by name. Each part is built when it is first used."""

    @cached_property
    def projects(self) -> Projects:
        """The projects that have senders or limits of their own."""
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
        return Expansion(
            engine=self.engine,
            catch_up=self.catch_up,
            queues=self.queues,
            lease=self.settings.lease,
            send=self.send,
            cell=cell,
        )

    def send(self, batches: Sequence[Batch], wanted: Callable[[Connection], bool] = lambda _: True) -> None:
        """Accept batches and push them, without people who were erased after the batches were made.

        Args:
            wanted: called in the transaction that writes the rows; if it returns ``False``, no row is written.
        """
        self.pushes.send_all([self.guard.without_erased(batch) for batch in batches], wanted)

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
        work = AcceptedWork(
            settings=self.settings,
            engine=self.engine,
            inbox=self.inbox,
            guard=self.guard,
            erasure=self.erasure,
            counters=self.counters,
            send=self.send,
        )
        return {
            Task.SEND_PUSH: work.push_batches,
            Task.RECORD_EVENTS: work.record_receipts,
            Task.CANCEL: work.cancel,
            Task.UPDATE_AUDIENCE: work.update_audience,
            Task.BLAST: work.start_blasts,
        }

    @cached_property
    def catch_up(self) -> CatchUp:
        """Carries out accepted messages about a person before a decision about this person."""
        said = (Task.RECORD_EVENTS, Task.CANCEL, Task.UPDATE_AUDIENCE)
        work = {task: self.accepted[task] for task in said}
        return CatchUp(inbox=self.inbox, work=work, patience=timedelta(seconds=self.settings.await_accepted_s))

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
        texts = PushTexts(
            engine=self.engine,
            links=self.links,
            receipt_urls=self.receipt_urls,
            allowed=Allowed(settings.min_after_s, settings.max_after_s, settings.max_ahead_days),
            default_zone=settings.default_zone,
            ttl_grace=timedelta(seconds=settings.ttl_grace_s),
            useless_after=settings.useless_after,
        )
        delivery = PushDelivery(
            engine=self.engine,
            channel=self.push,
            transport=self.transport,
            pace=self.push_pace,
            troubles=self.troubles,
            retry_for=timedelta(seconds=settings.push_retry_s),
            pauses=self.pauses,
        )
        return Pushes(
            engine=self.engine,
            catch_up=self.catch_up,
            erased_meanwhile=self.guard.erased_meanwhile,
            texts=texts,
            delivery=delivery,
            lease=settings.lease,
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
        gates = FallbackGates(
            channels=self.channels,
            limits=self.counting,
            quiet=self.quiet,
            useless_after=settings.useless_after,
            brake=self.brake,
            pauses=self.pauses,
            experiment=Experiment(
                settings.holdout_share, settings.probe_share, settings.probe_wait, secret(settings).encode()
            ),
        )
        return Fallback(
            engine=self.engine,
            catch_up=self.catch_up,
            silent_kinds=self.silent_kinds,
            unconfirmed_policy=settings.unconfirmed_policy,
            numbers=settings.phone_rules,
            untextable_for=timedelta(days=settings.untextable_days),
            countries=settings.sms_countries,
            channels=self.channels,
            projects=self.projects,
            texts=FallbackTexts(channels=self.channels, projects=self.projects, links=self.links),
            gates=gates,
            lease=settings.lease,
            useless_after=settings.useless_after,
            counters=self.counters,
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
        carriers = CarrierChoice(channels=self.channels, pauses=self.pauses)
        claims = LaterClaims(
            engine=self.engine,
            channels=self.channels,
            carriers=carriers,
            limits=self.counting,
            # What is tried was noted with the decision.
            quiet=replace(self.quiet, tried=QuietHours.parse("")),
            lease=self.settings.lease,
            useless_after=self.settings.useless_after,
            brake=self.brake,
            pauses=self.pauses,
        )
        return LaterSteps(
            engine=self.engine,
            catch_up=self.catch_up,
            senders=self.senders,
            transport=self.transport,
            channels=self.channels,
            claims=claims,
            carriers=carriers,
            troubles=self.troubles,
            retry_for=timedelta(seconds=self.settings.sms_retry_s),
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
        other.__dict__.update(self.kept())
        return other
