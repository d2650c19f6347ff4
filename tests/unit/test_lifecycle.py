"""The decision table, whole: every trigger with everything that may have happened."""

from __future__ import annotations

import itertools

import pytest

from knocktwice_shared.messages import When
from knocktwice_worker.lifecycle import (
    EDGES,
    FALL_BACK,
    FOLLOW_UPS,
    OPEN,
    TRIGGERS,
    DeliveryState,
    Facts,
    Verdict,
    decide,
)

PUSHED = DeliveryState.SENT


@pytest.mark.parametrize(
    ("when", "delivered", "clicked", "verdict"),
    [
        (When.NOT_DELIVERED, False, False, Verdict.NOT_DELIVERED),
        (When.NOT_DELIVERED, True, False, Verdict.REACHED_IN_TIME),
        (When.NOT_DELIVERED, False, True, Verdict.REACHED_IN_TIME),
        (When.NOT_DELIVERED, True, True, Verdict.REACHED_IN_TIME),
        (When.NOT_CLICKED, False, False, Verdict.NOT_CLICKED),
        (When.NOT_CLICKED, True, False, Verdict.NOT_CLICKED),
        (When.NOT_CLICKED, False, True, Verdict.REACHED_IN_TIME),
        (When.NOT_CLICKED, True, True, Verdict.REACHED_IN_TIME),
        (When.NOTIFICATIONS_DISABLED, False, False, Verdict.NOTIFICATIONS_ENABLED),
        (When.NOTIFICATIONS_DISABLED, True, True, Verdict.NOTIFICATIONS_ENABLED),
    ],
)
def test_the_trigger_decides_once_the_push_is_out(when: When, delivered: bool, clicked: bool, verdict: Verdict) -> None:
    assert decide(Facts(when=when, before=PUSHED, delivered=delivered, clicked=clicked)) is verdict


FALLING_BACK = [when for when in When if when not in FOLLOW_UPS]


@pytest.mark.parametrize("when", FALLING_BACK)
def test_a_push_that_could_not_go_out_falls_back_whatever_the_trigger(when: When) -> None:
    assert decide(Facts(when=when, before=DeliveryState.FAILED)) is Verdict.PUSH_FAILED


@pytest.mark.parametrize("when", FALLING_BACK)
def test_a_push_that_no_device_can_show_falls_back(when: When) -> None:
    assert decide(Facts(when=when, before=DeliveryState.SKIPPED)) is Verdict.NOTIFICATIONS_DISABLED


@pytest.mark.parametrize(("when", "push"), list(itertools.product(When, DeliveryState)))
def test_a_cancelled_notification_never_falls_back(when: When, push: DeliveryState) -> None:
    assert decide(Facts(when=when, before=push, cancelled=True)) is Verdict.CANCELLED


def test_a_trigger_that_nothing_has_answered_calls_for_its_step() -> None:
    assert {TRIGGERS[when].unanswered for when in FALLING_BACK} <= FALL_BACK
    assert {TRIGGERS[when].followed for when in FOLLOW_UPS} <= FALL_BACK
    assert not {TRIGGERS[when].unanswered for when in FOLLOW_UPS} & FALL_BACK


@pytest.mark.parametrize("push", [DeliveryState.SENDING, DeliveryState.SCHEDULED])
def test_notifications_disabled_waits_for_a_push_that_may_yet_fail(push: DeliveryState) -> None:
    assert decide(Facts(when=When.NOTIFICATIONS_DISABLED, before=push)) is Verdict.WAIT


def test_no_edge_leaves_a_finished_state() -> None:
    assert {before for before, _ in EDGES} == OPEN
    assert not FALL_BACK & {Verdict.REACHED_IN_TIME, Verdict.CANCELLED, Verdict.WAIT}


@pytest.mark.parametrize(
    ("before", "facts", "verdict"),
    [
        (None, {}, Verdict.FIRST_STEP),
        (DeliveryState.SENT, {}, Verdict.NOT_CLICKED),
        (DeliveryState.SENT, {"delivered": True}, Verdict.NOT_CLICKED),
        (DeliveryState.SENT, {"undelivered": True}, Verdict.UNDELIVERED),
        (DeliveryState.SENT, {"undelivered": True, "clicked": True}, Verdict.REACHED_IN_TIME),
        # The device has it, whatever the provider was told before.
        (DeliveryState.SENT, {"undelivered": True, "delivered": True}, Verdict.NOT_CLICKED),
        (DeliveryState.UNKNOWN, {}, Verdict.NOT_CLICKED),
        (DeliveryState.FAILED, {}, Verdict.STEP_FAILED),
        (DeliveryState.SKIPPED, {}, Verdict.STEP_FAILED),
        # The push before it was clicked after all.
        (DeliveryState.SKIPPED, {"clicked": True}, Verdict.REACHED_IN_TIME),
        (DeliveryState.FAILED, {"cancelled": True}, Verdict.CANCELLED),
    ],
)
def test_a_step_behind_a_message_looks_at_that_message(
    before: DeliveryState | None, facts: dict[str, bool], verdict: Verdict
) -> None:
    assert decide(Facts(When.NOT_CLICKED, before, follows_push=False, **facts)) is verdict
