"""Plants mistakes in the product, to show that the simulation can see: each takes back a line that carries a promise.

Most of them were in the product once. A mistake is a change of the text of a function or a statement, which must be there
exactly once.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import TextClause, text

from knocktwice import drafts
from knocktwice_worker.blasts import pages
from knocktwice_worker.blasts.expansion import Expansion
from knocktwice_worker.limits.per_number import RedisLimits
from knocktwice_worker.notifications.pipeline import receipts
from knocktwice_worker.notifications.pipeline.catch_up import CatchUp
from knocktwice_worker.notifications.pipeline.later_steps import LaterSteps
from knocktwice_worker.notifications.pipeline.pauses import PauseGate
from knocktwice_worker.notifications.pipeline.push import Pushes
from knocktwice_worker.notifications.pipeline.push_delivery import PushDelivery
from knocktwice_worker.notifications.pipeline.push_texts import PushTexts
from knocktwice_worker.notifications.pipeline.reconcile import Reconcile
from knocktwice_worker.notifications.store import failed_later, later_steps, push_claims
from knocktwice_worker.notifications.store.trigger_sql import aborted_at
from oracle.violations import Violation
from simulation.plots import OF_ALL_KINDS, OF_BLASTS, OF_LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Change:
    """A piece of a function, or of a statement, that says something else.

    Attributes:
        owner: the class or module.
        name: of the function or statement in it.
        old, new: what it says, and what it says then.
    """

    owner: Any
    name: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """A promise that is not kept any more.

    Attributes:
        changes: what makes it so.
        shows: the classes of violations that it leads to; the simulation shows one of them.
        within: so many seeds are enough.
        first: the first of them.
    """

    changes: tuple[Change, ...]
    shows: frozenset[Violation]
    within: int = 200
    first: int = 1


_AFTER = frozenset({Violation.AFTER_CLICK, Violation.AFTER_CANCEL, Violation.AFTER_STOP})
_TWO = frozenset({Violation.TWICE, Violation.OVER_LIMIT, Violation.UNTOLD, Violation.FALSE_STORY})
_OLDER_LOOK = "min(lease, look.later(_FRESH * (2 ** min(tries - 1, 4) - 1)))"
#: The look at the pauses ends a deadline, too, and would hide such a mistake.
_NO_PAUSES = Change(LaterSteps, "send", "nullcontext(min(not_after, unpaused_until))", "nullcontext(not_after)")
_NOTHING_CAUGHT_UP = Change(
    CatchUp, "notifications", "kinds, found = self._about(list(map(notification, ids)), left=left)", "return set()"
)
_RECEIPTS_IN_ONE = Change(
    receipts,
    "record",
    "    opened = sorted({str(r.notification) for r in receipts if r.kind is not Receipt.DELIVERED})\n"
    "    settle(engine, ids, opened)\n",
    "        store.settle_answered(conn, ids)\n",
)
#: The package has a function of this module's name.
_DUE_STEPS = sys.modules["knocktwice_worker.notifications.store.due"]
_ABORTED_OF_STEP = aborted_at("(SELECT n.batch_id FROM notifications n WHERE n.id = d.notification_id)")
_CLAIM_IS_MINE = "d.state = 'sending'\n AND d.claimed_at = :claimed_at"

MISTAKES: dict[str, Mistake] = {
    "what was accepted is not carried out before a decision": Mistake((_NOTHING_CAUGHT_UP,), _AFTER),
    "receipts are settled in the transaction that inserts them, and nothing is caught up": Mistake(
        # Two layers are planted out, and the lock that shows it is waited for in real time: on a busy machine seeds
        # differ.
        (_NOTHING_CAUGHT_UP, _RECEIPTS_IN_ONE),
        _AFTER,
        within=800,
    ),
    "nobody looks again when a message is held": Mistake(
        (Change(later_steps, "_HOLD", f"NOT ({later_steps._NOT_STOPPED})", "false"),), _AFTER
    ),
    "the last look counts for the whole lease": Mistake(
        (Change(LaterSteps, "send", _OLDER_LOOK, "lease"), _NO_PAUSES), _AFTER
    ),
    "the deadline counts from the call": Mistake(
        (Change(LaterSteps, "send", _OLDER_LOOK, "Deadline.within(timedelta(days=1))"), _NO_PAUSES), _TWO
    ),
    "a sender whose claim is another's sends": Mistake(
        (Change(later_steps, "_HOLD", _CLAIM_IS_MINE, "CAST(:claimed_at AS timestamptz) IS NOT NULL"),), _TWO
    ),
    "one look at a provider's list is enough": Mistake(
        (
            Change(Reconcile, "_not_there", "max(self.unknown_grace, self.lease)", "timedelta()"),
            Change(Reconcile, "_not_there", "if row.missed_at is None:", "if False:"),
            Change(Reconcile, "_not_there", "(row.now - row.missed_at)", "timedelta(days=1)"),
        ),
        _TWO,
    ),
    "what may have gone is sent again without a look": Mistake(
        (Change(Reconcile, "_settle", "if found := _find(row, listed or (), taken, provider):", "if found := '':"),),
        _TWO,
    ),
    "the countdown does not wait for the push": Mistake(
        (
            Change(
                _DUE_STEPS,
                "_DUE",
                "THEN d.due_at + greatest(p.finished_at - p.claimed_at, interval '0')",
                "THEN d.due_at",
            ),
            Change(push_claims, "_START_COUNTDOWNS", "s.state = 'scheduled'", "s.state = 'never'"),
        ),
        frozenset({Violation.TEXTED_BY_OUR_DELAY}),
    ),
    "a push leaves whatever was said since the last look": Mistake(
        (
            Change(Pushes, "_looked_again", "if not messages or not look.over:", "if True:"),
            Change(Pushes, "send_all", "min(lease, look.later(_FRESH))", "lease"),
            Change(Pushes, "resume", "min(lease, look.later(_FRESH))", "lease"),
            Change(PushDelivery, "deliver", "min(lease, unpaused_until)", "lease"),
        ),
        frozenset({Violation.AFTER_CANCEL, Violation.PUSH_AFTER_SMS}),
        # One seed in a hundred says something while a push stands at this step.
        within=800,
    ),
    "a test is pushed like anything": Mistake(
        (Change(PushTexts, "message", "test=is_test(project)", "test=False"),),
        frozenset({Violation.MISMATCH}),
        first=OF_ALL_KINDS,
    ),
    "a project's key is everybody's": Mistake(
        (Change(drafts, "batch", "scoped(r.key, project)", "r.key"),), frozenset({Violation.LOST}), first=OF_ALL_KINDS
    ),
    "what failed later stays so": Mistake(
        (Change(failed_later, "_TAKE_UP", "d.steps_left = 0", "false"),),
        frozenset({Violation.LOST}),
        first=OF_ALL_KINDS,
    ),
    "pauses are read once in two minutes": Mistake(
        (
            Change(
                PauseGate,
                "look",
                "Deadline.within(_FRESH), Deadline.within(_HOLDS)",
                "Deadline.within(timedelta(minutes=2)), Deadline.within(timedelta(minutes=2))",
            ),
        ),
        frozenset({Violation.WHILE_PAUSED}),
        first=OF_ALL_KINDS,
    ),
    "a stopped blast stops an SMS when the turn of its page comes": Mistake(
        (
            Change(_DUE_STEPS, "_DUE", aborted_at("n.batch_id"), "NULL"),
            Change(later_steps, "_CLAIM", _ABORTED_OF_STEP, "NULL"),
            Change(later_steps, "_HOLD", _ABORTED_OF_STEP, "NULL"),
        ),
        frozenset({Violation.AFTER_CANCEL}),
        first=OF_BLASTS,
    ),
    "what Redis has lost is not counted anew from PostgreSQL": Mistake(
        (Change(RedisLimits, "_known", "return known_in_postgres(conn, asks, self.limits, now)", "return []"),),
        frozenset({Violation.OVER_LIMIT}),
        first=OF_LIMITS,
    ),
    "a page is sent whatever was said of its blast": Mistake(
        (Change(Expansion, "_take", "if self._is_pending(page):", "if False:"),),
        frozenset({Violation.AFTER_CANCEL}),
        first=OF_BLASTS,
        within=800,
    ),
    "a stopped blast knows nothing of what it had texted": Mistake(
        (Change(pages, "_OPEN", "n.state = 'active' OR EXISTS (", "n.state = 'active' OR false AND EXISTS ("),),
        frozenset({Violation.AFTER_CANCEL}),
        first=OF_BLASTS,
    ),
}


@contextmanager
def planted(mistake: Mistake) -> Iterator[None]:
    """Make a mistake for as long as the block lasts."""
    places: dict[tuple[Any, str], list[Change]] = {}
    for change in mistake.changes:
        places.setdefault((change.owner, change.name), []).append(change)
    with pytest.MonkeyPatch.context() as patch:
        for (owner, name), changes in places.items():
            patch.setattr(owner, name, _changed(getattr(owner, name), changes))
        yield


def _changed(found: Any, changes: Sequence[Change]) -> Any:
    if isinstance(found, TextClause):
        return text(_replaced(found.text, changes))
    original = inspect.unwrap(found)
    module = sys.modules[original.__module__]
    source = _replaced(textwrap.dedent(inspect.getsource(original)), changes)
    made: dict[str, Any] = {}
    code = compile(f"from __future__ import annotations\n{source}", str(module.__file__), "exec")
    exec(code, vars(module), made)  # noqa: S102 - a text of ours
    return made[changes[0].name]


def _replaced(said: str, changes: Sequence[Change]) -> str:
    for change in changes:
        if said.count(change.old) != 1:
            raise AssertionError(f"{change.name} has no longer, or not only once: {change.old}")
        said = said.replace(change.old, change.new)
    return said
