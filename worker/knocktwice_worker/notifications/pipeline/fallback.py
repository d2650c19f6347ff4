"""The decision about a step that is due: is it needed, and is it allowed?"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from knocktwice_shared.channels import SMS
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import Category, Push, When
from knocktwice_worker.audience.opt_outs import suppressed
from knocktwice_worker.channels.channel import Consent
from knocktwice_worker.channels.opened import NO_CARRIER
from knocktwice_worker.config import UnconfirmedPolicy
from knocktwice_worker.content import plans, rendering
from knocktwice_worker.content.links import link_store
from knocktwice_worker.content.rendering import fingerprint
from knocktwice_worker.counters.counters import Count
from knocktwice_worker.database.test_rows import STAND_IN
from knocktwice_worker.lifecycle import (
    FALL_BACK,
    FOLLOW_UPS,
    LOST,
    TRIGGERS,
    Delay,
    DeliveryState,
    Facts,
    Refusal,
    TextTrouble,
    Verdict,
    decide,
)
from knocktwice_worker.notation import phone_numbers
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline.catch_up import PENDING
from knocktwice_worker.notifications.pipeline.concurrency import at_most
from knocktwice_worker.notifications.pipeline.decision_case import (
    Case,
    addressee,
    candidate_for_brake,
    limits_ask,
    planned_step,
)
from knocktwice_worker.notifications.pipeline.experiment import Arm
from knocktwice_worker.notifications.pipeline.pauses import Candidate as Pausable
from knocktwice_worker.notifications.store import trial_counts
from knocktwice_worker.notifications.store.braked import OF_MANY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence, Set

    from sqlalchemy import Connection, Engine

    from knocktwice_worker.audience.receipt_health import SilentKinds
    from knocktwice_worker.channels.opened import Channels
    from knocktwice_worker.content.links.short_links import Tracker
    from knocktwice_worker.counters.counters import Counters
    from knocktwice_worker.limits.counting import Counting
    from knocktwice_worker.notifications.pipeline.brake import BrakeGate, Stopped
    from knocktwice_worker.notifications.pipeline.catch_up import CatchUp
    from knocktwice_worker.notifications.pipeline.experiment import Experiment
    from knocktwice_worker.notifications.pipeline.pauses import PauseGate
    from knocktwice_worker.notifications.pipeline.quiet import QuietGate
    from knocktwice_worker.notifications.pipeline.trial import Trial
    from knocktwice_worker.projects.file import Projects

log = structlog.get_logger(__name__)

#: Batch and locale → push and SMS text: read once for all who have the same.
_Texts = dict[tuple[str, str | None], tuple[Push | None, str | None]]

#: What shows that somebody has the push.
_ARRIVED = TRIGGERS[When.NOT_DELIVERED].answered_by

_UNDECIDED = {Verdict.WAIT, Delay.LIMITS_UNAVAILABLE, Delay.QUIET_HOURS, Delay.BRAKE, Delay.PAUSED, Delay.PROBE}

#: The wait before another look at a step that could not be decided yet.
_WAIT = timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """Decides about steps that are due.

    Attributes:
        engine: opens short transactions.
        catch_up: carries out accepted messages about a notification before the decision.
        limits: counts messages against their numbers.
        quiet: postpones marketing during quiet hours.
        silent_kinds: the kinds of devices that never report a delivery.
        unconfirmed_policy: decides about a step whose push went only to such devices.
        numbers: which numbers may be texted.
        untextable_for: how long a number is passed over that messages did not reach.
        countries: ISO codes of the countries whose numbers may get messages; empty: all.
        channels: the channels of later steps.
        projects: what projects have of their own.
        links: returns what makes the links in a step's message, if anything does.
        lease: how long a reserved message waits for its sender before it rings again.
        useless_after: how long after it was due a message may still go, by category.
        brake: holds messages while too many would fall back at once.
        counters: counts the verdicts.
        pauses: stops messages that operators have paused.
        experiment: holds a share back, if an operator wants to know what the messages are worth.
        trial: rules that are only tried.
    """

    engine: Engine
    catch_up: CatchUp
    limits: Counting
    quiet: QuietGate
    silent_kinds: SilentKinds
    unconfirmed_policy: UnconfirmedPolicy
    numbers: phone_numbers.Rules
    untextable_for: timedelta
    countries: Collection[str]
    channels: Channels
    projects: Projects
    links: Callable[[str, int], Tracker | None]
    lease: timedelta
    useless_after: Mapping[Category, timedelta]
    brake: BrakeGate
    counters: Counters
    pauses: PauseGate
    experiment: Experiment
    trial: Trial

    @at_most(2)
    def check(self, ids: Sequence[str]) -> list[str]:
        """Decide about those of ``ids`` that are due by the database's clock.

        Returns:
            The ids whose message is now reserved and must be sent.
        """
        # Outside the transaction, because carrying out a message locks the same rows.
        pending = self._pending(ids)
        with self.engine.begin() as conn:
            rows = self._settled(
                conn, store.due(conn, ids, again=self.untextable_for, tried=self.trial.untextable_for), pending
            )
            if not rows:
                return []
            batches = store.contents(conn, (row.batch_id for row in rows))
            unconfirmed = self._unconfirmed(conn, rows)
            addresses = self._addresses(conn, rows, batches)
            texts: _Texts = {}
            cases = [
                self._consider(row, batches[row.batch_id], unconfirmed, addresses.get(row.notification_id), texts)
                for row in rows
            ]
            for case in cases:
                case.hurried = case.id in pending
            self._pause(conn, [c for c in cases if c.reservation])
            stopped = self._brake(conn, [c for c in cases if c.reservation])
            self._keep_suppressed(conn, [c for c in cases if c.reservation and c.row.user_id is None])
            self._postpone_quiet(conn, [c for c in cases if c.reservation and c.category is Category.MARKETING])
            self._share_numbers(conn, [c for c in cases if c.reservation], batches)
            self._experiment([c for c in cases if c.reservation], batches)
            asking = [case for case in cases if case.reservation]
            self._apply_limits(conn, asking, rows[0].now)
            reservations = [c.reservation for c in asking if c.reservation and c.verdict in FALL_BACK]
            won = store.reserve(conn, sorted(reservations, key=lambda r: r.notification_id), self.lease)
            link_store.insert(conn, [link for c in cases if c.id in won for link in c.links])
            waiting = [c.id for c in cases if c.verdict in _UNDECIDED]
            store.postpone(conn, [c.id for c in cases if c.verdict is Delay.LIMITS_UNAVAILABLE], _WAIT)
            again = {c.id: c.row.again or c.row.now + _WAIT for c in cases if c.verdict is Verdict.WAIT}
            probed = {c.id: c.probed_until for c in cases if c.probed_until is not None}
            store.look_at(conn, again | stopped.unseen | probed)
            store.write_ledger(conn, [c.decision() for c in cases if c.id in won or c.id in probed])
            store.skip(conn, [c.decision() for c in cases if c.verdict not in FALL_BACK and c.id not in waiting])
            hurried = sum(c.hurried and c.verdict not in _UNDECIDED for c in cases)
            store.not_awaited(conn, hurried, self.catch_up.patience.total_seconds())
            stopped.note_passed(conn)
            watched = Counter(word for c in cases if c.id in won for word in c.stoppers)
            trial_counts.note(conn, watched)
        if hurried:
            log.warning("accepted messages were not awaited", decisions=hurried)
        lost = [limits_ask(c, r) for c in asking if (r := c.reservation) and c.verdict in FALL_BACK and c.id not in won]
        self.limits.release(lost, rows[0].now)
        self.counters.add_each(Count.DECISIONS, (case.verdict for case in cases if not case.test))
        self.counters.add_each(Count.WATCHED, watched.elements())
        log.info("fallbacks decided", due=len(rows), reserved=len(won), waiting=len(waiting))
        return sorted(won)

    def _pending(self, ids: Sequence[str]) -> Set[str]:
        try:
            return self.catch_up.notifications(self.engine, ids, left=True)
        except RedisError as error:
            # Without Redis the pending messages are unknown. Redis accepts no new message meanwhile, so the wait is
            # limited.
            log.warning("decisions wait for the inbox", error=type(error).__name__)
            return frozenset(ids)

    def _settled(self, conn: Connection, rows: Sequence[store.DueStep], pending: Set[str]) -> Sequence[store.DueStep]:
        """Postpone steps with a pending message, unless their patience is over; return the other steps."""
        waiting = [
            row.notification_id
            for row in rows
            if row.notification_id in pending and row.now - row.due_at < self.catch_up.patience
        ]
        if not waiting:
            return rows
        store.postpone(conn, waiting, PENDING)
        return [row for row in rows if row.notification_id not in waiting]

    def _pause(self, conn: Connection, cases: Sequence[Case]) -> None:
        """Take out the messages that an operator has paused. They count against no limit."""
        candidates = (
            Pausable(
                c.id,
                c.row.channel,
                [STAND_IN] if c.test else self.channels.carriers(c.row.channel, r.text),
                r.sender,
                r.number,
            )
            for c in cases
            if (r := c.reservation)
        )
        paused = self.pauses.stop(conn, candidates, self.useless_after)
        for case in cases:
            if case.id in paused:
                case.verdict, case.reservation = Delay.PAUSED, None

    def _brake(self, conn: Connection, cases: Sequence[Case]) -> Stopped:
        """Take out the messages that a brake holds, or may hold as soon as their pushes were counted.

        None holds a test.
        """
        concerned = [c for c in cases if (c.verdict in OF_MANY or c.row.pumping is not None) and not c.test]
        stopped = self.brake.stop(
            conn, [candidate_for_brake(case, self.useless_after[case.category]) for case in concerned]
        )
        stopped.write(conn)
        for case in cases:
            case.passed = stopped.passed.get(case.id)
            if case.passed is not None:
                case.watched.append(TextTrouble.PUMPING if case.passed == case.row.pumping else Delay.BRAKE)
            if case.id in stopped.ids:
                case.verdict, case.reservation = Delay.BRAKE, None
        return stopped

    def _keep_suppressed(self, conn: Connection, cases: Sequence[Case]) -> None:
        """Refuse numbers whose erased owners had opted out.

        A user's number was checked when it was bound to the user. These numbers came inline, so they are checked here.
        """
        gone = suppressed(conn, {case.row.number or "" for case in cases}, self.limits.secret)
        for case in cases:
            if case.row.number in gone:
                case.verdict, case.reservation = Refusal.OPTED_OUT, None

    def _share_numbers(
        self, conn: Connection, cases: Sequence[Case], batches: Mapping[str, store.BatchContents]
    ) -> None:
        """Refuse messages of a blast to numbers that another of its notifications has."""
        wanted: dict[tuple[str, bytes], str] = {}
        of_blasts = [(c, blast) for c in cases if (blast := batches[c.row.batch_id].blast_id) is not None]
        for case, blast in of_blasts:
            if case.reservation is not None:
                wanted.setdefault((blast, self._hash(case.row.channel, case.reservation.number)), case.id)
        having = store.take_numbers(conn, wanted)
        for case, _ in of_blasts:
            if case.id not in having:
                case.verdict, case.reservation = Refusal.SHARED_NUMBER, None

    def _hash(self, channel: str, number: str) -> bytes:
        return hmac.digest(self.limits.secret, f"blast:{channel}:{number}".encode(), hashlib.sha256)[:16]

    def _postpone_quiet(self, conn: Connection, cases: Sequence[Case]) -> None:
        asleep = self.quiet.postpone(conn, [case.row for case in cases])
        for case in cases:
            if case.id in asleep.postponed:
                case.verdict, case.reservation = Delay.QUIET_HOURS, None
            elif case.id in asleep.tried:
                case.watched.append(Delay.QUIET_HOURS)

    def _experiment(self, cases: Sequence[Case], batches: Mapping[str, store.BatchContents]) -> None:
        """Hold a share back, or let it wait longer. It is drawn among those that limits are asked about next."""
        if not self.experiment:
            return
        for case in cases:
            # What nobody may miss, what is no fallback and what is no more than a test, is never part of it.
            if (
                case.test
                or case.category is Category.CRITICAL
                or case.verdict is Verdict.FIRST_STEP
                or case.row.trigger in FOLLOW_UPS
            ):
                continue
            case.arm = self.experiment.arm(case.id)
            if case.arm is Arm.HELD_OUT:
                case.verdict, case.reservation = Refusal.HELD_OUT, None
            elif case.arm is Arm.PROBE:
                row = case.row
                useful_for = batches[row.batch_id].valid_for or self.useless_after[case.category]
                case.probed_until = self.experiment.waits_until(row.due_at, row.now, useful_for)
                if case.probed_until is not None:
                    case.verdict, case.reservation = Delay.PROBE, None

    def _unconfirmed(self, conn: Connection, rows: Sequence[store.DueStep]) -> dict[str, list[str]]:
        """Return the notifications pushed only to kinds of devices that never send receipts, with these kinds."""
        if self.unconfirmed_policy is UnconfirmedPolicy.TEXT:
            return {}
        open_ = [
            r for r in rows if r.trigger is When.NOT_DELIVERED and r.before is DeliveryState.SENT and r.after_step == 0
        ]
        ids = [r.notification_id for r in open_ if all(getattr(r, kind) is None for kind in _ARRIVED)]
        return self.silent_kinds.among(conn, ids)

    def _unconfirmed_verdict(self, case: Case, kinds: list[str] | None) -> Verdict | Refusal | Delay:
        if case.verdict is not Verdict.NOT_DELIVERED or kinds is None:
            return case.verdict
        case.unconfirmed = {"policy": self.unconfirmed_policy, "never_confirm": kinds}
        accepts = self.unconfirmed_policy is UnconfirmedPolicy.ACCEPT
        return Verdict.ACCEPTED_UNCONFIRMED if accepts else Verdict.NOT_CLICKED

    def _addresses(
        self, conn: Connection, rows: Sequence[store.DueStep], batches: Mapping[str, store.BatchContents]
    ) -> dict[str, str]:
        """Return each step's address; steps of people without an address of the channel's kind are left out."""
        found = {row.notification_id: row.number for row in rows if row.number is not None}
        for channel in {row.channel for row in rows}:
            address = self.channels.entry(channel).address
            if address.is_number:
                continue
            people = [addressee(row, batches[row.batch_id]) for row in rows if row.channel == channel]
            for person in people:
                found.pop(person.notification_id, None)
            found |= address.find(conn, people)
        return found

    def _consider(
        self,
        row: store.DueStep,
        batch: store.BatchContents,
        unconfirmed: Mapping[str, list[str]],
        address: str | None,
        texts: _Texts,
    ) -> Case:
        verdict = decide(
            Facts(
                when=row.trigger and When(row.trigger),
                before=row.before and DeliveryState(row.before),
                delivered=row.delivered is not None,
                clicked=row.clicked is not None,
                read=row.read is not None,
                seen=row.seen is not None,
                replied=row.replied is not None,
                cancelled=row.cancelled is not None,
                follows_push=row.after_step == 0,
                undelivered=row.provider_status in LOST,
            )
        )
        case = Case(row, batch.category, verdict, blast=batch.blast_id is not None)
        case.verdict = self._unconfirmed_verdict(case, unconfirmed.get(case.id))
        if case.verdict in FALL_BACK:
            case.verdict = self._refusal(case, address, batch) or case.verdict
            if case.verdict in FALL_BACK and address is not None:
                number = address if self.channels.entry(row.channel).address.is_number else None
                case.watched.extend(self.trial.refusals(row, case.category, batch.valid_for, number))
                case.reservation = self._reservation(case, address, batch, texts)
        return case

    def _refusal(self, case: Case, address: str | None, batch: store.BatchContents) -> Refusal | None:
        """Return why no message may go to this person over the step's channel; ``None``: it may."""
        row, entry = case.row, self.channels.entry(case.row.channel)
        if row.now - row.due_at > (batch.valid_for or self.useless_after[case.category]):
            return Refusal.TOO_LATE
        if self.channels[entry.name].silent and self.projects.sender(row.project, entry.name) is None:
            return Refusal.NO_SENDER
        if address is None:
            return entry.address.missing
        if entry.address.is_number and row.opted_out:
            return Refusal.OPTED_OUT
        if entry.consent is Consent.PHONE and case.category is Category.MARKETING and not row.consented:
            return Refusal.NO_CONSENT
        if not entry.address.is_number:
            return None
        if (unusable := phone_numbers.refusal(address, self.numbers)) is not None:
            case.limits["number"] = unusable[0]
            return Refusal.INVALID_NUMBER
        if row.untextable is not None:
            case.limits["untextable"] = row.untextable
            return Refusal.UNTEXTABLE
        if self.countries and phone_numbers.country(address) not in self.countries:
            return Refusal.COUNTRY_BLOCKED
        return None

    def _reservation(
        self, case: Case, address: str, batch: store.BatchContents, texts: _Texts
    ) -> store.Reservation | None:
        entry = self.channels.entry(case.row.channel)
        links = self.links(case.id, case.row.step)
        try:
            own = texts.get((case.row.batch_id, case.row.locale))
            if own is None:
                own = rendering.of(batch.content, case.row.locale)
                texts[case.row.batch_id, case.row.locale] = own
            step = planned_step(case.row, batch)
            said = plans.words(step, *own, case.row.locale, case.row.params, links=links, wording=entry.wording)
        except InvalidMessage as error:
            # The push, or another step, could be written, so the notification was accepted. Only this step fails.
            case.verdict, case.problem = Refusal.INVALID_CONTENT, str(error)
            return None
        if not self.channels.carriers(entry.name, said.text):
            case.verdict, case.problem = Refusal.INVALID_CONTENT, NO_CARRIER
            return None
        sender = said.sender or self._usual_sender(case, batch)
        if not self.projects.may_use(case.row.project, sender):
            case.verdict, case.problem = Refusal.INVALID_CONTENT, "the sender belongs to another project"
            return None
        same = said.text
        if links is not None and links.targets:
            case.links = [link_store.Link(t, case.id, case.row.step, target) for t, target in links.targets.items()]
            # Each message has its own short links. The fingerprint uses the links' targets, so that equal messages are
            # found.
            same = links.content(said.text)
        return store.Reservation(
            case.id, address, said.text, fingerprint(same), entry.size(said.text), sender, case.test
        )

    def _usual_sender(self, case: Case, batch: store.BatchContents) -> str | None:
        # The sender of a template is a sender of SMS.
        named = batch.content.get("sender") if case.row.channel == SMS else None
        own = self.projects.sender(case.row.project, case.row.channel)
        return named or own or self.channels[case.row.channel].sender

    def _apply_limits(self, conn: Connection, cases: Sequence[Case], now: datetime) -> None:
        asks = [limits_ask(c, r) for c in cases if (r := c.reservation)]
        answers = self.limits.count(conn, asks, now)
        for case, ask, answer in zip(cases, asks, answers, strict=True):
            case.limits = answer.inputs(ask, self.limits.limits)
            if answer.refusal:
                case.verdict = answer.refusal
                continue
            if answer.trial:
                case.watched.append(answer.trial)
            if answer.own_trial:
                case.watched.append(f"{ask.level}/{answer.own_trial}")
