"""A crontab means what every cron makes of it, or is refused with the field that is not understood."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from knocktwice_worker.notation import crontab

#: Changes by an hour, by half an hour, at midnight, and none.
ZONES = ["Europe/Vienna", "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu"]
YEAR = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)

TAKEN = """
* * * * *|*/5 * * * *|0 * * * *|0 0 * * *|0 0 1 * *|0 0 1 1 *|5 3 * * 7|0 9 * * 5-7|0 9 * * fri|0 9 * * FRI|0 9 * * mon-fri
0 9 * * fri#2|0 9 * * 5#2|0 9 * * mon#1,mon#3|0 9 * * 5L|0 9 * * 0L|0 9 * * 7L|0 9 L * *|0 9 LW * *|0 9 1,L * *|0 9 1 * mon
0 9 1-7 * mon|0 9 */2 * mon|0 9 * * */2|15,30 2 * * *|30 2 * * *|0,30 1-3 * * *|*/15 1,2,3 * * *|59 23 31 12 *|0 0 29 2 *
0 0 31 1-12/2 *|10-20/5 4 * * *|5/20 8 * * *|0 4/6 * * *|0 0 3/7 * *|0 0 * 2/3 *|0 0 * jan,mar *|0 0 * jan-mar *|0 0 * * 0
0 0 * * sun|0 0 * * 0,6|0 0 * * 1-5|0 0 1,15 * *|0 12 * * 1-5/2|1 1 1 1 1|*/60 * * * *|@daily|@Daily|@midnight|@hourly|@weekly
@monthly|@yearly|@annually|00 09 * * 05|0  9 *  * *|0 2 * * *|0 3 * 3,10 sun#1|45 1 * * *|0 0 30 2 fri|0 0 13 * fri
""".replace("\n", "|").strip("|").split("|")  # fmt: skip

REFUSED = """
0 9 * *|0 0 9 * * 5|0 9 * * fri;sat|0 9 * * friL|0 9 * * fridayx|0 9 * * friday|1-15-2 * * * *|5#x * * * *|0 9 * * fri#6
0 9 * * fri#0|0 9 * * fri#|0 9 * * #2|0 9 * * *#2|0 9 * * 1-5#2|0 9 * * 8|60 * * * *|0 24 * * *|0 0 0 * *|0 0 32 * *|0 0 * 13 *
0 0 * 0 *|-1 * * * *|0 9 * * -1|*/0 * * * *|*/61 * * * *|0 */25 * * *|0 0 */32 * *|0 9 * * */8|*/ * * * *|/5 * * * *|*/5/2 * * * *
*/2-3 * * * *|1, * * * *|,1 * * * *|1,,2 * * * *|5-1 * * * *|0 9 * * fri-mon|0 9 * * sat-sun|0 9 * * fri/2|0 9 * * 5/2|0 9 L/2 * *
0 9 LW/3 * *|0 9 L-3 * *|0 9 15W * *|0 9 ? * *|0 9 * * ?|0 9 * * L|0 9 31 2 *|0 9 30 2 *|0 9 31 4,6,9,11 *|@reboot|@never|@|@daily 5
0 9 * * \u017fun|\u0663 * * * *|\uff11 * * * *|0x5 * * * *|1.5 * * * *|1_0 * * * *|+5 * * * *|* * * * * *|H * * * *|0 9 * janx *|0 9 * * mon#1#2
R * * * *|~ * * * *|0 9 * * 5L2|0 9 * * LL|0 9 * * fri+sat|a * * * *|0 9 * * 1-|0 9 * * -5|** * * * *|0 9 1W * *
""".replace("\n", "|").strip("|").split("|")  # fmt: skip


def _year(fields: str, zone: str) -> list[datetime]:
    made = crontab.parse(fields)
    return list(takewhile(lambda moment: moment < YEAR[1], made.times(YEAR[0], ZoneInfo(zone))))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("text", [t for t in TAKEN if t.split()[1:2] != ["*"] and "hour" not in t])
def test_its_times_are_those_of_cronsim(text: str, zone: str) -> None:
    made = crontab.parse(text)
    theirs = CronSim(made.fields, YEAR[0].astimezone(ZoneInfo(zone)))
    ours = _year(text, zone)
    assert ours == [moment.astimezone(UTC) for moment in islice(theirs, len(ours))]
    assert next(theirs) >= YEAR[1]
    assert ours == sorted(set(ours))


def _written(values: set[object], every: int) -> str:
    if len(values) == every:
        return "*"
    return ",".join(
        str(v) if isinstance(v, int) and v >= 0 else _special(v)
        for v in sorted(values, key=str)
    )  # fmt: skip


def _special(value: object) -> str:
    if not isinstance(value, tuple):
        return "L" if value == CronSim.LAST else "LW"
    return f"{value[0]}L" if value[1] == CronSim.LAST else f"{value[0]}#{value[1]}"


# A star with a step restricts nothing to cron, which a set cannot say.
@pytest.mark.parametrize("text", [text for text in TAKEN if text != "0 9 */2 * mon"])
def test_what_is_taken_means_the_same_when_it_is_written_back_from_its_sets(text: str) -> None:
    made = crontab.parse(text)
    sets = CronSim(made.fields, YEAR[0])
    days, weekdays = _written(set(sets.days), 31), _written(set(sets.weekdays), 8)
    back = " ".join(
        [_written(set(sets.minutes), 60), _written(set(sets.hours), 24), days, _written(set(sets.months), 12), weekdays]
    )
    times = islice(crontab.parse(back).times(YEAR[0], ZoneInfo("UTC")), 200)
    assert list(times) == list(islice(made.times(YEAR[0], ZoneInfo("UTC")), 200))


@pytest.mark.parametrize("text", REFUSED)
def test_what_crons_read_differently_or_not_at_all_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be five fields|is not understood|is not known|does not come"):
        crontab.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 9 * * fri;sat", "day of the week 'fri;sat' is not understood; it may hold 0-7"),
        ("0 9 * * friL", "day of the week 'friL' is not understood (write 5L)"),
        ("0 9 * * fri-sun", "(a range counts upwards, and Sunday at its end is 7: fri-7)"),
        ("0 9 * * 5/2", "(write where it ends: 5-7/2)"),
        ("*/90 * * * *", "minute '*/90' is not understood (the step is longer than the field)"),
        ("@reboot", "@reboot is not known; there is @hourly, @daily"),
    ],
)
def test_the_sentence_names_the_field_and_the_remedy(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        crontab.parse(text)


@pytest.mark.parametrize(
    ("text", "zone", "after", "times"),
    [
        # The first of the month, or a Monday.
        ("0 9 1 * mon", "UTC", "2026-01-30T00:00", ["2026-02-01T09:00", "2026-02-02T09:00", "2026-02-09T09:00"]),
        # A field that begins with a star does not restrict: odd days that are Mondays.
        ("0 9 */2 * mon", "UTC", "2026-02-01T00:00", ["2026-02-09T09:00", "2026-02-23T09:00", "2026-03-09T09:00"]),
        ("0 9 * * fri#2", "UTC", "2026-01-01T00:00", ["2026-01-09T09:00", "2026-02-13T09:00", "2026-03-13T09:00"]),
        ("0 9 * * 5-7", "UTC", "2026-01-01T00:00", ["2026-01-02T09:00", "2026-01-03T09:00", "2026-01-04T09:00"]),
        # 2:00 to 2:30 is skipped.
        ("15,30 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00+11:00", ["2026-10-04T02:30", "2026-10-05T02:15"]),
        # 1:30 to 2:00 comes twice; asked in between, the second turn is no time of its own.
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-05T01:35+11:00", ["2026-04-05T01:45", "2026-04-06T01:45"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-05T01:35+10:30", ["2026-04-06T01:45", "2026-04-07T01:45"]),
    ],
)  # fmt: skip
def test_times_by_hand(text: str, zone: str, after: str, times: list[str]) -> None:
    moment = datetime.fromisoformat(after)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    found = islice(crontab.parse(text).times(moment, ZoneInfo(zone)), len(times))
    assert [f"{time.astimezone(ZoneInfo(zone)):%Y-%m-%dT%H:%M}" for time in found] == times


def test_each_time_comes_after_the_moment_it_is_asked_from() -> None:
    rng = random.Random(1)
    zone = ZoneInfo("Australia/Lord_Howe")
    for _ in range(500):
        # Around both changes of the year.
        after = rng.choice([datetime(2026, 4, 4, 12, tzinfo=UTC), datetime(2026, 10, 3, 12, tzinfo=UTC)])
        after += timedelta(seconds=rng.randrange(86_400))
        assert next(crontab.parse(rng.choice(TAKEN)).times(after, zone)) > after


@given(st.text(alphabet="0123456789*,-/#LWwlfrisunjd@ ?;", max_size=20) | st.text(max_size=30))
def test_any_text_is_taken_or_refused(text: str) -> None:
    try:
        made = crontab.parse(text)
    except ValueError:
        return
    assert crontab.parse(made.spelt) == made
