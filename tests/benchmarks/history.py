"""Rows that were not made by this run: pushes that wait for their fallback, and notifications of the past."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from benchmarks.installation import PEOPLE

_CONTENT = '{"push": {"title": "t", "body": "b", "data": {}, "link": null, "image": null}, "sms": "Order {{ order }}"}'

# Millions of foreign key checks for rows made here in pairs would take longer than the measurement.
_TRUST_US = sa.text("SET LOCAL session_replication_role = replica")

_BATCH = sa.text("""
INSERT INTO batches (id, content, category, ttl, reference)
VALUES (uuidv7(), CAST(:content AS jsonb), 'transactional', '5 minutes', '{}') RETURNING id
""")

_NOTIFICATIONS = sa.text("""
INSERT INTO notifications (id, batch_id, user_id, params, state, reason, created_at, finished_at)
SELECT uuidv7(CAST(:age AS interval)), :batch, 'user-' || i % :people, jsonb_build_object('name', 'Ana', 'order', i || right(CAST(:batch AS text), 6)),
       :state, CASE WHEN :state <> 'active' THEN 'sms accepted by the provider' END, now() + :age,
       CASE WHEN :state <> 'active' THEN now() + :age END
FROM generate_series(1, :count) i RETURNING id
""")

_PUSHES = sa.text("""
INSERT INTO deliveries (notification_id, step, channel, state, claimed_at, finished_at)
SELECT id, 0, 'push', 'sent', created_at, created_at FROM notifications WHERE batch_id = :batch
""")

# Not evaluated twice: PostgreSQL keeps a subquery with a volatile function to itself.
_WAITING = sa.text("""
INSERT INTO deliveries (notification_id, step, channel, state, trigger, due_at, wake_at)
SELECT id, 1, 'sms', 'scheduled', 'not_delivered', due, due
FROM (SELECT id, now() + :due + :over * random() AS due FROM notifications WHERE batch_id = :batch) n
""")

_ATTEMPTS = sa.text("""
INSERT INTO attempts (notification_id, registration, state, provider_id)
SELECT n.id, d.registration, 'sent', 'projects/p/messages/' || n.id
FROM notifications n JOIN devices d ON d.user_id = n.user_id WHERE n.batch_id = :batch
""")

_TEXTED = sa.text("""
INSERT INTO deliveries (notification_id, step, channel, state, trigger, due_at, tries, number, text, fingerprint, counted_at,
                        claimed_at, provider_id, finished_at)
SELECT n.id, 1, 'sms', 'sent', 'not_delivered', n.created_at, 1, p.number, 'Order ' || (n.params ->> 'order'),
       uuid_send(n.id), n.created_at, n.created_at, 'SM' || md5(n.id::text), n.finished_at
FROM notifications n JOIN phones p ON p.user_id = n.user_id WHERE n.batch_id = :batch
""")

_DECISIONS = sa.text("""
INSERT INTO decisions (notification_id, step, verdict, inputs, at)
SELECT id, 1, 'not_delivered', '{"push": "sent", "when": "not_delivered", "sms_today": 1}', finished_at
FROM notifications WHERE batch_id = :batch
""")


def pending(
    engine: sa.Engine, count: int, *, due: timedelta = timedelta(days=1), over: timedelta = timedelta()
) -> list[str]:
    """Make notifications that wait for their fallback, and return their ids.

    Args:
        due: how long from now until the first are due.
        over: the time over which they become due.
    """
    with engine.begin() as conn:
        conn.execute(_TRUST_US)
        batch = conn.execute(_BATCH, {"content": _CONTENT}).scalar_one()
        values = {"batch": batch, "people": PEOPLE, "age": timedelta(), "state": "active", "count": count}
        ids = [str(i) for i in conn.execute(_NOTIFICATIONS, values).scalars()]
        conn.execute(_PUSHES, {"batch": batch})
        conn.execute(_WAITING, {"batch": batch, "due": due, "over": over})
    _settle(engine)
    return ids


def past(engine: sa.Engine, count: int, age: timedelta) -> None:
    """Make notifications that ended with an SMS long ago."""
    with engine.begin() as conn:
        conn.execute(_TRUST_US)
        batch = conn.execute(_BATCH, {"content": _CONTENT}).scalar_one()
        values = {"batch": batch, "people": PEOPLE, "age": -age, "state": "texted", "count": count}
        conn.execute(sa.text(_NOTIFICATIONS.text.replace("RETURNING id", "")), values)
        for statement in (_PUSHES, _TEXTED, _ATTEMPTS, _DECISIONS):
            conn.execute(statement, {"batch": batch})


def _settle(engine: sa.Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(sa.text("VACUUM ANALYZE notifications, deliveries"))
