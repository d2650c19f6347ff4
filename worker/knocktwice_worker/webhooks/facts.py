"""The facts about notifications that become events, read from their rows."""

from __future__ import annotations

from knocktwice_worker.webhooks.endpoints import FINISHED, SEEN

#: One SELECT per kind of fact, in the order in which they happen (rank), over the rows ``changed``. A receipt may be
#: older than the notification's rows, and what ended it may have begun before these were written; both count from when
#: the rows are there.
FACTS = f"""
SELECT
  c.id,
  0 AS step,
  'notification.accepted' AS type,
  n.created_at AS at,
  0 AS rank,
  '{{}}'::jsonb AS more
FROM changed c
JOIN notifications n ON n.id = c.id
WHERE n.state <> 'duplicate'

UNION ALL
SELECT
  c.id,
  d.step,
  d.channel || '.' || d.state,
  greatest(d.finished_at, c.created_at),
  CASE d.step WHEN 0 THEN 1 ELSE 3 END,
  jsonb_build_object('step', d.step, 'channel', d.channel, 'state', d.state, 'reason', d.reason, 'devices', (
    SELECT jsonb_agg(
      jsonb_build_object(
        'place', a.place,
        'registration', '…' || right(a.registration, 6),
        'state', a.state,
        'reason', a.reason
      ) ORDER BY a.place
    )
    FROM attempts a
    WHERE d.step = 0 AND a.notification_id = c.id AND a.place IS NOT NULL
  ))
FROM changed c
JOIN deliveries d ON d.notification_id = c.id
WHERE d.finished_at IS NOT NULL

UNION ALL
SELECT
  c.id,
  0,
  'push.' || e.kind,
  greatest(min(e.received_at), c.created_at),
  2,
  jsonb_build_object('step', 0, 'channel', 'push', 'state', e.kind)
FROM changed c
JOIN events e ON e.notification_id = c.id
WHERE e.step = 0 AND e.kind IN ('delivered', 'clicked')
GROUP BY c.id, c.created_at, e.kind

UNION ALL
SELECT
  c.id,
  0,
  '{SEEN}',
  greatest(min(e.received_at), c.created_at),
  2,
  '{{}}'::jsonb
FROM changed c
JOIN events e ON e.notification_id = c.id
WHERE e.kind = 'seen'
GROUP BY c.id, c.created_at

UNION ALL
SELECT
  c.id,
  d.step,
  d.channel || '.replied',
  greatest(min(e.received_at), c.created_at),
  4,
  jsonb_build_object('step', d.step, 'channel', d.channel, 'state', 'replied', 'inbound', min(e.registration))
FROM changed c
JOIN events e ON e.notification_id = c.id AND e.kind = 'replied'
JOIN deliveries d ON d.notification_id = c.id AND d.step = e.step
GROUP BY c.id, c.created_at, d.step, d.channel

UNION ALL
SELECT
  c.id,
  d.step,
  d.channel || r.type,
  greatest(min(e.received_at), c.created_at),
  4,
  jsonb_build_object('step', d.step, 'channel', d.channel, 'state', ltrim(r.type, '.'))
FROM changed c
JOIN events e ON e.notification_id = c.id
JOIN deliveries d ON d.notification_id = c.id AND d.step = e.step AND d.step > 0
CROSS JOIN LATERAL (SELECT CASE e.kind WHEN 'delivered' THEN '.delivered' WHEN 'clicked' THEN '.read' END AS type) r
WHERE r.type IS NOT NULL AND e.registration = d.provider_id
GROUP BY c.id, c.created_at, d.step, d.channel, r.type

UNION ALL
SELECT
  c.id,
  d.step,
  d.channel || '.undelivered',
  d.heard_at,
  4,
  jsonb_build_object(
    'step', d.step,
    'channel', d.channel,
    'state', 'undelivered',
    'error', coalesce(to_jsonb(d.provider_error_text), to_jsonb(d.provider_error))
  )
FROM changed c
JOIN deliveries d ON d.notification_id = c.id
WHERE d.step > 0 AND d.state = 'sent' AND d.provider_status IN ('undelivered', 'failed')

UNION ALL
SELECT
  c.id,
  0,
  '{FINISHED}',
  greatest(n.finished_at, c.created_at),
  5,
  jsonb_build_object('state', n.state, 'reason', n.reason, 'steps', (
    SELECT jsonb_agg(
      jsonb_build_object(
        'step', d.step,
        'channel', d.channel,
        'state', d.state,
        'reason', d.reason,
        'provider_status', d.provider_status
      ) ORDER BY d.step
    )
    FROM deliveries d
    WHERE d.notification_id = c.id
  ))
FROM changed c
JOIN notifications n ON n.id = c.id
WHERE n.finished_at IS NOT NULL
"""
