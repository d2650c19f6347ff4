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
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Row

    from knocktwice_worker.channels.twilio import ListedMessage
    from knocktwice_worker.config import Settings
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


def resolve(services: Services, ids: Sequence[str]) -> None:
    """Settle claimed SMS whose sender died or got no clear answer.

    One that the provider lists is adopted. One that it still does not list after the grace is sent again if its sender
    died with the call (the connection died too, so nothing is under way any more) or if its category prefers a repeat;
    if the provider itself answered unclearly it ends as ``unknown``.
    """
    with services.senders.begin() as conn:
        rows = store.unresolved(conn, ids, services.settings.lease)
        if not rows:
            return
        listed = _list(services, rows)
        taken = _taken(conn, listed)
        results = [_settle(row, listed.get(row.number), taken, services.settings) for row in rows]
        store.record_sms(conn, results)
        store.write_ledger(conn, [d for r in results if (d := _decision(r))])
    log.info("sms reconciled", looked_up=len(rows), adopted=sum(r.state is DeliveryState.SENT for r in results))


def _list(services: Services, rows: Sequence[Row[Any]]) -> dict[str, list[ListedMessage]]:
    """Ask the provider once per number; a number it did not answer for is missing from the result."""
    since: dict[str, Any] = {}
    for row in rows:
        since[row.number] = min(since.get(row.number, row.claimed_at), row.claimed_at)
    return services.sms.list_messages(services.transport, {n: at - _CLOCK_SKEW for n, at in since.items()})


def _taken(conn: Connection, listed: Mapping[str, Sequence[ListedMessage]]) -> set[str]:
    sids = [m.sid for messages in listed.values() for m in messages]
    query = text("SELECT provider_id FROM deliveries WHERE provider_id = ANY(:sids) AND step > 0")
    return {row.provider_id for row in conn.execute(query, {"sids": sids})}


def _settle(
    row: Row[Any], listed: Sequence[ListedMessage] | None, taken: set[str], settings: Settings
) -> store.SmsResult:
    id_, age = str(row.notification_id), row.now - row.claimed_at
    if listed is None:
        if age > _GIVE_UP:
            return store.SmsResult(id_, DeliveryState.UNKNOWN, reason="the provider never answered and cannot be asked")
        return store.SmsResult(id_, DeliveryState.SENDING, reason=row.reason, wake_after=_LOOK_AGAIN)
    for message in listed:
        # A trial account puts a sentence in front of the text.
        if (
            message.sid not in taken
            and message.body.endswith(row.text)
            and message.is_from(row.sender)
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


def _decision(result: store.SmsResult) -> store.Decision | None:
    match result.state:
        case DeliveryState.SENT:
            return store.Decision(result.notification_id, Verdict.ADOPTED, {"provider_id": result.provider_id})
        case DeliveryState.RESERVED:
            return store.Decision(result.notification_id, Verdict.SENT_AGAIN, {"reason": result.reason})
        case _:
            return None
