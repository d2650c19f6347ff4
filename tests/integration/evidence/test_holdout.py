"""The holdout: who is drawn, what becomes of them, and what the comparison says."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, parse_batch
from knocktwice_worker.evidence import holdout
from knocktwice_worker.evidence.holdout import Group
from knocktwice_worker.notifications.pipeline import receipts
from knocktwice_worker.notifications.pipeline.experiment import Arm, Experiment
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.services import Services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.clock import Clock
    from support.commands import CommandOutput

PEOPLE = 60
TEXTED = "texted: sms accepted by the provider"
DAY, MINUTE, SECOND = timedelta(days=1), timedelta(minutes=1), timedelta(seconds=1)


@pytest.fixture
def trying(working: Services) -> Iterator[Services]:
    """An installation that leaves out a third, and lets a third wait ten minutes longer."""
    shares = {"holdout_share": 0.33, "probe_share": 0.33, "probe_wait_s": 600, "sms_per_day": 0}
    built = Services(working.settings.model_copy(update=shares))
    yield built
    built.close()


def push(here: Services, **fields: Any) -> list[str]:
    """Push to people who wait a minute for a click; then the SMS are due."""
    people = [{"id": str(uuid7()), "registrations": [f"silent-{n}"], "phone": f"+1650253{n:04}"} for n in range(PEOPLE)]
    wire = {"v": 1, "id": str(uuid7()), "content": {"push": {"title": "t", "body": "b"}}, "recipients": people}
    wire["plan"] = [{"channel": "sms", "when": "not_clicked", "after_s": 60}]
    here.pushes.send(parse_batch(wire | fields))
    return [str(person["id"]) for person in people]


def decide(here: Services, ids: list[str]) -> None:
    here.later_steps.send(here.fallback.check(ids))


def click(here: Services, ids: list[str]) -> None:
    receipts.record(here.engine, [ReceiptEvent(UUID(i), Receipt.CLICKED, datetime.now(UTC), "phone") for i in ids])


def states(here: Services, ids: list[str]) -> dict[str, str]:
    query = "SELECT id, concat_ws(': ', state, reason) AS said FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))"
    with here.engine.connect() as conn:
        return {str(row.id): row.said for row in conn.execute(sa.text(query), {"ids": ids})}


def arms(here: Services, ids: list[str]) -> dict[Arm, list[str]]:
    drawn: dict[Arm, list[str]] = {arm: [] for arm in Arm}
    for id_ in ids:
        drawn[here.fallback.gates.experiment.arm(id_)].append(id_)
    return drawn


def story(here: Services, id_: str) -> str:
    with here.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    return "\n".join([*(moment.sentence for moment in told.moments), *(one.sentence for one in told.waits)])


def test_each_arm_is_treated_as_it_was_drawn(trying: Services, clock: Clock) -> None:
    ids = push(trying)
    drawn = arms(trying, ids)
    clock.advance(MINUTE + SECOND)
    decide(trying, ids)
    found = states(trying, ids)
    assert {found[i] for i in drawn[Arm.TEXTED]} == {TEXTED}
    assert {found[i] for i in drawn[Arm.HELD_OUT]} == {"suppressed: held_out"}
    assert {found[i] for i in drawn[Arm.PROBE]} == {"active"}
    assert "KNOCKTWICE_HOLDOUT_SHARE" in story(trying, drawn[Arm.HELD_OUT][0])
    assert "was drawn to wait longer" in story(trying, drawn[Arm.PROBE][0])

    early, late = drawn[Arm.PROBE][:3], drawn[Arm.PROBE][3:]
    clock.advance(5 * MINUTE)
    click(trying, early)
    decide(trying, ids)
    assert {states(trying, ids)[i] for i in late} == {"active"}
    clock.advance(5 * MINUTE)
    decide(trying, ids)
    found = states(trying, ids)
    assert {found[i] for i in early} == {"reached: reached_in_time"}
    assert {found[i] for i in late} == {TEXTED}
    assert all("until" not in found[i] for i in ids)


@pytest.mark.parametrize(
    "fields",
    [
        {"category": "critical"},
        {"plan": [{"channel": "sms", "text": "Your code is 123."}], "content": {}},
    ],
    ids=["critical", "no fallback"],
)
def test_what_nobody_may_miss_is_never_part_of_it(trying: Services, clock: Clock, fields: dict[str, Any]) -> None:
    ids = push(trying, **fields)
    clock.advance(MINUTE + SECOND)
    decide(trying, ids)
    assert set(states(trying, ids).values()) == {TEXTED}


def test_a_message_that_would_be_of_no_use_after_the_wait_does_not_wait(trying: Services, clock: Clock) -> None:
    ids = push(trying, valid_for_s=300)
    clock.advance(MINUTE + SECOND)
    decide(trying, ids)
    assert {states(trying, ids)[i] for i in arms(trying, ids)[Arm.PROBE]} == {TEXTED}


def test_who_is_held_out_is_held_out_of_all_steps_and_counts_for_no_limit(trying: Services, clock: Clock) -> None:
    ids = push(
        trying,
        plan=[
            {"channel": "sms", "when": "not_clicked", "after_s": 60, "text": "first"},
            {"channel": "sms", "when": "not_delivered", "after_s": 60, "text": "second"},
        ],
    )
    clock.advance(MINUTE + SECOND)
    decide(trying, ids)
    decide(trying, ids)
    held = arms(trying, ids)[Arm.HELD_OUT]
    assert {states(trying, ids)[i] for i in held} == {"suppressed: held_out"}
    query = (
        "SELECT count(*) FROM deliveries WHERE counted_at IS NOT NULL AND notification_id = ANY(CAST(:ids AS uuid[]))"
    )
    with trying.engine.connect() as conn:
        assert conn.execute(sa.text(query), {"ids": held}).scalar_one() == 0


def test_the_groups_are_counted_as_they_answered(
    trying: Services, clock: Clock, run: Callable[..., CommandOutput]
) -> None:
    ids = push(trying)
    drawn = arms(trying, ids)
    clock.advance(MINUTE + SECOND)
    decide(trying, ids)
    clock.advance(MINUTE)
    click(trying, drawn[Arm.TEXTED][:5] + drawn[Arm.HELD_OUT][:1] + drawn[Arm.PROBE][:2])
    clock.advance(10 * MINUTE)
    decide(trying, ids)
    with trying.engine.connect() as conn:
        assert holdout.compare(conn, 2 * DAY, DAY).groups[Arm.TEXTED] == Group()
    clock.advance(DAY)
    # After their time, so it is no answer any more.
    click(trying, drawn[Arm.TEXTED][5:7])
    found = run("holdout", "--since", "2d", "--within", "1d", "--json").json
    sizes = {arm: len(own) for arm, own in drawn.items()}
    assert {name: (g["notifications"], g["answered"], g["texted"]) for name, g in found["groups"].items()} == {
        "texted": (sizes[Arm.TEXTED], 5, sizes[Arm.TEXTED]),
        "held_out": (sizes[Arm.HELD_OUT], 1, 0),
        "probe": (sizes[Arm.PROBE], 2, sizes[Arm.PROBE] - 2),
    }
    assert found["groups"]["probe"]["answered_waiting"] == 2
    assert found["uplift"]["value"] == pytest.approx(5 / sizes[Arm.TEXTED] - 1 / sizes[Arm.HELD_OUT])
    assert "more of 100 answer" in run("holdout", "--since", "2d").out


def test_a_wrong_span_is_refused_by_name(run: Callable[..., CommandOutput]) -> None:
    assert "within" in run("holdout", "--since", "1d", "--within", "2d").err


def test_shares_are_what_they_say_and_a_change_of_one_moves_nobody_between_the_others() -> None:
    ids = [str(uuid7()) for _ in range(20_000)]
    one, other = (Experiment(held, 0.2, MINUTE, b"secret") for held in (0.05, 0.1))
    counts = [sum(one.arm(id_) is arm for id_ in ids) / len(ids) for arm in Arm]
    assert counts == pytest.approx([0.75, 0.05, 0.2], abs=0.015)
    changed = {(one.arm(id_), other.arm(id_)) for id_ in ids if one.arm(id_) is not other.arm(id_)}
    assert changed == {(Arm.TEXTED, Arm.HELD_OUT)}


def test_the_interval_covers_a_planted_effect_in_95_of_100_worlds() -> None:
    covered = 0
    for seed in range(400):
        dice = random.Random(seed)
        texted = Group(1_500, sum(dice.random() < 0.16 for _ in range(1_500)))
        held_out = Group(300, sum(dice.random() < 0.11 for _ in range(300)))
        uplift = holdout.of({Arm.TEXTED: texted, Arm.HELD_OUT: held_out, Arm.PROBE: Group()}).uplift
        assert uplift
        covered += uplift.low <= 0.05 <= uplift.high
    assert 0.93 <= covered / 400 <= 0.97


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((10, 10), (0, 20), 0.6791, 1.0)],
)
def test_the_interval_is_newcombes(one: tuple[int, int], other: tuple[int, int], low: float, high: float) -> None:
    """The paper's own examples."""
    found = holdout.difference(*one, *other)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.0001)
