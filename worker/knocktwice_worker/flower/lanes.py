"""One notification as lanes on one time axis: a lane for each step, a dot for each row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from knocktwice_worker.reporting import story
from knocktwice_worker.reporting.moments import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Dot:
    """Something that happened to a step.

    Attributes:
        step: the number of the step.
        at: when it happened.
        label: what happened, in a word or two.
        kind: ``row``, ``receipt``, ``decision`` or ``due``, which gives it its colour.
        inputs: what a decision was based on.
        left: where it stands on the axis, in percent.
    """

    step: int
    at: datetime
    label: str
    kind: str
    inputs: Mapping[str, Any]
    left: float = 0

    @property
    def known(self) -> str:
        """What a decision was based on, in words: ``push: sent, events: clicked 04:00:53``."""
        return ", ".join(f"{name.replace('_', ' ')}: {_words(value, self.at)}" for name, value in self.inputs.items())


@dataclass(frozen=True, slots=True)
class Tick:
    """A moment on the axis.

    Attributes:
        left: where it stands, in percent.
        at: the moment.
        later: how long after the moment before it.
    """

    left: float
    at: datetime
    later: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A notification, drawn.

    Attributes:
        told: its story.
        lanes: channel and dots of each step.
        ticks: the moments of the axis. It is not to scale: every moment has the same room.
        decisions: the dots that are decisions, with their sentences.
    """

    told: story.Story
    lanes: Sequence[tuple[str, Sequence[Dot]]]
    ticks: Sequence[Tick]
    decisions: Sequence[tuple[Dot, str]]


_DOTS = text("""
SELECT
  (SELECT min(step) FROM deliveries WHERE notification_id = :id) AS step,
  created_at AS at,
  'accepted' AS label,
  'row' AS kind,
  '{}'::jsonb AS inputs
FROM notifications WHERE id = :id

UNION ALL
SELECT step, claimed_at, 'taken up', 'row', '{}' FROM deliveries WHERE notification_id = :id AND claimed_at IS NOT NULL

UNION ALL
SELECT step, finished_at, state, 'row', '{}' FROM deliveries WHERE notification_id = :id AND finished_at IS NOT NULL

UNION ALL
SELECT step, due_at, 'due', 'due', '{}' FROM deliveries WHERE notification_id = :id AND step > 0 AND due_at IS NOT NULL

UNION ALL
SELECT step, provider_status_at, 'reported ' || provider_status, 'receipt', '{}'
FROM deliveries WHERE notification_id = :id AND provider_status_at IS NOT NULL

UNION ALL
SELECT step, received_at, kind, 'receipt', '{}' FROM events WHERE notification_id = :id

UNION ALL
SELECT step, at, replace(verdict, '_', ' '), 'decision', inputs FROM decisions WHERE notification_id = :id

ORDER BY at, kind DESC, label
""")


def draw(conn: Connection, id_: str) -> Drawing | None:
    """Return a notification, drawn; ``None``: there is none."""
    told = story.tell(conn, id_)
    if told is None:
        return None
    dots = [Dot(*row) for row in conn.execute(_DOTS, {"id": told.id})]
    moments = sorted({dot.at.replace(microsecond=dot.at.microsecond // 1000 * 1000) for dot in dots})
    left = {at: 100 * (n + 0.5) / len(moments) for n, at in enumerate(moments)}

    def placed(dot: Dot) -> Dot:
        at = dot.at.replace(microsecond=dot.at.microsecond // 1000 * 1000)
        return Dot(dot.step, dot.at, dot.label, dot.kind, dot.inputs, round(left[at], 2))

    dots = [placed(dot) for dot in dots]
    ticks = [Tick(round(left[at], 2), at, "" if n == 0 else _span(at - moments[n - 1])) for n, at in enumerate(moments)]
    lanes = [(step.channel, [dot for dot in dots if dot.step == step.step]) for step in told.steps]
    decisions = [(dot, VERDICTS.get(dot.label.replace(" ", "_"), dot.label)) for dot in dots if dot.kind == "decision"]
    sentences = {(m.at, m.kind): m.sentence for m in told.moments}
    decisions = [(dot, sentences.get((dot.at, dot.label.replace(" ", "_")), said)) for dot, said in decisions]
    return Drawing(told, lanes, ticks, decisions)


def _words(value: object, now: datetime) -> str:
    """Return an input of a decision for people; times of the same day have no date."""
    if isinstance(value, dict):
        return " and ".join(f"{name} {_words(own, now)}" for name, own in value.items()) or "none"
    if isinstance(value, list):
        return " and ".join(_words(own, now) for own in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "unknown"}[value]
    # Numbers with a point look like no time, and words neither.
    if isinstance(value, str) and len(value) > len("2026-11-21T09:30"):
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            return value
        return f"{at:%H:%M:%S}" if at.date() == now.date() else f"{at:%m-%d %H:%M:%S}"
    return str(value)


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"+{seconds / size:.3g} {unit}"
    return f"+{seconds:.2g} s"
