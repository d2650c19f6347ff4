"""The last look before a message goes: the world may have changed since it was decided,
and every rule is asked again.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import ConsentSet, DeviceRegistered, PhoneBound, parse_batch
from knocktwice_worker.audience import inbound_texts, people
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.audience.opt_out_words import Wish
from knocktwice_worker.lifecycle import Refusal
from knocktwice_worker.sandbox import Answer, Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

AT = datetime(2026, 1, 1, tzinfo=UTC)
NUMBER = "+16505550100"
CALIFORNIA = ZoneInfo("America/Los_Angeles")
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


def at(hour: int, minute: int = 0, day: int = 1) -> datetime:
    """A time of a day to come, by the clock where the number is at home."""
    ahead = datetime.now(CALIFORNIA) + timedelta(days=day)
    return ahead.replace(hour=hour, minute=minute, second=0, microsecond=0)


def pushed(here: Services, number: str = NUMBER, body: str = "b", category: str = "transactional") -> str:
    """Notify somebody who is known, and return the id; the SMS is due at once."""
    n = uuid7()
    user, id_ = f"user-{n}", str(uuid7())
    with here.engine.begin() as conn:
        people.apply(
            conn,
            [
                DeviceRegistered(user, f"silent-{n}", AT),
                PhoneBound(user, number, AT),
                ConsentSet(user, True, "web", AT),
            ],
        )
    wire = {
        "v": 1,
        "id": str(uuid7()),
        "category": category,
        "content": {"push": {"title": "t", "body": body}},
        "plan": [{"channel": "sms", "when": "not_clicked", "after_s": 0}],
        "recipients": [{"id": id_, "user": user}],
    }
    here.pushes.send(parse_batch(wire))
    return id_


def rows(here: Services, query: str, **values: Any) -> list[tuple[Any, ...]]:
    with here.engine.begin() as conn:
        found = conn.execute(sa.text(query), values)
        return [tuple(row) for row in found] if found.returns_rows else []


def end(here: Services, id_: str) -> tuple[Any, ...]:
    ((state, reason),) = rows(here, "SELECT state, reason FROM notifications WHERE id = :id", id=id_)
    return state, reason


def spoil(here: Services, id_: str) -> None:
    """Make the notification's text something that this version cannot fill in; another one could."""
    rows(
        here,
        "UPDATE batches SET content = jsonb_set(content, '{push,body}', '\"{{ name | unheard_of }}\"') "
        "WHERE id = (SELECT batch_id FROM notifications WHERE id = :id)",
        id=id_,
    )


