"""The delivery of pushes: hand them to the provider within the pace, and record what it answered."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from knocktwice_shared.messages import ReceiptEvent
from knocktwice_worker.channels import stand_in
from knocktwice_worker.channels.outcomes import Outcome, Rejected, Retry, Sent, Unknown, patience
from knocktwice_worker.channels.provider import deliver
from knocktwice_worker.lifecycle import WAITS_TURN, AttemptState, Note
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline import receipts
from knocktwice_worker.notifications.pipeline.pauses import PUSH_PROVIDER, a_push

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from knocktwice_worker.channels.deadline import Deadline
    from knocktwice_worker.channels.http import Carrier
    from knocktwice_worker.channels.messages import PushMessage
    from knocktwice_worker.channels.outbound.pacing import Pace
    from knocktwice_worker.channels.outbound.troubles import Troubles
    from knocktwice_worker.channels.provider import Provider
    from knocktwice_worker.notifications.pipeline.pauses import PauseGate

#: First wait before a push is tried again when the provider names none.
_BACKOFF = timedelta(seconds=10)


@dataclass(frozen=True, kw_only=True)
class PushDelivery:
    """Delivers pushes, and records the answers.

    Attributes:
        engine: for short transactions.
        channel: the push channel.
        transport: carries its requests.
        pace: how fast the push provider may be spoken to.
        troubles: takes notice of a provider that refuses us or fails.
        retry_for: how long after the time it was to go out a push is still retried.
        pauses: stops pushes that operators have paused.
    """

    engine: Engine
    channel: Provider[PushMessage]
    transport: Carrier
    pace: Pace
    troubles: Troubles
    retry_for: timedelta
    pauses: PauseGate

    def deliver(self, messages: Sequence[PushMessage], lease: Deadline, *, complete: bool = False) -> None:
        """Hand pushes to the provider, and record its answers.

        Args:
            messages: the pushes, each for one device.
            lease: no push leaves after it.
            complete: these are all pushes of their notifications, at their first try.
        """
        if not messages:
            return
        paused, unpaused_until = self._paused_since(messages)
        results = [
            store.PushResult(
                m.notification_id,
                m.registration,
                AttemptState.OPEN,
                "paused",
                retry_after=timedelta(),
                untried=True,
            )
            for m in messages
            if m.notification_id in paused
        ]
        messages = [m for m in messages if m.notification_id not in paused]
        tests = [m for m in messages if m.test]
        results += [_result(m, stand_in.push(m)) for m in tests]
        # From here on no test is left, so the provider, its pace and its troubles know of none.
        messages = [m for m in messages if not m.test]
        # Pushes that are taken up again have waited.
        turn = self.pace.take([1] * len(messages), entitled=0 if complete else len(messages))
        outcomes = deliver(self.transport, self.channel, messages[: turn.granted], min(lease, unpaused_until))
        self.troubles.note(PUSH_PROVIDER, outcomes)
        results += [_result(m, o) for m, o in zip(messages, outcomes, strict=False)]
        for m, wait in zip(messages[turn.granted :], turn.waits, strict=True):
            waits = store.PushResult(
                m.notification_id, m.registration, AttemptState.OPEN, WAITS_TURN, retry_after=wait, untried=True
            )
            results.append(waits)
        if asked := patience(outcomes):
            self.pace.slow_down(asked.after)
        with self.engine.begin() as conn:
            again = store.record_push(conn, results, retry_for=self.retry_for, complete=complete)
            store.write_ledger(conn, _tested(tests))
        if again:
            with self.engine.begin() as conn:
                store.settle_cancelled(conn, again)
        if tests:
            self._report(tests)

    def _paused_since(self, messages: Sequence[PushMessage]) -> tuple[set[str], Deadline]:
        """Return the pushes that were paused since their claim, and until when the others may leave.

        Those that were paused are given back at once; ``Pushes.resume`` lets them wait for their pause.
        """
        look = self.pauses.look_with(self.engine)
        if not look.pauses:
            return set(), look.holds
        with self.engine.begin() as conn:
            return self.pauses.stopped_since(conn, map(a_push, {m.notification_id for m in messages}), pushes=True)

    def _report(self, tests: Sequence[PushMessage]) -> None:
        """Record what the apps of a test would report, by how their registrations begin."""
        now = datetime.now(UTC)
        told = [
            ReceiptEvent(UUID(m.notification_id), kind, now, m.registration)
            for m in tests
            for kind in stand_in.receipts(m)
        ]
        if told:
            receipts.record(self.engine, told)


def _tested(tests: Sequence[PushMessage]) -> list[store.Decision]:
    """Return the lines of the ledger that tell of pushes which would have gone out."""
    devices = Counter(m.notification_id for m in tests)
    return [store.Decision(id_, Note.WOULD_HAVE_SENT, {"devices": count}, step=0) for id_, count in devices.items()]


def _result(message: PushMessage, outcome: Outcome) -> store.PushResult:
    ids = (message.notification_id, message.registration)
    match outcome:
        case Sent(provider_id):
            return store.PushResult(*ids, AttemptState.SENT, provider_id=provider_id)
        case Rejected(reason, detail, address_dead):
            text = f"{reason}: {detail}" if detail else reason
            return store.PushResult(*ids, AttemptState.REJECTED, text, address_dead=address_dead)
        case Retry(reason, after, ours=ours):
            return store.PushResult(*ids, AttemptState.OPEN, reason, retry_after=_wait(after), untried=ours)
        case Unknown(reason, after):
            return store.PushResult(*ids, AttemptState.OPEN, reason, retry_after=_wait(after))


def _wait(asked: timedelta | None) -> timedelta:
    """Return when to try again, never early. It is spread: a batch that failed together must not come back together."""
    if asked is None:
        return _BACKOFF * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
    return asked * random.uniform(1, 1.2)  # noqa: S311 - no secret
