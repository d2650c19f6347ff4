"""What must be true of notifications when time has passed, however things met."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from knocktwice_worker.lifecycle import FALL_BACK
from knocktwice_worker.privacy import erasure
from knocktwice_worker.reporting import rollups
from knocktwice_worker.webhooks import events
from support.random_histories import recount, rolled_up

if TYPE_CHECKING:
    from support.scenario import Scenario


def must_be_whole(scenario: Scenario) -> None:
    """Check what must be true however things met."""
    ids = [case.id for case in scenario.notifications]
    with scenario.here.engine.connect() as conn:
        states = {str(r.id): r for r in conn.execute(_NOTIFICATIONS, {"ids": ids})}
        steps = conn.execute(_STEPS, {"ids": ids}).all()
        ledger = Counter((str(r.notification_id), r.step, r.verdict) for r in conn.execute(_LEDGER, {"ids": ids}))
        unexplained = conn.execute(_UNEXPLAINED, {"ids": ids}).all()
        wasted = {str(r.notification_id) for r in conn.execute(_NEEDLESS, {"ids": ids})}
    stuck = {i: r.state for i, r in states.items() if r.state == "active" or not r.reason or r.open}
    assert not stuck
    assert not unexplained
    for row in steps:
        _must_agree(row, ledger)
    noted = {i: n for (i, _, verdict), n in ledger.items() if verdict == "wasted_sms"}
    assert noted == dict.fromkeys(wasted, 1)
    with scenario.here.engine.connect() as conn:
        assert not [user for user in scenario.erased if any(erasure.left(conn, user).values())]
    for case in scenario.notifications:
        assert not (case.silent and case.texts), case.number
        assert case.texts <= sum(s.channel == "sms" for s in case.batch.plan or ())
        assert len(scenario.sandbox.texts(f"whatsapp:{case.number}")) <= 1


def numbers_must_agree(scenario: Scenario) -> None:
    """Compare the roll-ups with a recount."""
    rollups.refresh(scenario.here.engine, "UTC", everything=True)
    with scenario.here.engine.connect() as conn:
        assert rolled_up(conn) == recount(conn)


def must_be_told_in_order(scenario: Scenario) -> None:
    """Check that webhooks begin with the acceptance and that each notification has one final report."""
    events.follow(scenario.here.engine)
    with scenario.here.engine.connect() as conn:
        told = conn.execute(_TOLD, {"ids": [case.id for case in scenario.notifications]}).all()
    assert told
    assert not [row for row in told if row.told[0] != "notification.accepted" or row.finished != 1]


def _must_agree(row: Any, ledger: Counter[tuple[str, int, str]]) -> None:
    id_ = str(row.notification_id)
    if row.state in ("skipped", "cancelled"):
        assert ledger[id_, row.step, row.reason] >= 1, (id_, row.step, row.reason)
    else:
        assert sum(ledger[id_, row.step, str(verdict)] for verdict in FALL_BACK) == 1, (id_, row.step, ledger)


_NOTIFICATIONS = sa.text("""
SELECT n.id, n.state, n.reason, EXISTS (SELECT FROM deliveries d WHERE d.notification_id = n.id AND d.wake_at IS NOT NULL) AS open
FROM notifications n WHERE n.id = ANY(CAST(:ids AS uuid[]))
""")
_STEPS = sa.text("SELECT * FROM deliveries WHERE step > 0 AND notification_id = ANY(CAST(:ids AS uuid[]))")
_UNEXPLAINED = sa.text("""
SELECT notification_id, step, state FROM deliveries
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND finished_at IS NOT NULL AND state <> 'sent' AND reason IS NULL
""")
_LEDGER = sa.text(
    "SELECT notification_id, step, verdict FROM decisions WHERE notification_id = ANY(CAST(:ids AS uuid[]))"
)
_NEEDLESS = sa.text("""
SELECT DISTINCT d.notification_id FROM deliveries d JOIN events e ON e.notification_id = d.notification_id
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state = 'sent' AND e.step < d.step
  AND (e.kind IN ('clicked', 'seen') AND d.trigger IN ('not_clicked', 'not_delivered')
       OR e.kind = 'delivered' AND d.trigger = 'not_delivered' AND e.step >= d.after_step)
""")
_TOLD = sa.text("""
SELECT n.id, coalesce(array_agg(w.type ORDER BY w.id) FILTER (WHERE w.type IS NOT NULL), '{nothing}') AS told,
  count(*) FILTER (WHERE w.type = 'notification.finished') AS finished
FROM notifications n LEFT JOIN webhook_events w ON w.notification_id = n.id WHERE n.id = ANY(CAST(:ids AS uuid[])) GROUP BY n.id
""")
