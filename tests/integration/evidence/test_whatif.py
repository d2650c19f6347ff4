"""What-if decides as the pipeline did, and as it would have done."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, When, parse_batch
from knocktwice_worker.evidence.whatif import Comparison, Rules, compare, messages
from knocktwice_worker.notifications.pipeline import cancellation, receipts

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.services import Services
    from support.clock import Clock
    from support.commands import CommandOutput

WEEK, MINUTE = timedelta(days=7), timedelta(minutes=1)
#: People of a world, and minutes that it lasts.
PEOPLE, MINUTES = 60, 14


class World:
    """People who were pushed at the same time and answer, or do not, each at a minute of their own.

    Args:
        when, after: of the step behind the push; ``None``: at random for each.
    """

    def __init__(
        self, here: Services, clock: Clock, seed: int, when: str | None = None, after: timedelta | None = None
    ) -> None:
        self._here, self._clock, self._dice = here, clock, random.Random(seed)
        self.ids = [str(uuid7()) for _ in range(PEOPLE)]
        self._deeds: dict[int, list[tuple[str, str]]] = {}
        for place, id_ in enumerate(self.ids):
            self._plan(place, id_, when, after)

    def _plan(self, place: int, id_: str, when: str | None, after: timedelta | None) -> None:
        dice = self._dice
        deed, minute = dice.choice(["delivered", "clicked", "cancelled", "nothing", "nothing"]), dice.randrange(MINUTES)
        triggers = ["not_delivered", "not_clicked", "not_answered", "notifications_disabled"]
        trigger, delay = dice.choice(triggers), timedelta(minutes=dice.choice([2, 5, 8]))
        person: dict[str, Any] = {"id": id_, "registrations": [f"{dice.choice(['silent', 'silent', 'gone'])}-{place}"]}
        if dice.random() < 0.8:
            person["phone"] = f"+1650555{place:04}"
        step = {"channel": "sms", "when": when or trigger, "after_s": (after or delay).total_seconds()}
        wire = {"v": 1, "id": str(uuid7()), "content": {"push": {"title": "t", "body": id_}}, "recipients": [person]}
        self._here.pushes.send(parse_batch(wire | {"plan": [step]}))
        self._deeds.setdefault(minute, []).append((deed, id_))

    def live(self, *, workers_sleep: float = 0.0) -> None:
        """Let the minutes go by.

        Args:
            workers_sleep: the share of the minutes in which no worker decides anything.
        """
        for minute in range(MINUTES):
            if self._dice.random() >= workers_sleep:
                self._here.later_steps.send(self._here.fallback.check(self.ids))
            # Between two looks, so that real time, which goes by meanwhile, changes the order of nothing.
            self._clock.advance(MINUTE / 2)
            for deed, id_ in self._deeds.get(minute, ()):
                self._do(deed, id_)
            self._clock.advance(MINUTE / 2)
        self._here.later_steps.send(self._here.fallback.check(self.ids))

    def _do(self, deed: str, id_: str) -> None:
        if deed == "cancelled":
            cancellation.cancel(self._here.engine, [id_], [])
        elif deed != "nothing":
            event = ReceiptEvent(UUID(id_), Receipt(deed), datetime.now(UTC), "phone")
            receipts.record(self._here.engine, [event])


def _compare(here: Services, rules: Rules) -> Comparison:
    with here.engine.connect() as conn:
        return compare(conn, WEEK, rules)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_under_the_rules_as_they_were_each_decision_comes_out_as_recorded(
    working: Services, clock: Clock, seed: int
) -> None:
    World(working, clock, seed).live(workers_sleep=0.3)
    found = _compare(working, Rules())
    assert found.differing == []
    assert found.decisions >= PEOPLE * 0.9
    assert found.recorded == found.otherwise
    # The history has some of everything.
    assert set(found.recorded) >= {
        "reached_in_time",
        "not_clicked",
        "not_delivered",
        "push_failed",
        "no_phone",
        "cancelled",
    }


def test_a_decision_that_is_not_what_decide_says_is_named(
    working: Services, clock: Clock, run: Callable[..., CommandOutput]
) -> None:
    World(working, clock, 4).live()
    assert run("whatif").code == 0
    wrong = "UPDATE decisions SET verdict = 'reached_in_time' WHERE ctid = (SELECT ctid FROM decisions WHERE verdict = 'not_clicked' LIMIT 1)"
    with working.engine.begin() as conn:
        conn.execute(sa.text(wrong))
    ((_, step, recorded, again),) = _compare(working, Rules()).differing
    assert (step, recorded, again) == (1, "reached_in_time", "not_clicked")
    done = run("whatif", "--json")
    assert done.code == 1
    assert done.json["difference"] == 1


@pytest.mark.parametrize(
    ("rules", "when", "after"),
    [
        (Rules(after=timedelta(minutes=9)), "not_clicked", 9),
        (Rules(after=timedelta(minutes=2)), "not_clicked", 2),
        (Rules(when=When.NOT_DELIVERED), "not_delivered", 5),
        (Rules(after=timedelta(minutes=8), when=When.NOT_DELIVERED), "not_delivered", 8),
    ],
)
def test_other_rules_come_to_what_the_pipeline_makes_of_the_same_people(
    working: Services, clock: Clock, rules: Rules, when: str, after: int
) -> None:
    World(working, clock, 5, "not_clicked", timedelta(minutes=5)).live()
    expected = _compare(working, rules).otherwise
    with working.engine.begin() as conn:
        conn.execute(sa.text("TRUNCATE notifications, batches, deliveries, attempts, events, decisions CASCADE"))
    working.redis.flushdb()
    World(working, clock, 5, when, timedelta(minutes=after)).live()
    truth = _compare(working, Rules())
    assert truth.differing == []
    assert abs(messages(expected) - messages(truth.recorded)) <= 0.01 * PEOPLE
    assert messages(truth.recorded) > 0
    assert truth.recorded == expected


def test_what_cannot_be_set_is_named_all_at_once(run: Callable[..., CommandOutput]) -> None:
    done = run("whatif", "--set", "after=soon", "--set", "when=never", "--set", "colour=blue")
    assert done.code == 1
    for word in ("set.after", "set.when", "'colour' is not known"):
        assert word in done.err
