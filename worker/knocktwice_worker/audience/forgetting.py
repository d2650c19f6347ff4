"""Forgetting: traces of people, devices and numbers that are no more, and devices that were not seen for long."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, text

from knocktwice_worker.audience import hwids

#: How long traces of what is no more are kept: no late message can contradict it any more.
TRACE = timedelta(days=90)

# Traces of logouts that no late "register" can still contradict.
_FORGET = (
    text("""
    DELETE FROM devices
    WHERE user_id IS NULL AND greatest(changed_at, left_at) < knocktwice_now() - interval '90 days'
    """),
    text("""
    DELETE FROM phones
    WHERE number IS NULL
      AND consented_at IS NULL
      AND greatest(changed_at, consent_changed_at) < knocktwice_now() - interval '90 days'
    """),
)

_FORGET_ERASED = text("DELETE FROM erasures WHERE noted_at < knocktwice_now() - :trace")

_FORGET_STALE = text("DELETE FROM devices WHERE user_id IS NOT NULL AND last_seen_at < knocktwice_now() - :stale")


def forget(conn: Connection, stale: timedelta) -> int:
    """Delete rows that are not needed any more, and return how many.

    Args:
        stale: how long a device may go unseen; zero: for ever.
    """
    removed = sum(conn.execute(statement).rowcount for statement in _FORGET)
    removed += conn.execute(_FORGET_ERASED, {"trace": TRACE}).rowcount
    removed += conn.execute(_FORGET_STALE, {"stale": stale}).rowcount if stale else 0
    return removed + hwids.forget_unused(conn)
