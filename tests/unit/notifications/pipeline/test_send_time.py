"""When a local time is, also on the days on which the clocks are changed."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from knocktwice import InvalidMessage, LocalTime, Push, Sms
from knocktwice.testing import RecordingClient
from knocktwice_shared.messages import AT_ONCE
from knocktwice_worker.notifications.pipeline.send_time import moment_in

PUSH = Push("Hello", "World")


@pytest.mark.parametrize(
    ("zone", "wall", "moment"),
    [
        ("Europe/Berlin", "2027-01-15T09:00", "2027-01-15T09:00+01:00"),
        # 02:00 to 03:00 does not exist
        ("Europe/Berlin", "2027-03-28T01:59:59", "2027-03-28T01:59:59+01:00"),
        ("Europe/Berlin", "2027-03-28T02:00", "2027-03-28T03:00+02:00"),
        ("Europe/Berlin", "2027-03-28T02:30", "2027-03-28T03:30+02:00"),
        ("Europe/Berlin", "2027-03-28T03:00", "2027-03-28T03:00+02:00"),
        # 02:00 to 03:00 comes twice
        ("Europe/Berlin", "2027-10-31T02:30", "2027-10-31T02:30+02:00"),
        ("Europe/Berlin", "2027-10-31T03:00", "2027-10-31T03:00+01:00"),
        # a change by half an hour, and a whole day that was skipped
        ("Australia/Lord_Howe", "2027-10-03T02:15", "2027-10-03T02:45+11:00"),
        ("Pacific/Apia", "2011-12-30T09:00", "2011-12-31T09:00+14:00"),
    ],
)
def test_a_time_on_the_wall_is_one_moment(zone: str, wall: str, moment: str) -> None:
    found = moment_in(ZoneInfo(zone), datetime.fromisoformat(wall))
    assert found == datetime.fromisoformat(moment)


@pytest.mark.parametrize(
    "at", [datetime.fromisoformat("2027-01-15T09:00+01:00"), LocalTime(datetime.fromisoformat("2027-01-15T09:00"))]
)
def test_a_time_travels_as_it_was_meant(at: datetime | LocalTime) -> None:
    client = RecordingClient()
    client.notify(user="u", push=PUSH, send_at=at)
    client.notify_many(["u"], template="t", send_at=at)
    assert [n.batch.send_at for n in client.notifications] == [at, at]


@pytest.mark.parametrize(
    ("at", "problem"),
    [
        (datetime.fromisoformat("2027-01-15T09:00"), "has no time zone; give one, or LocalTime"),
        ("2027-01-15T09:00+01:00", "must be a datetime with a zone or a LocalTime, not str"),
        (LocalTime(datetime.fromisoformat("0001-01-01")), "must be an ISO 8601 time without an offset"),
    ],
)
def test_a_time_that_is_none_is_refused(at: datetime, problem: str) -> None:
    with pytest.raises(InvalidMessage, match=problem) as error:
        RecordingClient().notify(user="u", push=PUSH, send_at=at)
    assert error.value.field.startswith("send_at")


def test_a_local_time_has_no_zone() -> None:
    with pytest.raises(InvalidMessage, match="one with a zone stands alone"):
        LocalTime(datetime.fromisoformat("2027-01-15T09:00+01:00"))


def test_an_sms_alone_is_sent_alone() -> None:
    client = RecordingClient()
    client.notify(phone="+16505550100", sms=Sms("Hi"))
    client.notify(user="u", template="t", push=False)
    assert [(n.batch.plan, n.batch.sms_text) for n in client.notifications] == [((AT_ONCE,), "Hi"), (None, None)]
    assert client.notifications[1].batch.sms_only
    with pytest.raises(AssertionError, match="there is no push, only an SMS"):
        _ = client.notifications[0].push


def test_no_sms_may_follow_a_template() -> None:
    client = RecordingClient()
    client.notify(user="u", template="t")
    client.notify(user="u", template="t", sms=False)
    client.notify(user="u", push=PUSH, sms=False)
    assert [n.batch.plan for n in client.notifications] == [None, (), ()]


@pytest.mark.parametrize(
    ("call", "field", "problem"),
    [
        ({"sms": Sms()}, "sms.text", "is missing"),
        ({"sms": Sms("Hi {{ name }}")}, "params.name", "is missing"),
        ({"template": "t", "push": False, "sms": False}, "sms", "is False and so is push"),
        ({"push": False}, "push", "is missing"),
    ],
)
def test_nothing_to_say_is_a_mistake(call: dict[str, object], field: str, problem: str) -> None:
    with pytest.raises(InvalidMessage, match=problem) as error:
        RecordingClient().notify(user="u", **call)  # type: ignore[arg-type]
    assert error.value.field == field
