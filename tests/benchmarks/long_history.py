"""Sixty days of notifications as an installation has them: a few people with very many, blasts, templates,
receipts, every end.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from benchmarks.installation import PEOPLE
from knocktwice_worker.audience import receipt_health
from knocktwice_worker.notifications.store import change_feed
from knocktwice_worker.reporting import rollups

if TYPE_CHECKING:
    from collections.abc import Callable

DAYS, TEMPLATES = 60, 30
#: The share of the notifications of a day that its blast sends, and the day of the largest blast, which is a tenth of
#: all rows.
_BLAST_SHARE, LARGEST_ON = 0.4, 20

# Ids carry the time of their notification, so that rows of one time lie together as they do in production.
_IDS = sa.text("""
CREATE FUNCTION bench_id(at timestamptz) RETURNS uuid LANGUAGE sql VOLATILE AS $$
  SELECT CAST(lpad(to_hex(CAST(extract(epoch FROM at) * 1000 AS bigint)), 12, '0') || '7' || substr(r, 1, 3) || 'a'
    || substr(r, 4, 15) AS uuid) FROM (SELECT md5(CAST(random() AS text)) AS r) d $$
""")
_TRUST_US = sa.text("SET LOCAL session_replication_role = replica")

_PORTIONS = (
    """
    CREATE TEMP TABLE portions ON COMMIT DROP AS
    SELECT bench_id(at) AS id, at, 't-' || floor(:templates * power(random(), 2)) AS template, CAST(NULL AS uuid) AS blast_id,
           'transactional' AS category, 20 AS size
    FROM (SELECT CAST(:day AS timestamptz) + random() * interval '1 day' AS at FROM generate_series(1, :singles / 20)) t
    ORDER BY at
    """,
    """
    INSERT INTO portions
    SELECT bench_id(at), at, 'news', CAST(:blast AS uuid), 'marketing', 500
    FROM (SELECT CAST(:day AS timestamptz) + (0.5 + random() / 24) * interval '1 day' AS at
          FROM generate_series(1, :in_blast / 500)) t
    ORDER BY at
    """,
    """
    INSERT INTO batches (id, content, category, ttl, reference, created_at)
    SELECT id, jsonb_build_object('template', template, 'version', 1, 'contents', CAST(
             '{"en": {"push": {"title": "t", "body": "b"}, "sms": "Order {{ order }}"}}' AS jsonb)), category, '1 day', '{}', at
    FROM portions
    """,
    """
    INSERT INTO blasts (id, key, segment, filter, message, state, total, created_at, started_at, expanded_at, finished_at)
    SELECT CAST(:blast AS uuid), :key, 'all', '{"everyone": true}', '{"content": {"template": "news"}}', 'finished', :in_blast,
           CAST(:day AS timestamptz), CAST(:day AS timestamptz), CAST(:day AS timestamptz), CAST(:day AS timestamptz)
    """,
    """
    INSERT INTO blast_pages (id, last_id, blast_id, count, released_at, sent_at)
    SELECT id, bench_id(at + interval '2 milliseconds'), blast_id, size, at, at FROM portions WHERE blast_id IS NOT NULL
    """,
    # One of a hundred thousand people gets every fiftieth notification: applications have such users, to watch
    # themselves.
    """
    CREATE TEMP TABLE made ON COMMIT DROP AS
    SELECT bench_id(at + interval '1 millisecond') AS id, batch_id, at, single,
           CASE WHEN who < 0.97 THEN 'user-' || floor(:people * power(random(), 3)) END AS user_id,
           CASE WHEN who >= 0.97 THEN '+1' || (6503000000 + CAST(floor(1000000 * random()) AS bigint)) END AS phone,
           CASE WHEN at > now() - interval '10 minutes' THEN 'active' WHEN ends < 0.55 THEN 'reached' WHEN ends < 0.75 THEN 'texted'
                WHEN ends < 0.90 THEN 'pushed' WHEN ends < 0.95 THEN 'suppressed' WHEN ends < 0.989 THEN 'failed'
                WHEN ends < 0.999 THEN 'cancelled' ELSE 'unknown' END AS state
    FROM (SELECT p.id AS batch_id, p.at, p.blast_id IS NULL AS single, random() AS who, random() AS ends
          FROM portions p, generate_series(1, p.size) OFFSET 0) d
    WHERE at < now()
    ORDER BY at
    """,
    """
    INSERT INTO notifications (id, batch_id, user_id, phone, params, key, locale, state, reason, created_at, finished_at)
    SELECT id, batch_id, user_id, phone, jsonb_build_object('name', 'Ana', 'order', right(CAST(id AS text), 8)),
           CASE WHEN single AND random() < 0.3 THEN 'order-' || right(CAST(id AS text), 12) END, 'en', 'active', NULL, at, NULL
    FROM made
    """,
    # Written open and ended afterwards, as workers do it: so rows of one time lie together, and are as large.
    """
    UPDATE notifications n
    SET state = m.state, finished_at = m.at + random() * interval '10 minutes',
        reason = CASE m.state WHEN 'suppressed' THEN 'capped_daily' ELSE 'made by the benchmark' END
    FROM made m WHERE n.id = m.id AND m.state <> 'active'
    """,
    """
    INSERT INTO deliveries (notification_id, step, channel, state, steps_left, claimed_at, finished_at)
    SELECT id, 0, 'push', 'sent', 1, at, at FROM made
    """,
    """
    INSERT INTO deliveries (notification_id, step, channel, state, reason, trigger, due_at, wake_at, tries, number, text,
      fingerprint, parts, counted_at, claimed_at, provider, provider_id, provider_status, provider_status_at, reported_at,
      heard_at, price, price_unit, finished_at)
    SELECT m.id, 1, 'sms',
           CASE WHEN m.state = 'active' THEN 'scheduled' WHEN m.state = 'texted' THEN 'sent' WHEN m.state = 'unknown' THEN 'unknown'
                WHEN m.state IN ('failed', 'cancelled') THEN m.state ELSE 'skipped' END,
           CASE m.state WHEN 'suppressed' THEN 'capped_daily' WHEN 'reached' THEN 'clicked' END, 'not_clicked',
           m.at + interval '5 minutes', CASE WHEN m.state = 'active' THEN m.at + interval '1 hour' END,
           went, CASE WHEN went > 0 THEN coalesce(m.phone, p.number, '+16505550100') END, CASE WHEN went > 0 THEN 'Order 4711' END,
           CASE WHEN went > 0 THEN uuid_send(m.id) END, CASE WHEN went > 0 THEN 1 END, CASE WHEN went > 0 THEN later END,
           CASE WHEN went > 0 THEN later END, CASE WHEN went > 0 THEN 'twilio' END,
           CASE WHEN m.state = 'texted' THEN 'SM' || replace(CAST(m.id AS text), '-', '') END,
           CASE WHEN m.state = 'texted' THEN CASE WHEN random() < 0.95 THEN 'delivered' ELSE 'undelivered' END END,
           CASE WHEN m.state = 'texted' THEN later END, CASE WHEN m.state = 'texted' THEN later END,
           CASE WHEN m.state = 'texted' THEN later END, CASE WHEN m.state = 'texted' THEN 0.0079 END,
           CASE WHEN m.state = 'texted' THEN 'USD' END, CASE WHEN m.state <> 'active' THEN later END
    FROM (SELECT *, at + interval '5 minutes' AS later, CASE WHEN state IN ('texted', 'unknown') THEN 1 ELSE 0 END AS went FROM made) m
    LEFT JOIN phones p ON p.user_id = m.user_id
    """,
    """
    INSERT INTO attempts (notification_id, registration, state, provider_id)
    SELECT m.id, d.registration, 'sent', 'projects/p/messages/' || m.id FROM made m JOIN devices d ON d.user_id = m.user_id
    """,
    """
    INSERT INTO events (notification_id, kind, registration, step, at, received_at)
    SELECT id, kind, '', 0, at + late, at + late
    FROM (SELECT id, at, state, random() * interval '4 minutes' AS late FROM made OFFSET 0) m, (VALUES ('delivered'), ('clicked')) k(kind)
    WHERE state = 'reached' OR state = 'pushed' AND kind = 'delivered'
    """,
    """
    INSERT INTO decisions (notification_id, step, verdict, inputs, at)
    SELECT id, 1, CASE state WHEN 'suppressed' THEN 'capped_daily' ELSE 'not_clicked' END,
           jsonb_build_object('push', 'sent', 'when', 'not_clicked', 'sms_today', 1,
             'experiment', CASE WHEN random() < 0.1 THEN 'held_out' ELSE 'texted' END), at + interval '5 minutes'
    FROM made WHERE state IN ('texted', 'suppressed', 'unknown')
    """,
)

_AROUND = (
    """
    INSERT INTO templates (name, definition, version)
    SELECT name, '{"default_locale": "en", "contents": {"en": {"push": {"title": "t", "body": "b"}, "sms": "Order"}}}', 1
    FROM (SELECT 't-' || i AS name FROM generate_series(0, :templates - 1) i UNION ALL SELECT 'news') t
    """,
    "INSERT INTO segments (name, filter) VALUES ('all', '{\"everyone\": true}')",
    """
    INSERT INTO dead_letters (message_id, task, reason, payload)
    SELECT 'm-' || i, 'knocktwice.cancel', 'failed 5 times: it is odd', '{"v": 1, "notifications": [], "user": "user-' || i || '"}'
    FROM generate_series(1, 2000) i
    """,
    """
    INSERT INTO audit (actor, action, subject, reason)
    SELECT 'ada', 'pause', '{"channel": "sms"}', 'made by the benchmark' FROM generate_series(1, 5000) i
    """,
)

# Lines as workers write them, slice by slice; here by one statement, because there are 11,520 open slices.
_COUNTED = (
    """
    CREATE TEMP TABLE counted ON COMMIT DROP AS
    SELECT CAST(n.created_at AT TIME ZONE 'UTC' AS date) AS day,
           CASE WHEN n.created_at < now() - CAST(:closed_after AS interval) THEN CAST('1970-01-01T00:00Z' AS timestamptz)
                ELSE date_bin(:slice, n.created_at, '1970-01-01T00:00Z') END AS slice,
           b.content ->> 'template' AS template, coalesce(x.key, '') AS blast, b.category,
           CASE WHEN n.state IN ('texted', 'unknown') THEN 'US' ELSE '' END AS country,
           count(*) AS n, count(*) FILTER (WHERE n.state = 'texted') AS texted, count(*) FILTER (WHERE n.state = 'failed') AS failed,
           count(*) FILTER (WHERE n.state = 'unknown') AS unknown, count(*) FILTER (WHERE n.state = 'reached') AS reached,
           count(*) FILTER (WHERE n.state = 'suppressed') AS suppressed
    FROM notifications n JOIN batches b ON b.id = n.batch_id
    LEFT JOIN blast_pages p ON p.id = b.id LEFT JOIN blasts x ON x.id = p.blast_id
    GROUP BY 1, 2, 3, 4, 5, 6
    """,
    """
    INSERT INTO rollups (day, slice, template, blast, country, category, accepted, duplicates, cancelled, failed, pushed, delivered,
      clicked, fell_back, alone, sms_sent, sms_delivered, sms_undelivered, sms_unknown, sms_wasted, sms_parts, unpriced_parts, replied,
      responded, price, channels, reached, suppressed)
    SELECT day, slice, template, blast, country, category, n, 0, 0, failed, n, reached, reached, texted + unknown + suppressed, 0,
      texted, texted, 0, unknown, 0, texted, 0, 0, reached, 0.0079 * texted, '{}', reached + texted,
      jsonb_build_object('capped_daily', suppressed)
    FROM counted
    """,
    """
    INSERT INTO rollup_slices (starts_at, dirty, counted_at, rows)
    SELECT slice, false, now(), sum(n) FROM counted WHERE slice > '1970-01-02' GROUP BY 1
    """,
)


def fill(engine: sa.Engine, count: int, said: Callable[[str], None]) -> None:
    """Put about ``count`` notifications of the last sixty days into an empty database, with all that belongs to them.

    Args:
        said: is told how far it is.
    """
    now = datetime.now(UTC)
    with engine.begin() as conn:
        conn.execute(_IDS)
        for statement in _AROUND:
            conn.execute(sa.text(statement), {"templates": TEMPLATES})
        # Older rows are closed slices, which this history has not.
        change_feed.join(conn, rollups.FOLLOWER, now - timedelta(days=DAYS + 1))
    usual = count * 9 // 10 // DAYS
    for n in range(DAYS, 0, -1):
        in_blast = int(usual * _BLAST_SHARE) + (count // 10 if n == LARGEST_ON else 0)
        values = {"day": now - timedelta(days=n), "people": PEOPLE, "templates": TEMPLATES, "key": f"news-{n}"}
        values |= {"singles": int(usual * (1 - _BLAST_SHARE)), "in_blast": in_blast}
        with engine.begin() as conn:
            conn.execute(_TRUST_US)
            blast = conn.execute(
                sa.text("SELECT bench_id(CAST(:day AS timestamptz))"), {"day": values["day"]}
            ).scalar_one()
            for statement in _PORTIONS:
                conn.execute(sa.text(statement), {**values, "blast": str(blast)})
        if n % 10 == 0:
            said(f"{DAYS - n + 1} of {DAYS} days are made")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(sa.text("VACUUM ANALYZE"))
    with engine.begin() as conn:
        for statement in _COUNTED:
            conn.execute(sa.text(statement), {"slice": rollups.SLICE, "closed_after": rollups.CLOSED_AFTER})
    receipt_health.roll_up(engine)
    said("all is counted")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(sa.text("VACUUM ANALYZE rollups, rollup_slices, receipt_health"))
        conn.execute(sa.text("CHECKPOINT"))
