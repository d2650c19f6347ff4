"""Messages that no answer settled: looked up in the provider's own list before anything else is done about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from knocktwice_worker.channels.http import backoff
from knocktwice_worker.channels.messages import StepMessage
from knocktwice_worker.channels.reports import write_intent
from knocktwice_worker.database.test_rows import STAND_IN
from knocktwice_worker.lifecycle import DeliveryState, Note
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Engine

    from knocktwice_shared.messages import Category
    from knocktwice_worker.channels.http import Carrier
    from knocktwice_worker.channels.messages import ListedMessage
    from knocktwice_worker.channels.opened import Channels
    from knocktwice_worker.channels.provider import StepProvider

log = structlog.get_logger(__name__)

#: Our clock and the provider's may differ by this much.
_CLOCK_SKEW = timedelta(minutes=1)
#: Time between two looks at the list.
_LOOK_AGAIN = timedelta(seconds=10)
#: After this long without an answer from the provider's list the outcome is unknown for good.
_GIVE_UP = timedelta(days=1)
#: Two looks at the list are this part of a lease apart. A request that left at the last moment of its lease and took
#: the longest time allowed (less than half a lease) is over before the second one.
_BETWEEN_LOOKS = 0.5
#: How often a message is sent whose sender died each time, or whose provider cannot be asked. A message that the list
#: certainly does not have is sent again for as long as it is useful.
_MOST_TRIES = 3
#: Shortest and longest wait before a message is sent again that the provider did not take, the first time apart;
#: doubled with each try.
_AGAIN, _AGAIN_CAP = timedelta(minutes=1), timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Reconcile:
    """Settles claimed messages whose outcome nobody recorded.

    Attributes:
        engine: for short transactions.
        senders: for the transactions that stay open while a provider is asked.
        transport: carries the requests.
        channels: the channels of later steps.
        lease: how long a claim lasts without an answer.
        retry_for: how long after it was due a message is sent again to a provider that knows a repeat by its key.
        unknown_grace: how long after its claim a message may still appear in the provider's list.
        retry_unknown: categories that prefer a repeat to none where the provider cannot be asked.
    """

    engine: Engine
    senders: Engine
    transport: Carrier
    channels: Channels
    lease: timedelta
    retry_for: timedelta
    unknown_grace: timedelta
    retry_unknown: Collection[Category]

    def resolve(self, ids: Sequence[str]) -> list[str]:
        """Settle claimed messages whose sender died or got no clear answer.

        A message that the provider lists is adopted as sent. A provider that knows a repeat by its key is simply asked
        again. A message that an answering list does not have, twice and after the grace, was not sent: it is sent
        again. Only if nobody can say whether it went out does it end as ``unknown``: the provider has no list, or the
        list has not answered for a day.

        Returns:
            The notification ids of those that were adopted.
        """
        with self.senders.begin() as conn:
            rows = store.unresolved(conn, ids, self.lease)
            if not rows:
                return []
            listed = {
                way: self._list(*way, [row for row in rows if (row.channel, row.provider) == way])
                for way in {(row.channel, row.provider) for row in rows if row.provider != STAND_IN}
            }
            sids = [message.sid for found in listed.values() for messages in found.values() for message in messages]
            taken = store.known_provider_ids(conn, sids)
            settled = [
                self._settle(row, listed.get((row.channel, row.provider), {}).get(row.number), taken) for row in rows
            ]
            unfinished = store.record_steps(conn, settled)
            store.note_searches(conn, settled)
            steps = {row.notification_id: row.step for row in rows}
            store.write_ledger(conn, [d for r in settled if (d := _decision(r, steps[r.notification_id]))])
        adopted = [r.notification_id for r in settled if r.state is DeliveryState.SENT]
        store.look_again(self.engine, unfinished, adopted)
        log.info("sms reconciled", looked_up=len(rows), adopted=len(adopted))
        return adopted

    def _list(
        self, channel: str, provider_name: str, rows: Sequence[store.UnresolvedStep]
    ) -> dict[str, list[ListedMessage]]:
        """Ask the provider once per number; a number it did not answer for is missing from the result."""
        since: dict[str, datetime] = {}
        for row in rows:
            since[row.number] = min(since.get(row.number, row.claimed_at), row.claimed_at)
        provider = self.channels.provider(channel, provider_name)
        return provider.list_messages(self.transport, {n: at - _CLOCK_SKEW for n, at in since.items()})

    def _settle(
        self, row: store.UnresolvedStep, listed: Sequence[ListedMessage] | None, taken: set[str]
    ) -> store.StepResult:
        if row.provider == STAND_IN:
            return _again(row, "a test went nowhere", timedelta())
        provider = self.channels.provider(row.channel, row.provider)
        if found := _find(row, listed or (), taken, provider):
            taken.add(found)
            reason = "found in the provider's list"
            return store.StepResult(row.notification_id, DeliveryState.SENT, provider_id=found, reason=reason)
        known_for = min(provider.repeats_within or timedelta(), self.retry_for)
        # From when it was due and not from its last try: the provider counts from the first one.
        if row.now - row.due_at < known_for:
            return _again(row, "the provider knows a repeat by its key", backoff(row.tries))
        if not provider.listable:
            return self._without_list(row, keyed=provider.repeats_within is not None)
        if listed is None:
            if row.now - row.claimed_at > _GIVE_UP:
                return _unknown(row, "the provider's list never answered")
            return _look_again(row, _LOOK_AGAIN)
        return self._not_there(row)

    def _without_list(self, row: store.UnresolvedStep, *, keyed: bool) -> store.StepResult:
        """Settle a message about which nobody can be asked."""
        if keyed:
            return _unknown(row, "too late for a repeat")
        if (left := self.unknown_grace - (row.now - row.claimed_at)) > timedelta():
            return _look_again(row, min(_LOOK_AGAIN, left))
        if row.limited_repeats + 1 < _MOST_TRIES and row.category in self.retry_unknown:
            return replace(_again(row, "the provider has no list", timedelta()), limited=True)
        return _unknown(row, "the provider cannot be asked")

    def _not_there(self, row: store.UnresolvedStep) -> store.StepResult:
        """Settle a message that an answering list does not have."""
        # Within the lease the claim's request may still be under way, whoever has it.
        if (left := max(self.unknown_grace, self.lease) - (row.now - row.claimed_at)) > timedelta():
            return _look_again(row, min(_LOOK_AGAIN, left))
        apart = self.lease * _BETWEEN_LOOKS
        if row.missed_at is None:
            return replace(_look_again(row, apart), missed=True)
        if (left := apart - (row.now - row.missed_at)) > timedelta():
            return _look_again(row, left)
        if row.reason is not None:
            wait = timedelta() if row.tries == 1 else min(_AGAIN * 2.0 ** min(row.tries - 2, 10), _AGAIN_CAP)
            return _again(row, "not in the provider's list", wait)
        if row.limited_repeats + 1 < _MOST_TRIES:
            return replace(_again(row, "not in the provider's list", timedelta()), limited=True)
        reason = "its senders died each time, and it is not in the provider's list"
        return store.StepResult(row.notification_id, DeliveryState.FAILED, reason=reason)


def _find(
    row: store.UnresolvedStep, listed: Sequence[ListedMessage], taken: Collection[str], provider: StepProvider
) -> str | None:
    """Return the provider's id of a message in its list; ``None``: it is not there."""
    intent = write_intent(row.notification_id, row.step, row.lost)
    own = StepMessage(intent, to=row.number, text=row.text, sender=row.sender)
    since = row.claimed_at - _CLOCK_SKEW
    mine = (m for m in listed if m.sid not in taken and provider.is_message(m, own) and m.date_created >= since)
    return next((message.sid for message in mine), None)


def _look_again(row: store.UnresolvedStep, wait: timedelta) -> store.StepResult:
    return store.StepResult(row.notification_id, DeliveryState.SENDING, reason=row.reason, wake_after=wait)


def _again(row: store.UnresolvedStep, why: str, wait: timedelta) -> store.StepResult:
    return store.StepResult(row.notification_id, DeliveryState.RESERVED, reason=why, wake_after=wait)


def _unknown(row: store.UnresolvedStep, missing: str) -> store.StepResult:
    reason = f"{row.reason or 'the sender died'}, and {missing}"
    return store.StepResult(row.notification_id, DeliveryState.UNKNOWN, reason=reason)


def _decision(result: store.StepResult, step: int) -> store.Decision | None:
    match result.state:
        case DeliveryState.SENT:
            return store.Decision(result.notification_id, Note.ADOPTED, {"provider_id": result.provider_id}, step)
        case DeliveryState.RESERVED:
            return store.Decision(result.notification_id, Note.SENT_AGAIN, {"reason": result.reason}, step)
        case _:
            return None
