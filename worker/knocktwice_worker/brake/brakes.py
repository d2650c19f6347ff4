"""The brakes: what tripped, how many SMS each holds and what these would cost; released or dropped by an operator."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import text

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_worker.brake.judgement import Scope
from knocktwice_worker.brake.pumping import Numbers
from knocktwice_worker.lifecycle import BrakeState, PushTrouble, TextTrouble
from knocktwice_worker.notation.phone_numbers import country
from knocktwice_worker.notifications.store import alarms, braked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import Connection, Engine, Row

    from knocktwice_worker.notifications.store.braked import HeldFilter

log = structlog.get_logger(__name__)

#: Price list entry for countries that have none of their own.
_DEFAULT = "*"


class NoSuchBrake(KnocktwiceError):
    """There is no brake of that number: ``knocktwice brake list --all`` names them."""


@dataclass(frozen=True, slots=True)
class Brake:
    """A brake.

    Attributes:
        id: its number.
        kind: what is wrong with the pushes, or with the messages.
        scope: whose SMS it holds.
        state: whether it holds anything new.
        since: when it tripped.
        ended_at: since when it holds nothing new; ``None``: it does.
        grace_until: until when nothing that it covered is held again.
        pushes, share, usual: by how many pushes (or messages) it tripped, the share that was bad, and the usual one.
        why: the same in words.
        passed: SMS that went meanwhile, because the settings only watch their kind.
        held: SMS that it holds now.
    """

    id: int
    kind: PushTrouble | TextTrouble
    scope: Scope | Numbers
    state: BrakeState
    since: datetime
    ended_at: datetime | None
    grace_until: datetime | None
    pushes: int
    share: float
    usual: float
    why: str
    passed: int
    held: int

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "id": self.id,
            "state": self.state.value,
            "kind": self.kind.value,
            "template": self.scope.template,
            "platform": getattr(self.scope, "platform", None),
            "app_version": getattr(self.scope, "app_version", None),
            "prefix": getattr(self.scope, "prefix", None),
            "project": getattr(self.scope, "project", None),
            "since": self.since.isoformat(),
            "ended_at": self.ended_at and self.ended_at.isoformat(),
            "grace_until": self.grace_until and self.grace_until.isoformat(),
            "pushes": self.pushes,
            "share": round(self.share, 4),
            "usual": round(self.usual, 4),
            "why": self.why,
            "held": self.held,
            "would_have_held": self.passed,
        }


# Those that still matter come first: on, or with messages that wait for an operator.
_LIST = text("""
SELECT k.*, h.held
FROM brakes k
CROSS JOIN LATERAL (
  SELECT count(*) AS held FROM deliveries d
  WHERE d.brake = k.id AND d.wake_at IS NOT NULL AND NOT d.brake_waived
) h
WHERE :everything OR k.state = 'on' OR h.held > 0
ORDER BY k.state = 'on' DESC, h.held > 0 DESC, k.id DESC
LIMIT 200
""")


def list_all(conn: Connection, *, everything: bool = False) -> list[Brake]:
    """Return the brakes that are on or still hold something; or all, with those of the last months."""
    return [_brake(row) for row in conn.execute(_LIST, {"everything": everything})]


def _brake(row: Row[Any]) -> Brake:
    kind, scope = _about(row)
    return Brake(
        row.id,
        kind,
        scope,
        BrakeState(row.state),
        row.since,
        row.ended_at,
        row.grace_until,
        row.pushes,
        float(row.share),
        float(row.usual),
        row.why,
        row.passed,
        row.held,
    )


def _about(row: Row[Any]) -> tuple[PushTrouble, Scope] | tuple[TextTrouble, Numbers]:
    if row.prefix is not None:
        return TextTrouble(row.kind), Numbers(row.prefix, row.template, row.project)
    return PushTrouble(row.kind), Scope(row.template, row.platform, row.app_version)


@dataclass(slots=True)
class Bill:
    """How many messages are held and what they would cost.

    Attributes:
        messages: how many.
        cost: of those whose country has a price.
        unpriced: countries without a price.
    """

    messages: int = 0
    cost: float = 0.0
    unpriced: set[str] = field(default_factory=set)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"messages": self.messages, "cost": round(self.cost, 4), "unpriced": sorted(self.unpriced)}

    def __str__(self) -> str:
        cost = f", about {self.cost:.2f}" if self.cost else ""
        lacking = f" (no price for {', '.join(sorted(self.unpriced))})" if self.unpriced else ""
        return f"{self.messages} message{'' if self.messages == 1 else 's'}{cost}{lacking}"


def bill(conn: Connection, wanted: HeldFilter, prices: Mapping[str, Mapping[str, float]]) -> Bill:
    """Return how many held messages are meant, and what they would cost.

    Args:
        prices: channel → country → price of one part.
    """
    # The country follows from the first digits, so numbers that have these in common are counted together.
    rows, given = braked.held_rows(wanted)
    rows = rows.replace("WHERE", "LEFT JOIN phones ph ON ph.user_id = n.user_id\nWHERE", 1)
    query = text(f"""
