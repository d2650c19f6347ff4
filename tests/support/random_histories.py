"""Notifications that live at random, and a second opinion on what became of them:
counted one by one in plain Python.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from knocktwice_shared.ids import blast_id, uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, parse_batch, parse_blast
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.audience.opt_out_words import Wish
from knocktwice_worker.blasts import states
from knocktwice_worker.channels.reports import StatusReport
from knocktwice_worker.content import sms_parts
from knocktwice_worker.content.rendering import fingerprint
from knocktwice_worker.lifecycle import AttemptState, DeliveryState, Entry, ProviderState, Refusal, Verdict
from knocktwice_worker.notation.phone_numbers import country
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline import replies
from knocktwice_worker.notifications.store import provider_reports

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from knocktwice_worker.services import Services

LEASE, HOUR = timedelta(minutes=1), timedelta(hours=1)
TEMPLATES = ["order_ready", "news", None]
#: Countries with one calling code each, some that share one, and a number that is nobody's.
NUMBERS = ["+1650253{:04}", "+1416555{:04}", "+4366012{:05}", "+44151234{:04}", "+447781{:06}", "+800123{:05}"]
TEXTS = ["Your table is ready.", "Ihre Bestellung für 5 € ist fertig. " * 6, "😀" * 40, "x" * 160, "y" * 161]

Key = tuple[str, str, str, str, str]


class RandomHistories:
    """Makes one thing happen after another, each through the store as a worker would."""

    def __init__(self, here: Services, seed: int) -> None:
        self._engine, self._channels = here.engine, here.channels
        self._dice = random.Random(seed)
        self._ids: list[str] = []
        self._deeds: Sequence[Callable[[Connection], None]] = [
            self._accept,
            self._accept,
            self._push,
            self._push,
            self._receipt,
            self._receipt,
            self._decide,
            self._decide,
            self._send,
            self._send,
            self._cancel,
            self._report,
            self._report,
            self._reply,
        ]

    def step(self) -> None:
        """Let something happen."""
        with self._engine.begin() as conn:
            self._dice.choice(self._deeds)(conn)

    def _accept(self, conn: Connection) -> None:
        dice = self._dice
        template = dice.choice(TEMPLATES)
        recipients: list[dict[str, Any]] = []
        for _ in range(dice.randrange(1, 6)):
            who: dict[str, Any] = {"id": str(uuid7())}
            if dice.random() < 0.9:
                who["phone"] = dice.choice(NUMBERS).format(dice.randrange(10_000))
            if dice.random() < 0.9 or "phone" not in who:
                who["registrations"] = ["phone-1"]
            if dice.random() < 0.2:
                who["key"] = f"key-{dice.randrange(20)}"
            recipients.append(who)
        when = dice.choice(["not_delivered", "not_clicked", "not_answered", "notifications_disabled"])
        wire = {
            "v": 1,
            "id": str(uuid7()),
            "content": {"push": {"title": "t", "body": "b"}},
            "category": dice.choice(["transactional", "marketing"]),
            "plan": [self._step(when)] if dice.random() < 0.9 else [],
            "recipients": recipients,
        }
        content = {"template": template, "push": {"title": "t", "body": "b"}, "sms": None} if template else None
        problems = {recipients[0]["id"]: "it cannot be filled in"} if dice.random() < 0.1 else {}
        store.accept(conn, [store.Intake(parse_batch(wire), problems, HOUR, content)], lease=LEASE)
        if dice.random() < 0.3:
            page = "INSERT INTO blast_pages (id, last_id, blast_id, count, sent_at) VALUES (:id, :id, :blast, 1, knocktwice_now())"
            conn.execute(sa.text(page), {"id": wire["id"], "blast": self._blast(conn, dice.choice(["tea", "soup"]))})
        self._ids += [who["id"] for who in recipients]

    def _blast(self, conn: Connection, key: str) -> Any:
        blast = parse_blast({"v": 1, "key": key, "filter": {"everyone": True}, "content": {"template": "news"}})
        states.start(conn, blast, {"everyone": True})
        return blast_id(key)

    def _report(self, conn: Connection) -> None:
        sent = sa.text(
            "SELECT provider_id FROM deliveries WHERE step > 0 AND provider_id IS NOT NULL ORDER BY random() LIMIT 3"
        )
        for row in conn.execute(sent).all():
            price = self._dice.choice([None, "0.0075", "0.1"])
            status = self._dice.choice(["sent", "delivered", "undelivered", "read"])
            heard = StatusReport(
                "twilio", row.provider_id, ProviderState(status), datetime.now(UTC), price=price, price_unit="USD"
            )
            provider_reports.accept(conn, [heard])
            provider_reports.bring(conn, {row.provider_id})

    def _reply(self, conn: Connection) -> None:
        texted = sa.text("SELECT number, channel FROM deliveries WHERE number IS NOT NULL ORDER BY random() LIMIT 2")
        said = [
            InboundText(
                f"IN{uuid7()}", row.number, self._dice.choice([None, None, Wish.HELP]), "Yes", "twilio", channel
            )
            for row in conn.execute(texted)
            for channel in [self._dice.choice([row.channel, "sms"])]
        ]
        replies.receive(conn, said, b"secret", self._channels, timedelta(days=3))

    def _step(self, when: str) -> dict[str, Any]:
        step = {"channel": "sms", "when": when, "after_s": 600}
        return step if self._dice.random() < 0.7 else step | {"channel": "whatsapp", "content_sid": "HX" + "0" * 32}

    def _push(self, conn: Connection) -> None:
        wanted = sa.text("SELECT notification_id, registration FROM attempts WHERE state = 'open' LIMIT 20")
        open_ = [store.PushWork(str(row.notification_id), row.registration) for row in conn.execute(wanted)]
        some = [work for work in open_ if self._dice.random() < 0.7]
        states = [AttemptState.SENT] * 3 + [AttemptState.REJECTED, AttemptState.OPEN]
        results = [
            store.PushResult(work.notification_id, work.registration, state=self._dice.choice(states), reason="r")
            for work in some
        ]
        store.record_push(conn, results, retry_for=HOUR)

    def _receipt(self, conn: Connection) -> None:
        kinds = [Receipt.DELIVERED, Receipt.CLICKED, Receipt.SEEN]
        # One in ten comes before its notification.
        some = [uuid7(), *map(_uuid, self._dice.sample(self._ids, min(3, len(self._ids))))]
        at = datetime.now(UTC)
        store.settle_receipts(
            conn,
            store.record_receipts(conn, [ReceiptEvent(id_, self._dice.choice(kinds), at, "phone-1") for id_ in some]),
        )

    def _decide(self, conn: Connection) -> None:
        scheduled = sa.text("""
        SELECT d.notification_id, coalesce(n.phone, '+436601234567') AS number
        FROM deliveries d JOIN notifications n ON n.id = d.notification_id WHERE d.step = 1 AND d.state = 'scheduled' LIMIT 8
        """)
        for row in conn.execute(scheduled).all():
            id_, text = str(row.notification_id), self._dice.choice(TEXTS)
            if self._dice.random() < 0.6:
                store.reserve(conn, [store.Reservation(id_, row.number, text, fingerprint(text))], LEASE)
            else:
                why: list[Entry] = [
                    Refusal.CAPPED_DAILY,
                    Refusal.NO_PHONE,
                    Verdict.NOTIFICATIONS_ENABLED,
                    Refusal.INVALID_CONTENT,
                ]
                store.skip(conn, [store.Decision(id_, self._dice.choice(why), {})])

    def _send(self, conn: Connection) -> None:
        reserved = conn.execute(
            sa.text("SELECT notification_id, tries FROM deliveries WHERE state = 'reserved' LIMIT 8")
        )
        claimed, _ = store.claim_steps(
            conn, {str(row.notification_id): store.Placement("twilio", row.tries) for row in reserved}, LEASE
        )
        states = [DeliveryState.SENT] * 4 + [DeliveryState.FAILED, DeliveryState.UNKNOWN, DeliveryState.RESERVED]
        store.record_steps(
            conn,
            [
                store.StepResult(id_, self._dice.choice(states), provider_id=f"SM{id_}", wake_after=LEASE)
                for id_ in claimed
            ],
        )

    def _cancel(self, conn: Connection) -> None:
        if self._ids and self._dice.random() < 0.3:
            store.cancel(conn, [self._dice.choice(self._ids)], [], datetime.now(UTC))


def _uuid(text: str) -> Any:
    from uuid import UUID

    return UUID(text)


def recount(conn: Connection, zone: str = "UTC") -> dict[Key, Counter[str]]:
    """Count everything by (day, template, blast, country, category),
    each notification by itself and as the documents say.
    """
    deliveries, events = _children(conn, "deliveries"), _children(conn, "events")
    counted: dict[Key, Counter[str]] = {}
    batches = {row.id: row for row in conn.execute(sa.text("SELECT * FROM batches"))}
    pages = "SELECT p.id, b.key FROM blast_pages p JOIN blasts b ON b.id = p.blast_id"
    blasts = {row.id: row.key for row in conn.execute(sa.text(pages))}
    numbers = {row.user_id: row.number for row in conn.execute(sa.text("SELECT user_id, number FROM phones"))}
    for n in conn.execute(sa.text("SELECT * FROM notifications")):
        steps, batch = deliveries.get(n.id, []), batches[n.batch_id]
        kinds = {e.kind for e in events.get(n.id, []) if e.step == 0}
        texted = [s.number for s in steps if s.number]
        number = texted[0] if texted else n.phone or numbers.get(n.user_id)
        day = n.created_at.astimezone(ZoneInfo(zone)).date().isoformat()
        key = (
            day,
            batch.content.get("template") or "",
            blasts.get(batch.id, ""),
            (number and country(number)) or "",
            batch.category,
        )
        line = counted.setdefault(key, Counter())
        if n.state == "duplicate":
            line["duplicates"] += 1
            continue
        line["accepted"] += 1
        line[n.state] += n.state in ("cancelled", "failed")
        if n.state == "suppressed":
            line[f"suppressed {n.reason}"] += 1
        delivered, clicked = bool(kinds & {"delivered", "clicked"}), "clicked" in kinds
        seen = "seen" in kinds
        line["delivered"] += delivered
        line["clicked"] += clicked
        replied = any(e.kind == "replied" for e in events.get(n.id, []))
        line["replied"] += replied
        line["responded"] += clicked or seen or replied
        line["pushed"] += any(s.channel == "push" and s.state == "sent" for s in steps)
        line["fell_back"] += any(s.step > 0 and s.trigger is not None and _fell_back(s) for s in steps)
        line["alone"] += len(steps) == 1 and steps[0].step == 1 and steps[0].steps_left == 0
        sent = [s for s in steps if s.channel == "sms" and s.state == "sent"]
        lost = [s for s in sent if s.provider_status in ("undelivered", "failed")]
        line["sms_undelivered"] += len(lost)
        line["sms_delivered"] += sum(s.provider_status in ("delivered", "read") for s in sent)
        line["price"] += sum(s.price or 0 for s in sent)
        line["unpriced_parts"] += sum(sms_parts.count(s.text) for s in sent if s.price is None)
        messages = [s for s in steps if s.channel == "whatsapp" and s.state == "sent"]
        arrived = [s for s in messages if s.provider_status in ("delivered", "read")]
        line["whatsapp_sent"] += len(messages)
        line["whatsapp_delivered"] += len(arrived)
        line["whatsapp_read"] += sum(s.provider_status == "read" for s in messages)
        line["whatsapp_unknown"] += sum(s.channel == "whatsapp" and s.state == "unknown" for s in steps)
        line["whatsapp_price"] += sum(s.price or 0 for s in messages)
        paid = [s for s in messages if s.provider_status not in ("undelivered", "failed")]
        line["unpriced_whatsapp"] += sum(s.price is None for s in paid)
        line["reached"] += delivered or seen or len(sent) > len(lost) or bool(arrived)
        line["sms_sent"] += len(sent)
        line["sms_unknown"] += sum(s.channel == "sms" and s.state == "unknown" for s in steps)
        opened = clicked or seen
        needless = {"not_delivered": delivered or seen, "not_clicked": opened, "not_answered": opened}
        line["sms_wasted"] += sum(needless.get(s.trigger, False) for s in sent)
        line["sms_parts"] += sum(sms_parts.count(s.text) for s in sent)
    return {key: +line for key, line in counted.items()}


def _fell_back(step: Any) -> bool:
    not_due = {"reached_in_time", "notifications_enabled", "cancelled"}
    if step.state == "skipped":
        return step.reason not in not_due
    return step.state in ("reserved", "sending", "sent", "failed", "unknown")


def _children(conn: Connection, table: str) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = {}
    for row in conn.execute(sa.text(f"SELECT * FROM {table}")):  # noqa: S608
        found.setdefault(row.notification_id, []).append(row)
    return found


def rolled_up(conn: Connection) -> dict[Key, Counter[str]]:
    """Return what the roll-ups say, in the same form."""
    counted: dict[Key, Counter[str]] = {}
    for row in conn.execute(sa.text("SELECT * FROM rollups")).mappings():
        line = counted.setdefault(
            (row["day"].isoformat(), row["template"], row["blast"], row["country"], row["category"]), Counter()
        )
        keys = {"day", "slice", "template", "blast", "country", "category", "project", "suppressed", "channels"}
        line.update({name: row[name] for name in set(map(str, row)) - keys})
        for channel, counts in row["channels"].items():
            for name, count in counts.items():
                amount: Any = Decimal(str(count))
                line[f"unpriced_{channel}" if name == "unpriced" else f"{channel}_{name}"] += amount
        line.update({f"suppressed {reason}": count for reason, count in row["suppressed"].items()})
    return {key: +line for key, line in counted.items()}
