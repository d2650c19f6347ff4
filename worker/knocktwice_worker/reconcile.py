"""What no answer settled: look for it in the provider's own list before anything else is done about it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import text

from knocktwice_shared.messages import Category
from knocktwice_worker import store
from knocktwice_worker.lifecycle import DeliveryState, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

    from knocktwice_worker.channels.twilio import ListedMessage
    from knocktwice_worker.services import Services

log = structlog.get_logger(__name__)

#: Our clock and the provider's may differ by this much.
_CLOCK_SKEW = timedelta(minutes=1)
#: Time between two looks at the list.
_LOOK_AGAIN = timedelta(seconds=10)
#: After this long without an answer from the provider's list nobody will know any more.
_GIVE_UP = timedelta(days=1)
#: How often a message may be sent again after its outcome stayed unknown.
_MOST_TRIES = 3


def resolve(services: Services, ids: Sequence[str]) -> list[str]:
    """Settle claimed SMS whose sender died or got no clear answer.

    One that the provider lists is adopted. One that it still does not list after the grace is sent again if its sender
    died with the call (the connection died too, so nothing is under way any more) or if its category prefers a repeat;
    if the provider itself answered unclearly it ends as ``unknown``.

    Returns:
        The notification ids of those that were adopted.
    """
    with services.senders.begin() as conn:
        rows = store.unresolved(conn, ids, services.settings.lease)
        if not rows:
            return []
        listed = {
            channel: _list(services, channel, [row for row in rows if row.channel == channel])
            for channel in sorted({row.channel for row in rows})
        }
        taken = _taken(conn, [message for found in listed.values() for m in found.values() for message in m])
        results = [_settle(row, listed[row.channel].get(row.number), taken, services) for row in rows]
        store.record_sms(conn, results)
        steps = {str(row.notification_id): row.step for row in rows}
        store.write_ledger(conn, [d for r in results if (d := _decision(r, steps[r.notification_id]))])
    adopted = [r.notification_id for r in results if r.state is DeliveryState.SENT]
    log.info("sms reconciled", looked_up=len(rows), adopted=len(adopted))
    return adopted


def _list(services: Services, channel: str, rows: Sequence[Row[Any]]) -> dict[str, list[ListedMessage]]:
    """Ask the provider once per number; a number it did not answer for is missing from the result."""
    since: dict[str, Any] = {}
    for row in rows:
        since[row.number] = min(since.get(row.number, row.claimed_at), row.claimed_at)
    provider = services.messaging(channel)
    return provider.list_messages(services.transport, {n: at - _CLOCK_SKEW for n, at in since.items()})


def _taken(conn: Connection, listed: Sequence[ListedMessage]) -> set[str]:
    sids = [m.sid for m in listed]
    query = text("SELECT provider_id FROM deliveries WHERE provider_id = ANY(:sids) AND step > 0")
    return {row.provider_id for row in conn.execute(query, {"sids": sids})}


def _settle(
    row: Row[Any], listed: Sequence[ListedMessage] | None, taken: set[str], services: Services
) -> store.SmsResult:
    settings = services.settings
    id_, age = str(row.notification_id), row.now - row.claimed_at
    if listed is None:
        if age > _GIVE_UP:
            return store.SmsResult(id_, DeliveryState.UNKNOWN, reason="the provider never answered and cannot be asked")
        return store.SmsResult(id_, DeliveryState.SENDING, reason=row.reason, wake_after=_LOOK_AGAIN)
    for message in listed:
        if (
            message.sid not in taken
            and services.messaging(row.channel).is_message(message, row.text, row.sender)
            and message.date_created >= row.claimed_at - _CLOCK_SKEW
        ):
            taken.add(message.sid)
            return store.SmsResult(
                id_, DeliveryState.SENT, provider_id=message.sid, reason="found in the provider's list"
            )
    grace = timedelta(seconds=settings.sms_unknown_grace_s)
    if age < grace:
        return store.SmsResult(id_, DeliveryState.SENDING, reason=row.reason, wake_after=min(_LOOK_AGAIN, grace - age))
    sender_died = row.reason is None
    if row.tries < _MOST_TRIES and (sender_died or Category(row.category) in settings.sms_retry_unknown):
        return store.SmsResult(id_, DeliveryState.RESERVED, reason="not in the provider's list", wake_after=timedelta())
    reason = f"{row.reason or 'the sender died'}, and not in the provider's list"
    return store.SmsResult(id_, DeliveryState.UNKNOWN, reason=reason)


def _decision(result: store.SmsResult, step: int) -> store.Decision | None:
    match result.state:
        case DeliveryState.SENT:
            return store.Decision(result.notification_id, Verdict.ADOPTED, {"provider_id": result.provider_id}, step)
        case DeliveryState.RESERVED:
            return store.Decision(result.notification_id, Verdict.SENT_AGAIN, {"reason": result.reason}, step)
        case _:
            return None
