"""The SQL says what ``lifecycle.TRIGGERS`` says, for every combination of trigger, receipt,
relation of steps and state.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, When
from knocktwice_worker.content.links.link_store import LINK
from knocktwice_worker.lifecycle import (
    FOLLOW_UPS,
    OPEN,
    TRIGGERS,
    DeliveryState,
    Evidence,
    Facts,
    NotificationState,
    Verdict,
    answers,
    decide,
)
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.store import change_feed
from knocktwice_worker.notifications.store.receipts import Event, insert_events
from knocktwice_worker.reporting import delay_curve, rollups
from support.sent_messages import placed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_worker.services import Services

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Combination:
    """A notification with a push, a step 1 and perhaps a step 2, of which the last is looked at,
    and a receipt about one.
    """

    id: UUID
    trigger: When | None
    state: DeliveryState
    step: int
    after_step: int
    evidence: Evidence
    of_step: int

    @property
    def answered(self) -> bool:
        """What the table says."""
        return answers(self.evidence, of_step=self.of_step, trigger=self.trigger, after_step=self.after_step)

    @property
    def event(self) -> Event:
        """The row that holds the evidence: a message that was read is one with a click that names no link."""
        kind = Receipt.CLICKED if self.evidence is Evidence.READ else self.evidence
        link = f"{LINK}{self.of_step}" if self.evidence is Evidence.CLICKED and self.of_step else f"phone-{self.id}"
        return Event(str(self.id), kind, link, datetime.now(UTC), self.of_step)


def _combinations(*states: DeliveryState) -> list[Combination]:
    # A step 2 follows the push if step 1 was not needed, else step 1.
    steps = [(1, 0), (2, 0), (2, 1)]
    return [
        Combination(uuid7(), trigger, state, step, after_step, evidence, of_step)
        for trigger, state, (step, after_step), evidence, of_step in product(
            [None, *When], states or list(DeliveryState), steps, Evidence, range(3)
        )
        # Nobody reports that a push was read.
        if of_step <= step and (of_step or evidence is not Evidence.READ)
    ]


_NOTIFICATIONS = sa.text("""
INSERT INTO notifications (id, batch_id, user_id, phone, params, state) VALUES (:id, :batch, NULL, '+436601234567', '{}', 'active')
""")
_DELIVERIES = sa.text("""
INSERT INTO deliveries (notification_id, step, channel, state, trigger, due_at, wake_at, finished_at, claimed_at, after_step, number, text)
VALUES (:id, :step, :channel, :state, :trigger, now(), CASE WHEN :open THEN now() END, CASE WHEN NOT :open THEN now() END,
        CASE WHEN :state <> 'scheduled' THEN now() END, :after_step, '+436601234567', 'Hello')
