"""Messages that were handed to the provider, for tests of what it says about them afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Step, parse_batch
from knocktwice_worker.lifecycle import AttemptState, DeliveryState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.store import provider_statuses

if TYPE_CHECKING:
    from collections.abc import Iterable

    from knocktwice_worker.channels.reports import StatusReport
    from knocktwice_worker.services import Services

HOUR, LEASE = timedelta(hours=1), timedelta(minutes=1)


def placed(ids: Iterable[str], tries: int = 0) -> dict[str, store.Placement]:
    """All by the provider that is built in, each tried so often before."""
    return {id_: store.Placement("twilio", tries) for id_ in ids}


@dataclass
class SentMessages:
    """Messages handed to the provider, which calls the n-th of them ``SM<n>``."""

    here: Services

    def handed_over(self, *plan: Step, people: int = 1, first: int = 0) -> list[str]:
        """Take people's first step over a silent push to the provider, which counts from ``first``."""
        made = parse_batch(
            {
                "v": 1,
                "id": str(uuid7()),
                "content": {"push": {"title": "t", "body": "b"}},
                "recipients": [
                    {"id": str(uuid7()), "registrations": [f"r{n}"], "phone": f"+1650555{n:04}"} for n in range(people)
                ],
            }
        )
        ids = [str(r.id) for r in made.recipients]
        with self.here.engine.begin() as conn:
            work = store.accept(conn, [store.Intake(replace(made, plan=plan), {}, HOUR)], lease=LEASE)
            store.record_push(
                conn,
                [store.PushResult(w.notification_id, w.registration, state=AttemptState.SENT) for w in work],
                retry_for=HOUR,
            )
        self.claimed(ids)
        self.sent(ids, first)
        return ids

    def claimed(self, ids: list[str]) -> None:
        with self.here.engine.begin() as conn:
            conn.execute(sa.text("UPDATE deliveries SET due_at = knocktwice_now() WHERE state = 'scheduled'"))
            assert len(store.due(conn, ids)) == len(ids)
            store.reserve(conn, [store.Reservation(i, "+16505550100", "b", b"f") for i in ids], LEASE)
            store.claim_steps(conn, placed(ids), LEASE)

    def sent(self, ids: list[str], first: int = 0) -> None:
        results = [store.StepResult(i, DeliveryState.SENT, provider_id=f"SM{n}") for n, i in enumerate(ids, first)]
        with self.here.engine.begin() as conn:
            store.record_steps(conn, results)

    def report(self, reports: Iterable[StatusReport]) -> set[str]:
        with self.here.engine.begin() as conn:
            return provider_statuses.record(conn, list(reports))

    def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        with self.here.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(sa.text(query), values)]

    def step(self, id_: str, step: int) -> tuple[Any, ...]:
        query = "SELECT state, reason, provider_status FROM deliveries WHERE notification_id = :id AND step = :step"
        (row,) = self.rows(query, id=id_, step=step)
        return row

    def state(self, id_: str) -> str:
        ((state,),) = self.rows("SELECT state FROM notifications WHERE id = :id", id=id_)
        return str(state)
