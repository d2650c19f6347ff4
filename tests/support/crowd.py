"""A crowd of people with known devices, pushes to them, and what their apps report; the test's clock moves on."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, parse_batch
from knocktwice_worker.brake import watch
from knocktwice_worker.lifecycle import AttemptState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline import receipts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_worker.services import Services
    from support.clock import Clock

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
APNS = "third_party_auth: FCM THIRD_PARTY_AUTH_ERROR: check the APNs key or web push certificate"
PROJECT = "sender_mismatch: FCM SENDER_ID_MISMATCH"

_numbers = itertools.count()

_PEOPLE = sa.text("""
WITH u AS (
  INSERT INTO users (id) SELECT unnest(CAST(:users AS text[])) RETURNING id
), d AS (
  INSERT INTO devices (registration, user_id, platform, app_version)
  SELECT 'phone-' || id, id, :platform, :version FROM u
)
INSERT INTO phones (user_id, number, changed_at, consented_at)
SELECT id, '+165025' || lpad(split_part(id, '-', 2), 5, '0'), knocktwice_now(), knocktwice_now() FROM u
""")

_BLAST = sa.text("""
WITH b AS (
  INSERT INTO blasts (id, key, filter, message, state, finished_at)
  VALUES (CAST(:batch AS uuid), :key, '{}', '{}', 'finished', knocktwice_now())
)
INSERT INTO blast_pages (id, last_id, blast_id, count, sent_at)
VALUES (CAST(:batch AS uuid), CAST(:last AS uuid), CAST(:batch AS uuid), :count, knocktwice_now())
""")


@dataclass
class Crowd:
    """People to push to.

    Attributes:
        here: the installation.
        clock: its clock.
    """

    here: Services
    clock: Clock

    def push(
        self,
        count: int,
        platform: str = "android",
        version: str = "2.0",
        *,
        template: str = "order",
        category: str = "transactional",
        blast: str | None = None,
        when: str = "not_delivered",
        after: timedelta = timedelta(minutes=2),
        refused: str | None = None,
    ) -> list[str]:
        """Push to new people; return their notifications. Nobody reports anything yet.

        Args:
            refused: why FCM refuses the pushes; ``None``: it takes them.
        """
        users = [f"person-{next(_numbers)}" for _ in range(count)]
        ids = [uuid7() for _ in users]
        batch = uuid7()
        wire: dict[str, Any] = {
            "v": 1,
            "id": str(batch),
            "category": category,
            "content": {"push": {"title": "t", "body": "b"}},
            "plan": [{"channel": "sms", "when": when, "after_s": after.total_seconds()}],
            "recipients": [{"id": str(id_), "user": user} for id_, user in zip(ids, users, strict=True)],
        }
        content = {"template": template, "push": {"title": "t", "body": "b"}, "sms": None}
        state = AttemptState.SENT if refused is None else AttemptState.REJECTED
        with self.here.engine.begin() as conn:
            conn.execute(_PEOPLE, {"users": users, "platform": platform, "version": version})
            if blast is not None:
                page = {"batch": str(batch), "key": blast, "last": str(max(ids)), "count": count}
                conn.execute(_BLAST, page)
            work = store.accept(conn, [store.Intake(parse_batch(wire), {}, HOUR, content)], lease=MINUTE)
            results = [store.PushResult(w.notification_id, w.registration, state, refused) for w in work]
            store.record_push(conn, results, retry_for=HOUR, complete=True)
        return list(map(str, ids))

    def report(self, ids: Sequence[str], share: float = 1, kind: Receipt = Receipt.DELIVERED) -> list[str]:
        """Let a share of the apps report; return whose."""
        reporting = list(ids[: round(len(ids) * share)])
        at = datetime.now(UTC)
        receipts.record(self.here.engine, [ReceiptEvent(UUID(id_), kind, at, "") for id_ in reporting])
        return reporting

    def watch(self, after: timedelta = MINUTE) -> None:
        """Let some time go by, and let the brake look."""
        self.clock.advance(after)
        watch.refresh(self.here.engine, watch.Rules.of(self.here.settings))

    def ordinary(self, count: int = 300) -> None:
        """Push to people whose apps report as they usually do; some minutes go by."""
        for platform, version in (("android", "2.0"), ("ios", "4.1")):
            self.report(self.push(count, platform, version), 0.92)
        self.report(self.push(count // 3, "web", ""), 0)
        self.watch()
        self.watch(timedelta(minutes=20))

    def check(self, ids: Sequence[str]) -> set[str]:
        """Decide about these; return whose SMS is to be sent."""
        return set(self.here.fallback.check(sorted(ids)))

    def states(self, ids: Sequence[str]) -> dict[str, int]:
        """Count the notifications by their state and the reason of it."""
        query = "SELECT concat_ws(': ', state, reason) AS s, count(*) FROM notifications WHERE id = ANY(CAST(:ids AS uuid[])) GROUP BY 1"
        with self.here.engine.connect() as conn:
            return {row[0]: row[1] for row in conn.execute(sa.text(query), {"ids": list(ids)})}

    def ledger(self, id_: str) -> list[tuple[str, dict[str, Any]]]:
        """Return what was decided about one."""
        query = sa.text("SELECT verdict, inputs FROM decisions WHERE notification_id = :id ORDER BY id")
        with self.here.engine.connect() as conn:
            return [(row.verdict, row.inputs) for row in conn.execute(query, {"id": id_})]