""")


@pytest.fixture
def write(here: Services) -> Any:
    """A function that writes the rows of combinations."""

    def write(combinations: Sequence[Combination]) -> None:
        batch = uuid7()
        sent = {"state": "sent", "open": False, "trigger": None, "after_step": 0}
        with here.engine.begin() as conn:
            conn.execute(
                sa.text(
                    "INSERT INTO batches (id, content, plan, category, ttl, reference) VALUES (:id, :content, '[]', :c, '1 hour', '{}')"
                ),
                {"id": batch, "content": '{"template": "tea"}', "c": "transactional"},
            )
            conn.execute(_NOTIFICATIONS, [{"id": c.id, "batch": batch} for c in combinations])
            conn.execute(_DELIVERIES, [{**sent, "id": c.id, "step": 0, "channel": "push"} for c in combinations])
            if second := [{**sent, "id": c.id, "step": 1, "channel": "sms"} for c in combinations if c.step == 2]:
                conn.execute(_DELIVERIES, second)
            conn.execute(
                _DELIVERIES,
                [
                    {
                        "id": c.id,
                        "step": c.step,
                        "channel": "sms",
                        "state": c.state.value,
                        "open": c.state in OPEN,
                        "trigger": c.trigger,
                        "after_step": c.after_step,
                    }
                    for c in combinations
                ],
            )

    return write


def _receive(here: Services, combinations: Sequence[Combination]) -> None:
    with here.engine.begin() as conn:
        store.settle_receipts(conn, insert_events(conn, [c.event for c in combinations]))


def _states(here: Services, combinations: Sequence[Combination]) -> list[str]:
    query = sa.text("SELECT notification_id, step, state FROM deliveries")
    with here.engine.connect() as conn:
        found = {(str(row.notification_id), row.step): row.state for row in conn.execute(query)}
    return [found[str(c.id), c.step] for c in combinations]


def test_a_receipt_ends_the_steps_that_the_table_names_and_no_sender_has(here: Services, write: Any) -> None:
    combinations = _combinations()
    write(combinations)
    _receive(here, combinations)
    waiting = (DeliveryState.SCHEDULED, DeliveryState.RESERVED)
    expected = ["skipped" if c.state in waiting and c.answered else c.state for c in combinations]
    assert _states(here, combinations) == expected


def test_a_message_is_wasted_if_the_table_names_an_earlier_steps_receipt(here: Services, write: Any) -> None:
    combinations = [c for c in _combinations() if c.step == 1 or c.trigger is not None]
    write(combinations)
    _receive(here, combinations)
    query = sa.text("SELECT notification_id, step FROM decisions WHERE verdict = 'wasted_sms'")
    with here.engine.connect() as conn:
        noted = {(str(row.notification_id), row.step) for row in conn.execute(query)}
    assert noted == {
        (str(c.id), c.step) for c in combinations if c.state is DeliveryState.SENT and c.answered and c.of_step < c.step
    }


@pytest.mark.parametrize("state", [DeliveryState.SCHEDULED, DeliveryState.RESERVED])
def test_what_the_table_names_is_neither_reserved_nor_claimed(here: Services, write: Any, state: DeliveryState) -> None:
    combinations = _combinations(state)
    write(combinations)
    # As after a receipt whose transaction commits at this very moment.
    with here.engine.begin() as conn:
        insert_events(conn, [c.event for c in combinations])
    ids = [str(c.id) for c in combinations]
    with here.engine.begin() as conn:
        if state is DeliveryState.SCHEDULED:
            wanted = [store.Reservation(i, "+436601234567", "Hello", b"1") for i in ids]
            won = store.reserve(conn, wanted, MINUTE)
        else:
            won = set(store.claim_steps(conn, placed(ids), MINUTE)[0])
    assert won == {str(c.id) for c in combinations if not c.answered}


def test_the_decision_agrees_with_the_table(here: Services, write: Any) -> None:
    combinations = _combinations(DeliveryState.SCHEDULED)
    write(combinations)
    with here.engine.begin() as conn:
        insert_events(conn, [c.event for c in combinations])
        due = {row.notification_id: row for row in store.due(conn, [str(c.id) for c in combinations])}
    for c in combinations:
        # Only the step right after the push waits for disabled notifications; a step without a trigger follows nothing.
        if c.trigger in (None, When.NOTIFICATIONS_DISABLED):
            continue
        row = due[str(c.id)]
        seen = Facts(
            when=row.trigger,
            before=row.before,
            delivered=row.delivered is not None,
            clicked=row.clicked is not None,
            read=row.read is not None,
            seen=row.seen is not None,
            replied=row.replied is not None,
            follows_push=row.after_step == 0,
        )
        assert (decide(seen) is Verdict.REACHED_IN_TIME) is c.answered
        if c.trigger in FOLLOW_UPS:
            trigger = TRIGGERS[c.trigger]
            counts = c.evidence is not Evidence.DELIVERED or c.of_step >= c.after_step
            asked = c.evidence in trigger.follows and counts
            assert decide(seen) is (trigger.followed if asked else Verdict.NO_RECEIPT), c


def test_the_roll_ups_count_as_wasted_what_the_table_names(
    here: Services, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_feed, "_MARGIN", timedelta(microseconds=1))
    combinations = [c for c in _combinations() if c.step == 1 and c.of_step == 0]
    write(combinations)
    _receive(here, combinations)
    rollups.refresh(here.engine, "UTC", everything=True)
    with here.engine.connect() as conn:
        counted = conn.execute(sa.text("SELECT sum(sms_wasted) FROM rollups")).scalar_one()
    wasted = [c for c in combinations if c.state is DeliveryState.SENT and c.answered]
    assert wasted
    assert counted == len(wasted)


def test_the_delay_curve_takes_the_receipts_that_the_table_names(here: Services, write: Any) -> None:
    combinations = [c for c in _combinations(DeliveryState.SENT) if c.step == 1 and c.of_step == 0]
    write(combinations)
    _receive(here, combinations)
    with here.engine.begin() as conn:
        start = conn.execute(
            sa.text("SELECT date_bin('5 minutes', min(created_at), 'epoch') FROM notifications")
        ).scalar_one()
        given = {
            "starts_at": [start, start + rollups.SLICE],
            "width": rollups.SLICE,
            "template": "tea",
            "project": None,
            "most": 10_000,
        }
        spans = {"first": [str(UUID(int=0))], "last": [str(UUID(int=2**128 - 1))], "most_rows": 10_000}
        no_blasts = {"blasts": [], "since": start, "until": start + 2 * rollups.SLICE}
        by_time = conn.execute(delay_curve._PUSHES_BY_TIME, given).all()
        by_id = conn.execute(delay_curve._PUSHES_BY_ID, {**given, **spans, **no_blasts}).all()
    found, same = (
        sorted((row.trigger, row.answered_s is not None) for row in rows if row.trigger is not None)
        for rows in (by_time, by_id)
    )
    assert found == same
    # A trigger that no receipt answers has no curve.
    judged = [c for c in combinations if any(o.answered for o in combinations if o.trigger == c.trigger)]
    assert found == sorted((str(c.trigger), c.answered) for c in judged)


def test_a_notification_that_a_receipt_ended_was_reached(here: Services, write: Any) -> None:
    combinations = [c for c in _combinations(DeliveryState.SCHEDULED) if c.answered]
    write(combinations)
    _receive(here, combinations)
    with here.engine.connect() as conn:
        ends = set(conn.scalars(sa.text("SELECT state FROM notifications")))
    assert ends == {NotificationState.REACHED}
