"""Whom a message is about, as the contract lets it be written."""

from __future__ import annotations

from uuid import UUID

import pytest

from knocktwice_shared import subjects
from knocktwice_shared.names import Task

ID = "019a9d3c-5a00-7000-8000-00000000000a"


@pytest.mark.parametrize("spelling", [ID, ID.upper(), ID.replace("-", ""), f"urn:uuid:{ID}"])
def test_a_notification_is_one_subject_however_its_id_is_written(spelling: str) -> None:
    assert subjects.notification(spelling) == f"n:{ID}"
    assert subjects.notification(UUID(ID)) == f"n:{ID}"


def test_a_field_that_is_null_is_left_out() -> None:
    assert subjects.of(Task.CANCEL, {"v": 1, "ids": None, "keys": ["k"], "blasts": None}) == ["k:k"]
    change: dict[str, object] = {"change": "set_tags", "user": "ada", "tags": {}, "locale": None, "time_zone": None}
    assert subjects.of(Task.UPDATE_AUDIENCE, {"v": 1, "changes": [change]}) == []


def test_what_no_decision_waits_for_has_no_subject() -> None:
    assert subjects.of(Task.SEND_PUSH, {"v": 1, "recipients": [{"user": "ada"}]}) == []


def test_a_name_of_a_wrong_type_ends_no_look_for_all_problems() -> None:
    change = {"change": "register_device", "user": "u-17", "registration": 0}
    assert subjects.of(Task.UPDATE_AUDIENCE, {"changes": [change]})