def test_marketing_that_was_decided_by_day_is_not_sent_at_night(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    clock.set(at(20, 59))
    id_, said = pushed(working, category="marketing"), pushed(working, "+16505550101")
    reserved = working.fallback.check([id_, said])
    assert sorted(reserved) == sorted([id_, said])
    clock.set(at(21, 1))
    assert working.later_steps.send(reserved) == [said]
    ((wakes,),) = rows(working, "SELECT wake_at FROM deliveries WHERE notification_id = :id AND step = 1", id=id_)
    assert wakes == at(8, day=2)
    clock.set(at(8, 1, day=2))
    assert working.later_steps.send([id_]) == [id_]
    assert len(sandbox.texts(NUMBER)) == 1


def _stops(conn: sa.Connection, user: str) -> None:
    del user
    inbound_texts.receive(conn, [InboundText("SM-stop", NUMBER, Wish.STOP)], b"test")


def _moves(conn: sa.Connection, user: str) -> None:
    people.apply(conn, [PhoneBound(user, "+16505550199", AT + HOUR)])


def _withdraws(conn: sa.Connection, user: str) -> None:
    people.apply(conn, [ConsentSet(user, False, "web", AT + HOUR)])


_said = pytest.mark.parametrize(
    ("happens", "reason"),
    [(_stops, Refusal.OPTED_OUT), (_moves, Refusal.NUMBER_CHANGED), (_withdraws, Refusal.NO_CONSENT)],
)


@_said
def test_whoever_may_not_be_texted_any_more_is_not_and_the_reason_is_told(
    working: Services,
    sandbox: Sandbox,
    clock: Clock,
    happens: Callable[[sa.Connection, str], None],
    reason: Refusal,
) -> None:
    clock.set(at(12))
    id_ = pushed(working, category="marketing")
    assert working.fallback.check([id_]) == [id_]
    with working.engine.begin() as conn:
        happens(conn, conn.execute(sa.text("SELECT user_id FROM notifications")).scalar_one())
    assert working.later_steps.send([id_]) == []
    assert sandbox.texts() == []
    assert end(working, id_) == ("suppressed", reason)


@_said
def test_what_is_said_between_the_claim_and_the_lock_counts_too(
    working: Services,
    sandbox: Sandbox,
    clock: Clock,
    happens: Callable[[sa.Connection, str], None],
    reason: Refusal,
) -> None:
    clock.set(at(12))
    id_ = pushed(working, category="marketing")
    assert working.fallback.check([id_]) == [id_]
    claimed: list[tuple[Any, ...]] = []

    def say(_: object) -> None:
        if not claimed:
            claimed.extend(rows(working, "SELECT state FROM deliveries WHERE step = 1"))
            with working.engine.begin() as conn:
                happens(conn, conn.execute(sa.text("SELECT user_id FROM notifications")).scalar_one())

    sa.event.listen(working.later_steps.senders, "begin", say)
    assert working.later_steps.send([id_]) == []
    assert claimed == [("sending",)]
    clock.advance(SECOND)
    assert working.later_steps.send([id_]) == []
    assert sandbox.texts() == []
    assert end(working, id_) == ("suppressed", reason)


def test_what_passed_the_limits_twice_because_of_a_wipe_goes_once(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    clock.set(at(12))
    first, second = pushed(working), pushed(working)

    def wipe(_: object) -> None:
        # The first has been counted, in Redis alone: its row is not committed yet.
        if not wiped:
            wiped.append(True)
            working.redis.flushdb()
            assert working.fallback.check([second]) == [second]

    wiped: list[bool] = []
    sa.event.listen(working.engine, "commit", wipe)
    assert working.fallback.check([first]) == [first]
    assert len(working.later_steps.send([first, second])) == 1
    assert len(sandbox.texts(NUMBER)) == 1
    assert sorted(end(working, id_)[0] for id_ in (first, second)) == ["suppressed", "texted"]


def test_a_text_counts_from_when_it_was_sent_also_after_a_wipe(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    clock.set(at(12))
    first, second = pushed(working), pushed(working)
    assert working.fallback.check([first]) == [first]
    # It waits for its sender for longer than the same text holds its number.
    clock.advance(40 * SECOND)
    assert working.later_steps.send([first]) == [first]
    clock.advance(20 * SECOND)
    working.redis.flushdb()
    assert working.fallback.check([second]) == []
    assert end(working, second) == ("suppressed", Refusal.DUPLICATE_CONTENT)
    assert len(sandbox.texts(NUMBER)) == 1


def test_a_text_of_the_evening_before_counts_on_the_day_on_which_it_was_sent(working: Services, clock: Clock) -> None:
    midnight = (datetime.now(UTC) + timedelta(days=2)).replace(hour=0, minute=0, second=0, microsecond=0)
    clock.set(midnight - SECOND)
    ids = [pushed(working, body=f"b {n}") for n in range(working.settings.sms_per_day)]
    reserved = working.fallback.check(ids)
    assert len(reserved) == len(ids)
    clock.set(midnight + SECOND)
    assert len(working.later_steps.send(reserved)) == len(ids)
    working.redis.flushdb()
    one_more = pushed(working, body="one more")
    assert working.fallback.check([one_more]) == []
    assert end(working, one_more) == ("suppressed", Refusal.CAPPED_DAILY)


def test_a_text_that_cannot_be_filled_in_any_more_is_not_sent_and_stops_nobody(working: Services, clock: Clock) -> None:
    clock.set(at(12))
    broken, well = pushed(working), pushed(working, "+16505550101")
    spoil(working, broken)
    assert working.fallback.check([broken, well]) == [well]
    state, reason = end(working, broken)
    assert (state, reason.partition(":")[0]) == ("failed", Refusal.INVALID_CONTENT)


def test_a_push_that_cannot_be_filled_in_any_more_is_not_repeated_and_stops_nobody(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    sandbox.rule(Rule("push", times=2, answer=Answer(status=503)))
    broken, well = pushed(working), pushed(working, "+16505550101")
    assert sandbox.pushes() == []
    spoil(working, broken)
    clock.advance(HOUR / 2)
    working.pushes.resume([broken, well])
    assert [push.notification_id for push in sandbox.pushes()] == [well]
    attempts = "SELECT notification_id::text, state FROM attempts ORDER BY state"
    assert rows(working, attempts) == [(broken, "rejected"), (well, "sent")]
