"""The pumping guard: messages to numbers that somebody is paid for are found by our own answers, and stopped."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, parse_batch
from knocktwice_worker.brake import brakes, guard, text_ranges
from knocktwice_worker.brake.pumping import Crowding, Numbers
from knocktwice_worker.config import PumpingMode
from knocktwice_worker.lifecycle import BrakeState, TextTrouble
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline import receipts
from knocktwice_worker.notifications.store import trial_counts
from knocktwice_worker.notifications.store.braked import HeldFilter
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.services import Services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from knocktwice_worker.brake.brakes import Brake
    from support.clock import Clock

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)

#: Numbers of one expensive range, one after the other.
EXPENSIVE = [f"+9929000{n:05}" for n in range(5_000)]

# What a provider does with messages is of no interest here; tests that send are in tests/integration/channels.
_TAKE = sa.text("""
UPDATE deliveries SET
  state = 'sent',
  claimed_at = knocktwice_now(),
  wake_at = NULL,
  finished_at = knocktwice_now(),
  provider_status = 'delivered',
  provider_status_at = knocktwice_now()
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND state = 'reserved'
""")
_BLAST = sa.text("""
WITH b AS (
  INSERT INTO blasts (id, key, filter, message, state, finished_at)
  VALUES (CAST(:batch AS uuid), :batch, '{}', '{}', 'finished', knocktwice_now())
)
INSERT INTO blast_pages (id, last_id, blast_id, count, sent_at)
VALUES (CAST(:batch AS uuid), CAST(:batch AS uuid), CAST(:batch AS uuid), :count, knocktwice_now())
""")


def people(count: int, seed: int, country: str = "+49151", digits: int = 8) -> list[str]:
    """Numbers of people, as they are spread over a country."""
    drawn = random.Random(seed)
    return [f"{country}{n:0{digits}}" for n in drawn.sample(range(10**digits), count)]


@dataclass
class Texts:
    """Texts single messages without a push, as an application does that checks numbers."""

    here: Services
    clock: Clock

    def ask(self, numbers: Sequence[str], template: str = "code", *, blast: bool = False, **shared: Any) -> list[str]:
        """Accept a message to each number; return the notifications."""
        accepted: list[str] = []
        for start in range(0, len(numbers), 500):
            batch, page = str(uuid7()), numbers[start : start + 500]
            wire = {
                "v": 1,
                "id": batch,
                "content": {"sms": {"text": "Your code"}},
                "plan": [{"channel": "sms"}],
                "recipients": [{"id": str(uuid7()), "phone": number} for number in page],
                **shared,
            }
            content = {"template": template, "push": None, "sms": "Your code"}
            with self.here.engine.begin() as conn:
                if blast:
                    conn.execute(_BLAST, {"batch": batch, "count": len(page)})
                store.accept(conn, [store.Intake(parse_batch(wire), {}, MINUTE, content)], lease=MINUTE)
            accepted += [one["id"] for one in wire["recipients"]]
        return accepted

    def text(self, ids: Sequence[str]) -> list[str]:
        """Decide about them, and let the provider take those that may go; return these."""
        gone: list[str] = []
        for start in range(0, len(ids), 500):
            let = self.here.fallback.check(ids[start : start + 500])
            with self.here.engine.begin() as conn:
                conn.execute(_TAKE, {"ids": let})
            gone += let
        return gone

    def answer(self, ids: Sequence[str], share: float) -> None:
        """Let a share of the people enter their codes."""
        at = datetime.now(UTC)
        done = ids[: round(len(ids) * share)]
        receipts.record(self.here.engine, [ReceiptEvent(UUID(id_), Receipt.CLICKED, at, "") for id_ in done])

    def look(self, after: timedelta = 10 * SECOND) -> list[Brake]:
        """Let some time go by and the guard look; return the brakes that are on or hold something."""
        self.clock.advance(after)
        guard.refresh(self.here.engine, guard.Rules.of(self.here.settings))
        with self.here.engine.connect() as conn:
            return brakes.list_all(conn)

    def story(self, id_: str) -> str:
        with self.here.engine.connect() as conn:
            told = tell(conn, id_)
        assert told
        return "\n".join(moment.sentence for moment in told.moments)

    def ended(self, ids: Sequence[str]) -> dict[str, int]:
        query = "SELECT concat_ws(': ', state, reason) AS s, count(*) FROM notifications WHERE id = ANY(CAST(:ids AS uuid[])) GROUP BY 1"
        with self.here.engine.connect() as conn:
            return {row[0]: row[1] for row in conn.execute(sa.text(query), {"ids": list(ids)})}


@pytest.fixture
def build(working: Services, clock: Clock) -> Iterator[Callable[..., Texts]]:
    """Makes an installation whose guard has a mode."""
    made: list[Services] = []

    def build(mode: PumpingMode, **settings: Any) -> Texts:
        given = {"sms_per_day": 0, "sms_same_content_s": 0, "pumping": mode, "numbers": "possible"} | settings
        made.append(Services(working.settings.model_copy(update=given)))
        return Texts(made[-1], clock)

    yield build
    for one in made:
        one.close()


def ordinary(texts: Texts, count: int = 100) -> None:
    """People sign up and seven of ten enter their code; some minutes go by."""
    texts.look()
    texts.answer(texts.text(texts.ask(people(count, seed=1))), 0.7)
    assert texts.look(3 * MINUTE) == []
    assert texts.look(20 * MINUTE) == []


def test_a_planted_attack_is_held_after_the_first_few_hundred(build: Callable[..., Texts]) -> None:
    texts = build(PumpingMode.HOLD, sms_prices={"*": 0.3})
    ordinary(texts)
    first = texts.text(texts.ask(EXPENSIVE[:200]))
    # People go on signing up meanwhile.
    texts.answer(texts.text(texts.ask(people(60, seed=2))), 0.7)
    assert len(first) == 200
    (brake,) = texts.look()
    assert (brake.kind, brake.state, brake.scope.template) == (TextTrouble.PUMPING, BrakeState.ON, "code")
    assert brake.why == (
        "200 new numbers side by side got template code to +9929000… (TJ), which looks like SMS pumping"
    )
    rest = texts.ask(EXPENSIVE[200:])
    assert texts.text(rest) == []
    assert "The SMS is held by brake" in texts.story(rest[0])
    assert "looks like SMS pumping" in texts.story(rest[0])
    # Others go as always: people, another template, and other numbers of the same country.
    assert len(texts.text(texts.ask(people(60, seed=3)))) == 60
    assert len(texts.text(texts.ask(EXPENSIVE[:10], template="invoice"))) == 10
    assert len(texts.text(texts.ask(people(20, seed=4, country="+9929111", digits=5)))) == 20
    with texts.here.engine.connect() as conn:
        assert brakes.list_all(conn)[0].held == 4_800
        bill = brakes.bill(conn, HeldFilter(brake.id), texts.here.channels.prices)
    assert bill.messages == 4_800
    assert bill.cost == pytest.approx(1_440)
    # An operator drops them, or they end by themselves when they are of no use any more; until then some may be
    # released.
    assert brakes.drop(texts.here.engine, HeldFilter(brake.id), reason="pumping") == 4_800
    assert texts.ended(rest) == {"suppressed: dropped": 4_800}
    assert texts.look(11 * MINUTE) == []


def test_a_range_that_ends_with_nines_is_found_like_any_other(build: Callable[..., Texts]) -> None:
    texts = build(PumpingMode.HOLD)
    ordinary(texts)
    texts.text(texts.ask([f"+9929999{n:05}" for n in range(200)]))
    (brake,) = texts.look()
    assert brake.why.startswith("200 new numbers side by side got template code to +9929999… (TJ)")


def test_of_a_range_with_very_many_it_is_asked_once_a_minute_how_close_its_numbers_are(
    build: Callable[..., Texts],
) -> None:
    texts = build(PumpingMode.HOLD)
    texts.clock.set(NOON)
    ordinary(texts)
    hour = NOON + timedelta(hours=1)
    texts.clock.set(hour)
    texts.look()
    texts.text(texts.ask(EXPENSIVE[:1_500]))
    texts.clock.set(hour + 50 * SECOND)
    assert texts.look(timedelta()) == []
    texts.clock.set(hour + 70 * SECOND)
    (brake,) = texts.look(timedelta())
    assert brake.why.startswith("1000 new numbers side by side got template code to +9929000…")


def test_a_number_that_was_texted_on_any_day_before_is_not_new(build: Callable[..., Texts]) -> None:
    texts = build(PumpingMode.MONITOR)
    for block in range(4):
        texts.text(texts.ask([f"+4366017{block}{n:02}" for n in range(20)]))
        texts.clock.advance(timedelta(days=1))
    texts.text(texts.ask([f"+4366017{block}{n:02}" for block in range(5) for n in range(20)]))
    texts.clock.advance(MINUTE)
    with texts.here.engine.connect() as conn:
        found = text_ranges.crowding_of(conn, Numbers("+436601", "code", ""), 10 * MINUTE, most=1_000)
    assert found == Crowding(20, 1)


def test_old_counts_are_merged_to_hours_and_say_the_same(build: Callable[..., Texts]) -> None:
    texts = build(PumpingMode.HOLD)
    texts.clock.set(NOON + timedelta(minutes=1))
    texts.text(texts.ask(people(100, seed=1)))
    ordinary(texts)
    texts.answer(texts.text(texts.ask(people(40, seed=8))), 0.5)
    texts.look(3 * MINUTE)
    before = _counts(texts)
    rules = guard.Rules.of(texts.here.settings)
    guard.clean(texts.here.engine, rules)
    after = _counts(texts)
    with texts.here.engine.connect() as conn:
        young = store.now(conn) - rules.window
    assert {row for row in after if row[0] >= young} == {row for row in before if row[0] >= young} != set()
    assert {row[0] for row in after if row[0] < young} == {NOON}
    assert len(after) < len(before)
    assert [sum(column) for column in zip(*(row[2:] for row in after), strict=True)] == [240, 240, 90]
    guard.clean(texts.here.engine, rules)
    assert _counts(texts) == after


def test_counts_that_are_not_settled_yet_are_not_merged(build: Callable[..., Texts]) -> None:
    texts = build(PumpingMode.HOLD)
    texts.clock.set(NOON + timedelta(minutes=1))
    ordinary(texts)
    with texts.here.engine.begin() as conn:
        conn.execute(
            sa.text("UPDATE followers SET seen_until = :noon WHERE name = 'sms messages settled'"), {"noon": NOON}
        )
    before = _counts(texts)
    guard.clean(texts.here.engine, guard.Rules.of(texts.here.settings))
    assert _counts(texts) == before
    # They are settled all the same, and merged afterwards.
    texts.look()
    guard.clean(texts.here.engine, guard.Rules.of(texts.here.settings))
    assert {row[0] for row in _counts(texts)} == {NOON}
    assert sum(row[3] for row in _counts(texts)) == 100


def _counts(texts: Texts) -> list[tuple[Any, ...]]:
    """Slot, range of numbers, messages, settled and answered ones."""
    query = "SELECT slot, prefix, messages, settled, answered FROM text_counts ORDER BY 1, 2"
    with texts.here.engine.connect() as conn:
        return [tuple(row) for row in conn.execute(sa.text(query))]


def test_codes_to_numbers_here_and_there_are_found_when_nobody_enters_them(build: Callable[..., Texts]) -> None:
    texts = build(PumpingMode.HOLD)
    ordinary(texts)
    attack = texts.text(texts.ask(people(60, seed=5, country="+9929")))
    texts.answer(texts.text(texts.ask(people(60, seed=6))), 0.7)
    assert texts.look() == []
    (brake,) = texts.look(3 * MINUTE)
    assert len(attack) == 60
    assert brake.scope.template == "code"
    assert brake.why.startswith("100 % of 60 times template code to +992… (TJ) is not answered, usually 30 %")
    held = texts.ask(people(5, seed=7, country="+9929"))
    assert texts.text(held) == []
    # What is released goes, and the range is left alone for a while.
    assert brakes.release(texts.here.engine, HeldFilter(brake.id), grace=60 * MINUTE, reason="customers") == 5
    assert sorted(texts.text(held)) == sorted(held)
    assert texts.look() == []


def test_two_at_once_do_not_hide_each_other(build: Callable[..., Texts]) -> None:
    texts = build(PumpingMode.HOLD)
    ordinary(texts)
    for count, country, digits in ((120, "+9929", 8), (60, "+2327", 7)):
        wave = people(count, seed=count, country=country, digits=digits)
        assert len(texts.text(texts.ask(wave))) == count
    texts.answer(texts.text(texts.ask(people(70, seed=6))), 0.7)
    assert texts.look() == []
    # Beside the larger one, hardly anybody seems to answer elsewhere either: the smaller one is judged without it.
    assert sorted(brake.why.split("(")[1][:2] for brake in texts.look(3 * MINUTE)) == ["SL", "TJ"]


def test_monitor_lets_all_go_and_says_how_many_it_would_have_stopped(build: Callable[..., Texts]) -> None:
    texts = build(PumpingMode.MONITOR)
    texts.look()
    texts.text(texts.ask(EXPENSIVE[:150]))
    texts.look()
    assert len(texts.text(texts.ask(EXPENSIVE[150:362]))) == 212
    (brake,) = texts.look()
    assert (brake.held, brake.passed) == (0, 212)
    with texts.here.engine.connect() as conn:
        assert trial_counts.read(conn, timedelta(days=1)) == {TextTrouble.PUMPING: 212, trial_counts.ANY: 212}


def test_slow_lets_a_few_go_each_minute_and_nobody_forgets_the_others(build: Callable[..., Texts]) -> None:
    texts = build(PumpingMode.SLOW, pumping_slow_per_min=6)
    texts.look()
    texts.text(texts.ask(EXPENSIVE[:150]))
    texts.look()
    waiting = texts.ask(EXPENSIVE[150:170])
    gone = texts.text(waiting)
    for turn in range(1, 7):
        assert len(gone) == turn
        texts.clock.advance(10 * SECOND)
        gone += texts.text([id_ for id_ in waiting if id_ not in gone])
    assert len(gone) == 7
    assert "The SMS was released from brake" in texts.story(gone[3])
    # What does not get its turn in time ends as useless.
    texts.clock.advance(timedelta(days=1, minutes=1))
    texts.text(waiting)
    assert texts.ended(waiting) == {"active": 7, "suppressed: too_late": 13}


@pytest.mark.parametrize("answers", [0.7, 0.0], ids=["codes are entered", "the application says nothing"])
def test_sign_ups_a_new_country_and_a_blast_trip_nothing(build: Callable[..., Texts], answers: float) -> None:
    texts = build(PumpingMode.HOLD)
    texts.look()
    texts.answer(texts.text(texts.ask(people(300, seed=8))), answers)
    texts.look(5 * MINUTE)
    # A country where nobody has been texted so far: a thousand people in ten minutes.
    texts.answer(texts.text(texts.ask(people(700, seed=9, country="+3725", digits=7))), answers)
    # A blast to customers of a company, side by side.
    texts.text(texts.ask(EXPENSIVE[:400], template="news", blast=True))
    assert texts.look() == []
    assert texts.look(3 * MINUTE) == []
    assert len(texts.text(texts.ask(people(300, seed=10, country="+3725", digits=7)))) == 300


def test_what_waits_at_its_sender_is_held_too_and_a_sale_of_the_same_template_is_not(
    build: Callable[..., Texts],
) -> None:
    texts = build(PumpingMode.HOLD)
    texts.look()
    texts.text(texts.ask(EXPENSIVE[:150]))
    reserved = texts.here.fallback.check(texts.ask(EXPENSIVE[150:155]))
    sale = texts.ask(EXPENSIVE[155:160], blast=True)
    assert len(reserved) == 5
    assert [one.held for one in texts.look()] == [0]
    assert texts.here.later_steps.send(reserved) == []
    with texts.here.engine.connect() as conn:
        assert [one.held for one in brakes.list_all(conn)] == [5]
    assert sorted(texts.text(sale)) == sorted(sale)
