"""Gathers the evidence of a run: what the system shows in the end of its notifications."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from knocktwice_shared.names import INBOX_MESSAGES
from oracle.records import End, Evidence, StepEnd

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from simulation.installation import Installation

_NOTIFICATIONS = """
SELECT id::text, params->>'token', state, reason, extract(epoch FROM created_at)::float8,
  extract(epoch FROM finished_at)::float8,
  EXISTS (SELECT FROM decisions d WHERE d.notification_id = n.id AND d.verdict = 'wasted_sms')
FROM notifications n WHERE id = ANY(%(ids)s::uuid[]) AND params ? 'token'
"""
_STEPS = """
SELECT notification_id::text, step, channel, state, reason, provider_id FROM deliveries
WHERE notification_id = ANY(%(ids)s::uuid[]) ORDER BY step
"""
_RECEIPTS = """
SELECT notification_id::text, kind, extract(epoch FROM received_at)::float8 FROM events
WHERE notification_id = ANY(%(ids)s::uuid[]) AND kind <> 'cancelled'
"""


def gather(here: Installation, known: Evidence, ids: Mapping[int, UUID], *, settled: bool) -> Evidence:
    """Return all evidence.

    Args:
        known: what callers were told and what the provider wrote down.
        ids: of the notifications.
        settled: nothing is left to do, so that looking longer would show nothing new.
    """
    ask, asked = here.sessions.ask, {"ids": [str(id_) for id_ in ids.values()]}
    steps: dict[str, list[StepEnd]] = defaultdict(list)
    for id_, *step in ask(_STEPS, asked):
        steps[id_].append(StepEnd(*step))
    receipts: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for id_, kind, at in ask(_RECEIPTS, asked):
        receipts[id_].append((kind, at))
    for id_, token, state, reason, created_at, finished_at, wasted in ask(_NOTIFICATIONS, asked):
        known.add(
            End(id_, token, state, reason, created_at, finished_at, tuple(steps[id_]), tuple(receipts[id_]), wasted)
        )
    numbers = [wish.number for wish in known.wishes]
    known.opted_out.update(
        row[0] for row in ask("SELECT number FROM opt_outs WHERE number = ANY(%(n)s)", {"n": numbers})
    )
    ended_at = here.clock.now + (3_600 if settled else 0)
    return replace(known, ended_at=ended_at, unprocessed=here.redis.hlen(INBOX_MESSAGES))
