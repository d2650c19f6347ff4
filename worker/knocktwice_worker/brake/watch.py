"""The watch: every few seconds some worker counts the latest pushes, and puts brakes on or takes them off."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import text

from knocktwice_worker.brake import brakes, push_counts
from knocktwice_worker.brake.judgement import Scope, Thresholds, eased, explains, judge, measure
from knocktwice_worker.config import BrakeMode
from knocktwice_worker.lifecycle import PushTrouble
from knocktwice_worker.notifications.store import alarms
from knocktwice_worker.notifications.store.braked import WATCHER, not_of_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Engine

    from knocktwice_worker.brake.judgement import Finding, Look
    from knocktwice_worker.config import Settings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of the brake.

    Attributes:
        thresholds: what is a jump.
        window: the span that is compared.
        holds: what is held, for people.
        watched: whether anything is watched at all.
    """

    thresholds: Thresholds
    window: timedelta
    holds: str
    watched: bool

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Read them from the settings."""
        modes = {"blasts and marketing": settings.brake, "single messages": settings.brake_singles}
        return cls(
            Thresholds(settings.brake_sample, settings.brake_jump, settings.brake_factor),
            timedelta(seconds=settings.brake_window_s),
            " and ".join(name for name, mode in modes.items() if mode is BrakeMode.ON) or "nothing",
            any(mode is not BrakeMode.OFF for mode in modes.values()),
        )


def refresh(engine: Engine, rules: Rules) -> None:
    """Count what is new and judge it. Any number of workers may call it; one at a time does it."""
    if not rules.watched:
        return
    done: bool | None = False
    while done is False:
        with engine.begin() as conn:
            done = push_counts.count(conn)
            if done:
                _judge(conn, rules)


def clean(engine: Engine) -> None:
    """Merge old counts, and forget brakes and alarms of long ago."""
    with engine.begin() as conn:
        push_counts.merge(conn)
        conn.execute(_FORGET_BRAKES)
        conn.execute(_FORGET_ALARMS)


_FORGET_BRAKES = text("""
DELETE FROM brakes k
WHERE k.ended_at < knocktwice_now() - interval '90 days' AND coalesce(k.grace_until, k.ended_at) < knocktwice_now()
""")
_FORGET_ALARMS = text("DELETE FROM alarms WHERE at < knocktwice_now() - interval '90 days'")

_KNOWN = text("""
SELECT id, kind, template, platform, app_version, state, usual FROM brakes
WHERE (state = 'on' OR grace_until > knocktwice_now()) AND kind <> 'pumping'
ORDER BY id
""")


def _judge(conn: Connection, rules: Rules) -> None:
    push_counts.mark(conn)
    looks = push_counts.looks(conn, rules.window)
    known = conn.execute(_KNOWN).all()
    covered = [(PushTrouble(row.kind), Scope(row.template, row.platform, row.app_version)) for row in known]
    for row, (kind, scope) in zip(known, list(covered), strict=True):
        if row.state == "on" and _is_over(looks, kind, scope, float(row.usual), rules.thresholds):
            _end(conn, row.id, scope)
    for look in looks:
        for finding in judge(look, rules.thresholds):
            if not any(explains(kind, scope, finding) for kind, scope in covered):
                covered.append((finding.kind, finding.scope))
                _trip(conn, finding, rules)


def _is_over(looks: Sequence[Look], kind: PushTrouble, scope: Scope, usual: float, thresholds: Thresholds) -> bool:
    """Return whether the latest pushes that are enough to tell are as usual."""
    for look in looks:
        now = measure(look, kind, scope, thresholds)
        if now is not None and now.pushes >= thresholds.sample:
            return eased(now, usual, thresholds)
    return False


_TRIP = text("""
INSERT INTO brakes (
  kind,
  template,
  platform,
  app_version,
  counted_from,
  pushes,
  share,
  usual,
  why
)
SELECT
  :kind,
  :template,
  :platform,
  :app_version,
  seen_until - :span,
  :pushes,
  :share,
  :usual,
  :why
FROM followers WHERE name = :name
RETURNING id, counted_from
""")

# What the provider says, in the words that most of the pushes were refused with.
_REASON = text(f"""
SELECT mode() WITHIN GROUP (ORDER BY a.reason)
FROM deliveries p
JOIN notifications n ON n.id = p.notification_id
JOIN batches b ON b.id = n.batch_id
JOIN attempts a ON a.notification_id = p.notification_id AND a.state <> 'sent' AND {not_of_device("a.reason")}
LEFT JOIN devices v ON v.registration = a.registration
WHERE p.step = 0
  AND (p.finished_at >= knocktwice_now() - :span OR p.wake_at < knocktwice_now() + interval '5 minutes')
  AND (CAST(:template AS text) IS NULL OR coalesce(b.content ->> 'template', '') = :template)
  AND (CAST(:platform AS text) IS NULL OR coalesce(v.platform, 'unknown') = :platform)
  AND (CAST(:app_version AS text) IS NULL OR coalesce(v.app_version, '') = :app_version)
""")


def _trip(conn: Connection, finding: Finding, rules: Rules) -> None:
    scope = {
        "template": finding.scope.template,
        "platform": finding.scope.platform,
        "app_version": finding.scope.app_version,
    }
    span = timedelta(seconds=finding.span_s)
    reason = None
    if finding.kind is PushTrouble.REFUSED:
        longest = span + push_counts.SETTLE + 2 * push_counts.SLOT
        reason = conn.execute(_REASON, scope | {"span": longest}).scalar()
    facts = {
        "kind": finding.kind.value,
        **scope,
        "pushes": finding.pushes,
        "share": round(finding.share, 4),
        "usual": round(finding.usual, 4),
        "why": _why(finding, reason),
    }
    row = conn.execute(_TRIP, facts | {"span": span, "name": WATCHER}).one()
    push_counts.mark(conn)
    alarms.sound(conn, "brake.on", str(row.id), {"brake": row.id, **facts, "holds": rules.holds})
    log.warning("the brake is on", brake=row.id, holds=rules.holds, **facts)


def _why(finding: Finding, reason: str | None) -> str:
    fault = {
        PushTrouble.REFUSED: f"FCM refuses their pushes ({reason or 'no reason given'})",
        PushTrouble.UNDELIVERED: "their pushes are not reported as delivered within half a minute",
        PushTrouble.UNCLICKED: "not one of their pushes is clicked within half a minute",
    }[finding.kind]
    return f"{_percent(finding.share)} of {finding.scope} fall back, usually {_percent(finding.usual)}: {fault}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


_OVER = text("UPDATE brakes SET state = 'over', ended_at = knocktwice_now() WHERE id = :id AND state = 'on'")


def _end(conn: Connection, id_: int, scope: Scope) -> None:
    conn.execute(_OVER, {"id": id_})
    released = brakes.release_singles(conn, id_)
    alarms.sound(conn, "brake.over", str(id_), {"brake": id_, "released": released})
    log.warning("the brake is over", brake=id_, scope=str(scope), released=released)
