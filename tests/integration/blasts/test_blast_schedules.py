"""Recurring blasts: each time once, by the clock of their zone, and what was missed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.blasts import schedules, standing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from knocktwice_worker.services import Services
    from support.clock import Clock
    from support.commands import CommandOutput

    Run = Callable[..., CommandOutput]

FILE = """
templates:
  tea_week:
    default_locale: en
    contents: {en: {push: {title: Tea, body: "{{ tea }} is cheaper."}}}
segments:
  tea: {filter: {everyone: true}}
blasts:
  fridays:
    segment: tea
    template: tea_week
    params: {tea: Assam}
    schedule: 0 18 * * fri
    time_zone: Europe/Vienna
    grace: 30m
"""
#: A Friday, 17:59 in Vienna.
BEFORE = datetime(2026, 11, 20, 16, 59, tzinfo=UTC)
KEY = "fridays 2026-11-20T17:00Z"


@pytest.fixture
def file(run: Run, clock: Clock, tmp_path: Path) -> Path:
    """The file, applied."""
    clock.set(BEFORE)
    path = tmp_path / "file.yaml"
    path.write_text(FILE)
    assert "recurring blast fridays: created" in run("apply", str(path)).out
    return path


def _keys(here: Services) -> list[str]:
    with here.engine.begin() as conn:
        return sorted(row.key for row in standing.latest(conn, 100))


@pytest.mark.usefixtures("file")
def test_however_many_beats_there_are_each_time_starts_once(here: Services, clock: Clock) -> None:
    schedules.start_due(here.engine, here.settings)
    assert _keys(here) == []
    clock.advance(timedelta(minutes=1))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: schedules.start_due(here.engine, here.settings), range(8)))
    assert _keys(here) == [KEY]
    clock.advance(timedelta(days=7))
    schedules.start_due(here.engine, here.settings)
    assert _keys(here) == [KEY, "fridays 2026-11-27T17:00Z"]


@pytest.mark.usefixtures("file")
def test_a_time_that_was_missed_is_made_up_for_within_its_grace_and_only_the_latest(
    here: Services, run: Run, clock: Clock
) -> None:
    clock.advance(timedelta(days=14, minutes=20))
    schedules.start_due(here.engine, here.settings)
    assert _keys(here) == ["fridays 2026-12-04T17:00Z"]
    clock.advance(timedelta(days=7, hours=1))
    schedules.start_due(here.engine, here.settings)
    assert _keys(here) == ["fridays 2026-12-04T17:00Z"]
    (told,) = run("blast", "list", "--json").json["recurring"]
    assert told["outcome"] == "skipped: nobody was there to start it within 30m"
    assert told["next_at"] == "2026-12-18T17:00:00+00:00"
    assert "skipped" in run("blast", "list").out


@pytest.mark.usefixtures("file")
def test_what_cannot_be_started_says_why(here: Services, run: Run, clock: Clock) -> None:
    run("template", "delete", "tea_week")
    clock.advance(timedelta(minutes=1))
    schedules.start_due(here.engine, here.settings)
    assert _keys(here) == []
    (told,) = run("blast", "list", "--json").json["recurring"]
    assert told["outcome"].startswith("failed: template: there is none called tea_week")


def test_a_change_counts_from_now_on_and_a_disabled_one_is_skipped(
    here: Services, run: Run, file: Path, clock: Clock
) -> None:
    assert "recurring blast fridays: unchanged" in run("apply", str(file)).out
    file.write_text(FILE + "    enabled: false\n")
    said = run("apply", str(file)).out
    assert "recurring blast fridays: updated" in said
    clock.advance(timedelta(minutes=1))
    schedules.start_due(here.engine, here.settings)
    assert _keys(here) == []
    assert run("blast", "unschedule", "fridays").out == "recurring blast fridays: deleted\n"


def test_the_next_three_times_are_shown_with_their_zone(run: Run, file: Path) -> None:
    times = ["2026-11-20T18:00:00+01:00", "2026-11-27T18:00:00+01:00", "2026-12-04T18:00:00+01:00"]
    said = run("apply", "--dry-run", str(file)).out.splitlines()
    assert [line for line in said if "next" in line] == [f"  next: {time}[Europe/Vienna]" for time in times]
    (shown,) = [c for c in run("apply", "--dry-run", "--json", str(file)).json["changes"] if c["name"] == "fridays"]
    assert shown["next"] == [f"{time}[Europe/Vienna]" for time in times]


@pytest.mark.usefixtures("file")
def test_a_definition_of_another_release_is_told_and_the_others_start(here: Services, run: Run, clock: Clock) -> None:
    with here.engine.begin() as conn:
        conn.execute(
            text("""
            INSERT INTO blast_schedules (name, definition, next_at)
            SELECT 'a', definition || '{"schedule": "0 18 * * fri;sat"}', next_at FROM blast_schedules
        """)
        )
    clock.advance(timedelta(minutes=1))
    schedules.start_due(here.engine, here.settings)
    assert _keys(here) == [KEY]
    told = {each["name"]: each for each in run("blast", "list", "--json").json["recurring"]}
    assert told["a"]["outcome"].startswith("failed: a.schedule: day of the week 'fri;sat' is not understood")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schedule": "60 18 * * *"}, "x.schedule: minute '60' is not understood"),
        ({"schedule": "0 18 * *"}, "x.schedule: must be five fields"),
        ({"schedule": "0 0 30 2 *"}, "x.schedule: names a day that does not come for years"),
        ({"time_zone": "Vienna"}, "x.time_zone: 'Vienna' is not a time zone such as Europe/Vienna"),
        ({"template": ""}, "x.template: is empty"),
        ({"grace": "8d"}, "x.grace: must be between 0 and 7 days"),
        ({"throttle_per_min": 0}, "x.throttle_per_min: must be a whole number of people"),
        ({"every": "day"}, "x.every: is not a field of a recurring blast"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], said: str) -> None:
    right = {"segment": "tea", "template": "tea_week", "schedule": "0 18 * * *"}
    schedules.check("x", right)
    with pytest.raises(InvalidMessage) as error:
        schedules.check("x", right | change)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("schedule", "after", "times"),
    [
        # 02:30 is skipped on 29 March 2026, and comes twice on 25 October.
        ("30 2 * * *", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        ("30 2 * * *", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        ("0 0 29 2 *", "2026-01-01T00:00", ["2028-02-28T23:00", "2032-02-28T23:00"]),
        ("*/30 9-10 * * sun", "2026-11-21T12:00", ["2026-11-22T08:00", "2026-11-22T08:30", "2026-11-22T09:00"]),
    ],
)
def test_times_are_those_of_the_clock_on_the_wall(schedule: str, after: str, times: list[str]) -> None:
    made = schedules.check("x", {"segment": "s", "template": "t", "schedule": schedule, "time_zone": "Europe/Vienna"})
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    for expected in times:
        moment = made.after(moment)
        assert f"{moment:%Y-%m-%dT%H:%M}" == expected