SELECT
  d.channel,
  left(coalesce(n.phone, ph.number), 8) AS prefix,
  min(coalesce(n.phone, ph.number)) AS sample,
  count(*) AS messages,
  sum(greatest(coalesce(d.parts, 1), 1)) AS parts
{rows}
GROUP BY 1, 2
""")
    found = Bill()
    for channel, _, sample, messages, parts in conn.execute(query, given):
        found.messages += messages
        where = (sample and country(sample)) or ""
        own = prices.get(channel, {})
        price = own.get(where, own.get(_DEFAULT))
        if price is None:
            found.unpriced.add(where or "numbers of no country")
        else:
            found.cost += price * int(parts)
    if not any(prices.values()):
        found.unpriced.clear()
    return found


_RELEASE = text("""
UPDATE brakes SET
  state = 'released',
  ended_at = knocktwice_now(),
  grace_until = knocktwice_now() + :grace
WHERE (CAST(:id AS bigint) IS NULL OR id = :id) AND state <> 'released'
RETURNING id
""")


def release(engine: Engine, wanted: HeldFilter, *, grace: timedelta, reason: str) -> int:
    """Let held messages go, page by page; without a filter on messages the brake goes off, too. Return how many.

    Args:
        wanted: which messages; with only a brake, or nothing, these brakes hold nothing new any more.
        grace: how long they stay off.
        reason: why, for the ledger.
    """
    if not wanted.of_rows:
        with engine.begin() as conn:
            _require(conn, wanted.brake)
            for row in conn.execute(_RELEASE, {"id": wanted.brake, "grace": grace}).all():
                alarms.sound(conn, "brake.released", str(row.id), {"brake": row.id, "reason": reason})
    return _each_page(engine, wanted, lambda conn, ids: braked.waive(conn, ids, reason))


def drop(engine: Engine, wanted: HeldFilter, *, reason: str) -> int:
    """End held messages, page by page: nobody gets them. The brake stays as it is. Return how many."""
    with engine.begin() as conn:
        _require(conn, wanted.brake)
    dropped = _each_page(engine, wanted, lambda conn, ids: braked.drop(conn, ids, reason))
    log.warning("held messages dropped", brake=wanted.brake, messages=dropped)
    return dropped


def _each_page(engine: Engine, wanted: HeldFilter, change: Callable[[Connection, Sequence[str]], int]) -> int:
    changed = 0
    while True:
        with engine.begin() as conn:
            ids = braked.page(conn, wanted)
            changed += change(conn, ids) if ids else 0
        if not ids:
            return changed


_EXISTS = text("SELECT 1 FROM brakes WHERE id = :id")


def _require(conn: Connection, id_: int | None) -> None:
    if id_ is not None and not conn.execute(_EXISTS, {"id": id_}).first():
        raise NoSuchBrake(f"there is no brake {id_}; knocktwice brake list --all names them")


def release_singles(conn: Connection, brake: int) -> int:
    """Let the single transactional and critical messages go that a brake held, because its trouble is over."""
    wanted, released = replace(braked.HeldFilter(brake), singles=True), 0
    while ids := braked.page(conn, wanted):
        released += braked.waive(conn, ids, "the share that falls back is usual again")
    return released
