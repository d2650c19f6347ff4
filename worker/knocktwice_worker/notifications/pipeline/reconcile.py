"""Messages that no answer settled: looked up in the provider's own list before anything else is done about them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from knocktwice_worker.channels.http import backoff
from knocktwice_worker.channels.messages import StepMessage
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

log = structlog.get_logger(__name__)

#: Our clock and the provider's may differ by this much.
_CLOCK_SKEW = timedelta(minutes=1)
#: Time between two looks at the list.
_LOOK_AGAIN = timedelta(seconds=10)
#: After this long without an answer from the provider's list the outcome is unknown for good.
_GIVE_UP = timedelta(days=1)
#: How often a message may be sent again after its outcome stayed unknown.
_MOST_TRIES = 3


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
        retry_unknown: categories that prefer a repeat to a message that nobody sent.
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

        A message that the provider lists is adopted as sent. A message that it still does not list after the grace
        is sent again by the same provider, if its sender died with the call (the connection died too, so nothing is
        under way any more) or if its category prefers a repeat. If the provider itself answered unclearly, the
        message ends as ``unknown``.

        A provider that knows a repeat by its key is simply asked again. A provider without such keys and without a list
        cannot be asked at all: the outcome stays unknown.

        Returns:
            The notification ids of those that were adopted.
        """
        with self.senders.begin() as conn:
            rows = store.unresolved(conn, ids, self.lease)
            if not rows:
                return []
            listed = {
                way: self._list(*way, [row for row in rows if (row.channel, row.provider) == way])
                for way in {(row.channel, row.provider) for row in rows}
            }
            sids = [message.sid for found in listed.values() for messages in found.values() for message in messages]
            taken = store.known_provider_ids(conn, sids)
            results = [self._settle(row, listed[row.channel, row.provider].get(row.number), taken) for row in rows]
            unfinished = store.record_steps(conn, results)
            steps = {row.notification_id: row.step for row in rows}
            store.write_ledger(conn, [d for r in results if (d := _decision(r, steps[r.notification_id]))])
        adopted = [r.notification_id for r in results if r.state is DeliveryState.SENT]
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
        id_, age = row.notification_id, row.now - row.claimed_at
        provider = self.channels.provider(row.channel, row.provider)
        if provider.repeats_within is not None and not listed:
            return _repeat(row, min(provider.repeats_within, self.retry_for))
        if listed is None and provider.listable:
            if age > _GIVE_UP:
                return store.StepResult(
                    id_, DeliveryState.UNKNOWN, reason="the provider never answered and cannot be asked"
                )
            return store.StepResult(id_, DeliveryState.SENDING, reason=row.reason, wake_after=_LOOK_AGAIN)
        own = StepMessage(f"{id_}.{row.step}", to=row.number, text=row.text, sender=row.sender)
        for message in listed or ():
            if (
                message.sid not in taken
                and provider.is_message(message, own)
                and message.date_created >= row.claimed_at - _CLOCK_SKEW
            ):
                taken.add(message.sid)
                return store.StepResult(
                    id_, DeliveryState.SENT, provider_id=message.sid, reason="found in the provider's list"
                )
        if age < self.unknown_grace:
            return store.StepResult(
                id_, DeliveryState.SENDING, reason=row.reason, wake_after=min(_LOOK_AGAIN, self.unknown_grace - age)
            )
        # Without a list there is no sign that it did not go out.
        sender_died = row.reason is None and listed is not None
        if row.tries < _MOST_TRIES and (sender_died or row.category in self.retry_unknown):
            why = "the provider has no list" if listed is None else "not in the provider's list"
            return store.StepResult(id_, DeliveryState.RESERVED, reason=why, wake_after=timedelta())
        missing = "the provider cannot be asked" if listed is None else "not in the provider's list"
        reason = f"{row.reason or 'the sender died'}, and {missing}"
        return store.StepResult(id_, DeliveryState.UNKNOWN, reason=reason)


def _repeat(row: store.UnresolvedStep, within: timedelta) -> store.StepResult:
    """Send a message again to a provider that knows a repeat by its key, as long as it certainly still knows it."""
    id_ = row.notification_id
    if row.now - row.due_at < within:
        why, wait = "the provider knows a repeat by its key", backoff(row.tries)
        return store.StepResult(id_, DeliveryState.RESERVED, reason=why, wake_after=wait)
    reason = f"{row.reason or 'the sender died'}, and too late for a repeat"
    return store.StepResult(id_, DeliveryState.UNKNOWN, reason=reason)


def _decision(result: store.StepResult, step: int) -> store.Decision | None:
    match result.state:
        case DeliveryState.SENT:
            return store.Decision(result.notification_id, Note.ADOPTED, {"provider_id": result.provider_id}, step)
        case DeliveryState.RESERVED:
            return store.Decision(result.notification_id, Note.SENT_AGAIN, {"reason": result.reason}, step)
        case _:
            return None
