"""Quiet hours by the clock on the recipient's wall, also on the days on which it is changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from knocktwice_worker.limits.quiet_hours import QuietHours, home_of, zones_of

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
NIGHT = QuietHours.parse("21:00-08:00")


@pytest.mark.parametrize(
    ("hours", "now", "until"),
    [
        ("21:00-08:00", "2026-11-21T20:59:59+01:00", None),
        ("21:00-08:00", "2026-11-21T21:00:00+01:00", "2026-11-22T08:00:00+01:00"),
        ("21:00-08:00", "2026-11-21T23:59:59+01:00", "2026-11-22T08:00:00+01:00"),
        ("21:00-08:00", "2026-11-22T00:00:00+01:00", "2026-11-22T08:00:00+01:00"),
        ("21:00-08:00", "2026-11-22T07:59:59+01:00", "2026-11-22T08:00:00+01:00"),
        ("21:00-08:00", "2026-11-22T08:00:00+01:00", None),
        ("13:00-15:00", "2026-11-21T13:00:00+01:00", "2026-11-21T15:00:00+01:00"),
        ("13:00-15:00", "2026-11-21T14:00:00+01:00", "2026-11-21T15:00:00+01:00"),
        ("13:00-15:00", "2026-11-21T15:00:00+01:00", None),
        # the nights in which the clocks go forward and back
        ("21:00-08:00", "2026-03-28T23:59:59+01:00", "2026-03-29T08:00:00+02:00"),
        ("21:00-08:00", "2026-10-24T23:59:59+02:00", "2026-10-25T08:00:00+01:00"),
        # an end that does not exist that night is over when the clocks have skipped it
        ("21:00-02:30", "2026-03-28T23:00:00+01:00", "2026-03-29T03:30:00+02:00"),
        # one that comes twice ends the first time, and it is quiet again when the clocks go back
        ("21:00-02:30", "2026-10-25T02:00:00+02:00", "2026-10-25T02:30:00+02:00"),
        ("21:00-02:30", "2026-10-25T02:10:00+01:00", "2026-10-25T02:30:00+01:00"),
        ("", "2026-11-21T23:00:00+01:00", None),
    ],
)
def test_quiet_hours_end(hours: str, now: str, until: str | None) -> None:
    end = QuietHours.parse(hours).end_of(datetime.fromisoformat(now), [BERLIN])
    assert end == (datetime.fromisoformat(until) if until else None)


def test_who_may_be_in_several_zones_is_left_alone_until_it_is_day_in_all() -> None:
    now = datetime(2026, 11, 21, 7, 30, tzinfo=UTC)
    assert NIGHT.end_of(now, [BERLIN]) is None
    assert NIGHT.end_of(now, [BERLIN, NEW_YORK]) == datetime(2026, 11, 21, 13, 0, tzinfo=UTC)
    # Night in both, which ends in the one six hours before the other, whichever is named first.
    early = now - timedelta(hours=3)
    for zones in ([BERLIN, NEW_YORK], [NEW_YORK, BERLIN]):
        assert NIGHT.end_of(early, zones) == datetime(2026, 11, 21, 13, 0, tzinfo=UTC)


@pytest.mark.parametrize("text", ["9pm-8am", "21:00", "21:00-25:00", "night"])
def test_what_is_no_span_of_hours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        QuietHours.parse(text)


@pytest.mark.parametrize(
    ("number", "stated", "zones"),
    [
        ("+4915112345678", None, ["Europe/Berlin"]),
        ("+4915112345678", "Asia/Tokyo", ["Asia/Tokyo"]),
        ("+4915112345678", "Mars/Olympus", ["Europe/Berlin"]),
        ("+4915112345678", "../../etc/passwd", ["Europe/Berlin"]),
        ("+9991234567", None, ["Europe/Vienna"]),
    ],
)
def test_the_device_knows_best_then_the_number_then_the_default(
    number: str, stated: str | None, zones: list[str]
) -> None:
    assert [zone.key for zone in zones_of(number, stated, "Europe/Vienna")] == zones


@pytest.mark.parametrize(
    ("number", "stated", "zone"),
    [
        ("+61412345678", None, "Australia/Sydney"),
        ("+61412345678", "Australia/Perth", "Australia/Perth"),
        ("+18765551234", "Mars/Olympus", "America/Jamaica"),
        ("", None, "Europe/Vienna"),
        ("+9991234567", None, "Europe/Vienna"),
    ],
)
def test_a_local_time_is_by_one_clock(number: str, stated: str | None, zone: str) -> None:
    assert home_of(number, stated, "Europe/Vienna").key == zone
