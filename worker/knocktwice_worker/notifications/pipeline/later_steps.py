"""Later steps: claim with a lease, hold the row lock during the provider call, record the answer.

Some providers have no idempotency key, so exactly one message rests on these steps. The claim is committed before the
call: a worker that dies leaves a trace. The row lock is held during the call: a slow sender cannot be taken for a dead
one. A message that no answer settles is looked up in the provider's own list (``reconcile.py``).
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from knocktwice_worker.channels import stand_in
from knocktwice_worker.channels.deadline import Deadline
from knocktwice_worker.channels.messages import StepMessage
from knocktwice_worker.channels.outcomes import Outcome, Retry, patience
from knocktwice_worker.channels.provider import deliver
from knocktwice_worker.channels.reports import write_intent
from knocktwice_worker.database.test_rows import STAND_IN
from knocktwice_worker.lifecycle import DeliveryState, Note
from knocktwice_worker.notation import phone_numbers
from knocktwice_worker.notation.masking import mask
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline.carrier_choice import CarrierChoice, as_pausable
from knocktwice_worker.notifications.pipeline.catch_up import PENDING
from knocktwice_worker.notifications.pipeline.concurrency import at_most
from knocktwice_worker.notifications.pipeline.step_outcomes import result_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection, Engine

    from knocktwice_worker.channels.http import Carrier
    from knocktwice_worker.channels.opened import Channels
    from knocktwice_worker.channels.outbound.troubles import Troubles
    from knocktwice_worker.notifications.pipeline.catch_up import CatchUp
    from knocktwice_worker.notifications.pipeline.later_claims import LaterClaims
    from knocktwice_worker.notifications.pipeline.pauses import PauseGate

log = structlog.get_logger(__name__)

#: How old the last look at receipts and opt-outs may be when a message leaves. A sender that stood still looks again.
_FRESH = timedelta(seconds=2)
#: The part of that time that a claim may take; after a longer one the inbox is looked at again.
_OF_FRESH = 0.25
#: The part of its lease within which a message may leave; the rest is for clocks that differ.
_OF_LEASE = 0.8
#: What becomes of a message that was stopped between its claim and its lock: it goes back, and ends there with the true
#: reason.
_STOPPED = Retry("stopped after its claim", timedelta(), ours=True)


@dataclass(frozen=True, kw_only=True)
class LaterSteps:
    """Sends the messages of later steps.

    Attributes:
        engine: for short transactions.
        catch_up: carries out what was said about a notification before its message goes.
        senders: for the transactions that stay open during a provider call.
        transport: carries the requests.
        channels: the channels of later steps.
        claims: claims messages before they go.
        carriers: chooses the provider of each message.
        troubles: takes notice of providers that refuse us or fail.
        retry_for: how long after it was due a message is sent again that its provider did not take.
        pauses: stops messages that operators have paused.
    """

    engine: Engine
    catch_up: CatchUp
    senders: Engine
    transport: Carrier
    channels: Channels
    claims: LaterClaims
    carriers: CarrierChoice
    troubles: Troubles
    retry_for: timedelta
    pauses: PauseGate

    @at_most(4)
    def send(self, ids: Sequence[str]) -> list[str]:
        """Send the reserved messages among ``ids``, each after a last look at receipts, opt-outs and limits.

        Returns:
            The notification ids of those that the provider took.
        """
        # From before the claim: past its lease another worker may take the message for lost, and send it.
        lease = Deadline.within(self.claims.lease * _OF_LEASE)
        # From before the look at the inbox: what is accepted after it is not seen any more.
        look = Deadline.within(_FRESH)
        claim = self.claims.claim(self._settled(ids))
        if claim is None:
            return []
        unheard: set[str] = set()
        if look.later(-_FRESH * (1 - _OF_FRESH)).over:
            look = Deadline.within(_FRESH)
            unheard = self._pending(list(claim.chosen))
        with self.senders.begin() as conn:
            held = store.hold(conn, list(claim.chosen), claim.at)
            pausable = [as_pausable(row, (row.provider,)) for row in held]
            paused, unpaused_until = self.pauses.stopped_since(conn, pausable)
            # A provider to which a connection takes longer than that gets the time it needs, try by try.
            tries = max((row.tries for row in held), default=1)
            not_after = min(lease, look.later(_FRESH * (2 ** min(tries - 1, 4) - 1)))
            patient = tries > 1 and not_after > unpaused_until
            with (
                self.pauses.watching(
                    self.engine,
                    pausable,
                    not_after,
                    min(look, unpaused_until),
                    partial(self._said, [row.notification_id for row in held]),
                )
                if patient
                else nullcontext(min(not_after, unpaused_until))
            ) as until:
                outcomes = self._deliver(held, claim.useful_for, paused | unheard, until)
            tried_for = self._tried_for(conn, held, outcomes)
            results = [
                result_of(row, outcome, self.retry_for, tried_for.get(row.notification_id, row.age))
                for row, outcome in zip(held, outcomes, strict=True)
            ]
            if self.carriers.have_choice(held):
                results = store.with_ids_of_their_own(conn, self.carriers.moved(conn, held, outcomes, results))
            unfinished = store.record_steps(conn, results)
            store.write_ledger(conn, self._tested(held, results))
        sent = [r.notification_id for r in results if r.state is DeliveryState.SENT]
        store.look_again(self.engine, unfinished, sent)
        self._slow_down(held, outcomes)
        self.carriers.note(held, claim.chosen, outcomes)
        for provider, own in _by_provider(held, outcomes).items():
            self.troubles.note(provider, own)
        log.info("sms handed over", claimed=len(claim.chosen), sent=len(sent))
        return sent

    def _settled(self, ids: Sequence[str]) -> Sequence[str]:
        """Let those wait about whom something accepted is still pending, unless they have waited long enough."""
        try:
            pending = self.catch_up.notifications(self.engine, ids, left=True)
        except RedisError as error:
            # What was accepted after the decision is unknown. Redis accepts nothing meanwhile, so the wait is limited.
            log.warning("messages wait for the inbox", error=type(error).__name__)
            pending = set(ids)
        if not pending:
            return ids
        with self.engine.begin() as conn:
            waiting = pending - store.overdue(conn, sorted(pending), self.catch_up.patience)
            store.postpone(conn, sorted(waiting), PENDING)
        return [id_ for id_ in ids if id_ not in waiting]

    def _pending(self, ids: Sequence[str]) -> set[str]:
        """Carry out what was accepted about claimed messages; return those about which something is still pending."""
        try:
            return self.catch_up.notifications(self.engine, ids)
        except RedisError as error:
            # It may have gone away since the look before the claim, and taken something in between.
            log.warning("claimed messages wait for the inbox", error=type(error).__name__)
            with self.engine.begin() as conn:
                return set(ids) - store.overdue(conn, sorted(ids), self.catch_up.patience)

    def _said(self, ids: Sequence[str]) -> bool:
        """Whether anything was said that stops one of these claimed messages.

        It only looks, as their rows are locked.
        """
        try:
            waiting = self.catch_up.waiting(self.engine, ids)
        except RedisError:
            # Before it went away it may have taken something.
            waiting = set(ids)
        with self.engine.begin() as conn:
            if waiting:
                waiting -= store.overdue(conn, sorted(waiting), self.catch_up.patience)
            return bool(waiting) or any(map(self.claims.is_stopped, store.peek(conn, ids)))

    def _deliver(
        self,
        held: Sequence[store.ClaimedStep],
        useful_for: Mapping[str, timedelta],
        paused: Collection[str],
        not_after: Deadline,
    ) -> list[Outcome]:
        """Send through each message's own channel and provider; outcomes in the same order."""
        outcomes: dict[str, Outcome] = {}
        by_way: dict[tuple[str, str], list[store.ClaimedStep]] = defaultdict(list)
        for row in held:
            if (
                self.claims.is_stopped(row)
                or row.notification_id in paused
                or row.age > useful_for[row.notification_id]
            ):
                outcomes[row.notification_id] = _STOPPED
                continue
            by_way[row.channel, row.provider].append(row)
        for (channel, provider), rows in by_way.items():
            messages = [
                StepMessage(
                    write_intent(row.notification_id, row.step, row.lost),
                    to=row.number,
                    text=row.text,
                    sender=row.sender,
                    useful_for=useful_for[row.notification_id] - row.age,
                )
                for row in rows
            ]
            answers = (
                [stand_in.step(message) for message in messages]
                if provider == STAND_IN
                else deliver(self.transport, self.channels.provider(channel, provider), messages, not_after)
            )
            outcomes |= {row.notification_id: answer for row, answer in zip(rows, answers, strict=True)}
        return [outcomes[row.notification_id] for row in held]

    def _tested(self, held: Sequence[store.ClaimedStep], results: Sequence[store.StepResult]) -> list[store.Decision]:
        """Return the lines of the ledger that tell of messages which would have gone out, and what they would have cost."""
        sent = {r.notification_id for r in results if r.state is DeliveryState.SENT}
        lines = []
        for row in held:
            if row.provider != STAND_IN or row.notification_id not in sent:
                continue
            parts, prices = self.channels.entry(row.channel).size(row.text), self.channels[row.channel].prices
            price = prices.get(phone_numbers.country(row.number) or "*", prices.get("*"))
            facts = {
                "to": mask(row.number),
                "from": row.sender or self.channels[row.channel].sender,
                "parts": parts or None,
                "price": None if price is None else f"{price * (parts or 1):g}",
            }
            known = {name: fact for name, fact in facts.items() if fact is not None}
            lines.append(store.Decision(row.notification_id, Note.WOULD_HAVE_SENT, known, row.step))
        return lines

    def _tried_for(
        self, conn: Connection, held: Sequence[store.ClaimedStep], outcomes: Sequence[Outcome]
    ) -> Mapping[str, timedelta]:
        """Return for how long messages might go by now that otherwise would be given up: neither a pause nor a night is a try."""
        old = [
            row.notification_id
            for row, outcome in zip(held, outcomes, strict=True)
            if isinstance(outcome, Retry) and row.age > self.retry_for
        ]
        return store.free_for(conn, old) if old else {}

    def _slow_down(self, held: Sequence[store.ClaimedStep], outcomes: Sequence[Outcome]) -> None:
        by_sender: dict[tuple[str, str, str | None], list[Outcome]] = defaultdict(list)
        for row, outcome in zip(held, outcomes, strict=True):
            by_sender[row.channel, row.provider, row.sender].append(outcome)
        for (channel, provider, sender), own in by_sender.items():
            if asked := patience(own):
                self.channels.pace(channel, provider, sender).slow_down(asked.after)


def _by_provider(held: Sequence[store.ClaimedStep], outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    own: dict[str, list[Outcome]] = defaultdict(list)
    for row, outcome in zip(held, outcomes, strict=True):
        if row.provider != STAND_IN:
            own[row.provider].append(outcome)
    return own
