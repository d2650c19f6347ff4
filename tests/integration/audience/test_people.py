"""Tags, consent and devices on a real PostgreSQL: the latest word counts, in whatever order the messages come."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import ConsentSet, DeviceRegistered, PhoneBound, Receipt, ReceiptEvent, TagsSet
from knocktwice_worker import tasks
from knocktwice_worker.audience import forgetting, hwids, tags
from knocktwice_worker.audience import people as audience
from knocktwice_worker.database import migrations
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_shared.messages import AudienceChange, TagValue
    from knocktwice_worker.services import Services
    from support.clock import Clock

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
STALE = timedelta(days=270)
AUSTRIAN, GERMAN = "+436601234567", "+4917612345678"


class People:
    """The audience with a transaction per call, and a look at its tables."""

    def __init__(self, here: Services) -> None:
        self.engine = here.engine

    def apply(self, *changes: AudienceChange) -> None:
        with self.engine.begin() as conn:
            audience.apply(conn, changes)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(sa.text(query))]

    def tags(self) -> object:
        return self.rows("SELECT tags FROM users WHERE id = 'ada'")[0][0]

    def consent(self) -> tuple[Any, ...]:
        return self.rows("SELECT consented_at, consent_source FROM phones WHERE user_id = 'ada'")[0]


@pytest.fixture
def people(here: Services) -> People:
    return People(here)


def minute(n: int) -> datetime:
    return AT + timedelta(minutes=n)


def tagged(n: int, **tags: TagValue) -> TagsSet:
    return TagsSet("ada", tags, minute(n))


# -- tags


def test_tags_are_merged_and_null_removes_one(people: People) -> None:
    people.apply(tagged(1, plan="gold", orders=3, likes=("tea", 7), trial=True))
    people.apply(tagged(2, plan="silver", trial=None))
    assert people.tags() == {"plan": "silver", "orders": 3, "likes": ["tea", 7]}


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_latest_word_on_each_tag_counts_in_whatever_order_the_news_comes(
    people: People, order: Sequence[int]
) -> None:
    news = [tagged(1, plan="gold", trial=True), tagged(2, orders=1), tagged(3, trial=None, plan="tin"), tagged(4, a=1)]
    for i in order:
        people.apply(news[i])
    assert people.tags() == {"plan": "tin", "orders": 1, "a": 1}


def test_locale_and_zone_stay_when_they_are_not_named_and_the_latest_counts(people: People) -> None:
    people.apply(TagsSet("ada", {}, minute(3), locale="de-AT"))
    people.apply(TagsSet("ada", {"locale": "a tag of that name"}, minute(2), locale="en", time_zone="Europe/Vienna"))
    people.apply(TagsSet("ada", {}, minute(1), time_zone="UTC"))
    assert people.rows("SELECT locale, time_zone FROM users") == [("de-AT", "Europe/Vienna")]
    assert people.tags() == {"locale": "a tag of that name"}


def test_a_change_of_tags_is_noted_with_the_databases_time(people: People, clock: Clock) -> None:
    people.apply(tagged(1, a=1))
    clock.advance(DAY)
    people.apply(tagged(2, a=2))
    assert people.rows("SELECT updated_at - created_at > interval '23 hours' FROM users") == [(True,)]


def test_a_tag_from_the_future_can_still_be_changed(people: People) -> None:
    people.apply(TagsSet("ada", {"a": 1}, datetime(2100, 1, 1, tzinfo=UTC)))
    people.apply(TagsSet("ada", {"a": 2}, datetime.now(UTC) + timedelta(minutes=1)))
    assert people.tags() == {"a": 2}


def _refused(people: People, *changes: AudienceChange) -> str:
    before = people.rows("SELECT tags, field_times FROM users")
    with pytest.raises(InvalidMessage) as refused:
        people.apply(*changes)
    assert people.rows("SELECT tags, field_times FROM users") == before, "all of it or nothing"
    return str(refused.value)


def test_one_tag_too_many_is_refused_and_none_is_lost(people: People) -> None:
    people.apply(tagged(1, **{f"t{n}": n for n in range(tags.TAGS_LIMIT)}))
    assert "changes.tags: would make 251 tags of one user; 250 at most" in _refused(people, tagged(2, more=1))
    people.apply(tagged(2, more=1, t0=None))
    people.apply(tagged(3, t1="changed"))


def test_tags_that_are_too_large_together_are_refused(people: People) -> None:
    for n in range(4):
        people.apply(tagged(1, **{f"large{n}": "x" * 4000}))
    assert f"{tags.TAGS_BYTES_LIMIT} at most" in _refused(people, tagged(2, large4="x" * 4000))


def test_names_that_come_and_go_are_bounded_and_forgotten_in_time(people: People, clock: Clock) -> None:
    clock.set(AT)
    for n in range(5):
        people.apply(tagged(-9, **{f"day{n}-{i}": 1 for i in range(200)}))
        people.apply(tagged(-8, **{f"day{n}-{i}": None for i in range(200)}))
    assert people.tags() == {}
    assert "1001 names of tags, removed ones included" in _refused(people, tagged(-7, new=1))
    clock.advance(91 * DAY)
    people.apply(TagsSet("ada", {"new": 1}, AT + 91 * DAY))
    assert people.rows("SELECT field_times - 'tags.new' FROM users") == [({},)]


def test_simultaneous_changes_of_one_person_lose_nothing(people: People) -> None:
    people.apply(tagged(0, start=True))
    barrier = threading.Barrier(4)

    def say(worker: int) -> None:
        barrier.wait()
        for i in range(25):
            people.apply(tagged(1, **{f"tag-{worker}-{i}": i}))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(say, range(4)))
    tags = people.tags()
    assert isinstance(tags, dict)
    assert len(tags) == 101


def test_a_device_knows_better_where_its_owner_is_than_the_application(people: People) -> None:
    # The device that was used last says it, however many there are and in whatever order they came.
    zones = ((3, "Asia/Tokyo"), (1, "America/Lima"), (2, "Europe/Paris"), (4, None))
    people.apply(*(DeviceRegistered("ada", f"r-{n}", minute(n), time_zone=zone) for n, zone in zones))
    people.apply(*(TagsSet(user, {}, AT, time_zone="Europe/Vienna") for user in ("ada", "bob")), tagged(1))
    people.apply(PhoneBound("cleo", GERMAN, AT))
    with people.engine.begin() as conn:
        known = store.time_zones(conn, ["ada", "bob", "cleo", "nobody"])
    assert known == {"ada": "Asia/Tokyo", "bob": "Europe/Vienna"}


def test_zone_and_locale_are_stored_as_they_are_meant(people: People) -> None:
    people.apply(
        DeviceRegistered("ada", "r-1", AT, locale="zh_CN_#Hans", time_zone="GMT+03:00"),
        DeviceRegistered("ada", "r-2", AT, locale="de_CH", time_zone="Mars/Olympus"),
        TagsSet("ada", {}, AT, locale="sr__#Latn", time_zone="W. Europe Standard Time"),
    )
    assert people.rows("SELECT locale, time_zone FROM devices ORDER BY registration") == [
        ("zh-Hans-CN", "Etc/GMT-3"),
        ("de_CH", None),
    ]
    assert people.rows("SELECT locale, time_zone FROM users") == [("sr-Latn", "Europe/Berlin")]


# -- numbers and consent


@pytest.mark.parametrize(
    ("number", "country"),
    [(AUSTRIAN, "AT"), ("+16505550100", "US"), ("+14165550100", "CA"), ("+80012345678", None), ("+999123456", None)],
)
def test_a_number_belongs_to_a_country_or_to_none(people: People, number: str, country: str | None) -> None:
    people.apply(PhoneBound("ada", number, AT))
    assert people.rows("SELECT region FROM phones") == [(country,)]


def test_consent_is_kept_with_its_time_and_source_and_can_be_withdrawn(people: People) -> None:
    people.apply(PhoneBound("ada", AUSTRIAN, AT), ConsentSet("ada", True, "form 7", minute(1)))
    assert people.consent() == (minute(1), "form 7")
    people.apply(ConsentSet("ada", False, "phone call", minute(2)))
    assert people.consent() == (None, "phone call")
    assert people.rows("SELECT number FROM phones") == [(AUSTRIAN,)]


def permuted(*changes: AudienceChange) -> list[tuple[AudienceChange, ...]]:
    return list(itertools.permutations(changes))


@pytest.mark.parametrize(
    "news",
    permuted(
        ConsentSet("ada", True, "sign-up", minute(1)),
        PhoneBound("ada", AUSTRIAN, minute(2)),
        PhoneBound("ada", AUSTRIAN, minute(3)),
    ),
)
def test_consent_may_come_before_the_number(people: People, news: Sequence[AudienceChange]) -> None:
    for change in news:
        people.apply(change)
    assert people.consent() == (minute(1), "sign-up")
    assert people.rows("SELECT number, region FROM phones") == [(AUSTRIAN, "AT")]


@pytest.mark.parametrize(
    "news", permuted(ConsentSet("ada", True, "form 7", minute(2)), PhoneBound("ada", AUSTRIAN, minute(1)))
)
def test_a_number_that_arrives_after_the_consent_given_for_it_is_bound(
    people: People, news: Sequence[AudienceChange]
) -> None:
    for change in news:
        people.apply(change)
    assert people.consent() == (minute(2), "form 7")
    assert people.rows("SELECT number FROM phones") == [(AUSTRIAN,)]


@pytest.mark.parametrize(
    "news",
    permuted(
        ConsentSet("ada", True, "form 7", minute(1)),
        ConsentSet("ada", False, "phone call", minute(2)),
        ConsentSet("ada", True, "form 8", minute(3)),
    ),
)
def test_the_latest_word_on_consent_counts(people: People, news: Sequence[AudienceChange]) -> None:
    for change in news:
        people.apply(change)
    assert people.consent() == (minute(3), "form 8")


@pytest.mark.parametrize("number", [GERMAN, None])
@pytest.mark.parametrize("consent_first", [True, False])
def test_another_number_ends_the_consent_that_was_given_before(
    people: People, number: str | None, consent_first: bool
) -> None:
    people.apply(PhoneBound("ada", AUSTRIAN, minute(1)))
    news: list[AudienceChange] = [ConsentSet("ada", True, "form 7", minute(2)), PhoneBound("ada", number, minute(3))]
    for change in news if consent_first else news[::-1]:
        people.apply(change)
    assert people.consent() == (None, "number changed")


@pytest.mark.parametrize("consent_first", [True, False])
def test_consent_given_after_the_number_changed_is_for_the_new_number(people: People, consent_first: bool) -> None:
    people.apply(PhoneBound("ada", AUSTRIAN, minute(1)))
    news: list[AudienceChange] = [ConsentSet("ada", True, "form 7", minute(3)), PhoneBound("ada", GERMAN, minute(2))]
    for change in news if consent_first else news[::-1]:
        people.apply(change)
    assert people.consent() == (minute(3), "form 7")


def test_the_same_number_again_keeps_the_consent(people: People) -> None:
    people.apply(PhoneBound("ada", AUSTRIAN, minute(1)))
    people.apply(ConsentSet("ada", True, "form 7", minute(2)))
    people.apply(PhoneBound("ada", AUSTRIAN, minute(3)))
    assert people.consent() == (minute(2), "form 7")


# -- housekeeping


def _forget(people: People, stale: timedelta = STALE) -> None:
    with people.engine.begin() as conn:
        forgetting.forget(conn, stale)


def _registrations(people: People) -> list[str]:
    return [str(r) for (r,) in people.rows("SELECT registration FROM devices ORDER BY 1")]


def test_a_device_not_seen_for_the_set_time_is_forgotten(people: People, clock: Clock) -> None:
    people.apply(DeviceRegistered("ada", "old", AT))
    clock.set(AT + STALE - timedelta(minutes=1))
    people.apply(DeviceRegistered("ada", "young", AT + DAY))
    _forget(people)
    assert _registrations(people) == ["old", "young"]
    clock.advance(timedelta(minutes=2))
    _forget(people)
    assert _registrations(people) == ["young"]


def test_the_name_of_a_device_is_forgotten_a_day_after_its_device(people: People, clock: Clock) -> None:
    people.apply(DeviceRegistered("ada", "there", AT))
    clock.set(AT)
    with people.engine.begin() as conn:
        for name, registration in (("kept", "there"), ("lost", "gone")):
            hwids.name(conn, name, user="ada", registration=registration)
    for hours, left in ((23, {"kept", "lost"}), (25, {"kept"})):
        clock.set(AT + timedelta(hours=hours))
        _forget(people)
        with people.engine.begin() as conn:
            assert set(hwids.find(conn, ["kept", "lost"])) == left


def test_zero_keeps_every_device(people: People, clock: Clock) -> None:
    people.apply(DeviceRegistered("ada", "old", AT))
    clock.set(AT + 10 * STALE)
    _forget(people, timedelta())
    assert _registrations(people) == ["old"]


def test_a_device_that_reports_receipts_is_not_stale(people: People, clock: Clock) -> None:
    people.apply(DeviceRegistered("ada", "silent", AT), DeviceRegistered("ada", "talks", AT))
    clock.set(AT + 200 * DAY)
    seen = [ReceiptEvent(uuid4(), Receipt.DELIVERED, AT + n * DAY, "talks") for n in (100, 199)]
    anonymous = ReceiptEvent(uuid4(), Receipt.CLICKED, AT + 199 * DAY)
    with people.engine.begin() as conn:
        audience.see(conn, [*seen, anonymous])
    assert people.rows("SELECT last_seen_at FROM devices WHERE registration = 'talks'") == [(AT + 199 * DAY,)]
    clock.set(AT + 300 * DAY)
    _forget(people)
    assert _registrations(people) == ["talks"]


def test_a_receipt_from_the_future_or_the_past_moves_nothing_where_it_should_not(people: People, clock: Clock) -> None:
    clock.set(AT + 10 * DAY)
    people.apply(DeviceRegistered("ada", "a", AT + 5 * DAY))
    with people.engine.begin() as conn:
        audience.see(conn, [ReceiptEvent(uuid4(), Receipt.DELIVERED, AT, "a")])
    assert people.rows("SELECT last_seen_at FROM devices") == [(AT + 5 * DAY,)]
    with people.engine.begin() as conn:
        audience.see(conn, [ReceiptEvent(uuid4(), Receipt.DELIVERED, AT + 1000 * DAY, "a")])
    assert people.rows("SELECT last_seen_at <= knocktwice_now() FROM devices") == [(True,)]


def test_consent_without_a_number_is_kept_and_its_withdrawal_forgotten_in_the_end(people: People, clock: Clock) -> None:
    people.apply(ConsentSet("ada", True, "sign-up", AT), ConsentSet("bob", False, "letter", AT))
    clock.set(AT + 89 * DAY)
    _forget(people)
    assert people.rows("SELECT user_id FROM phones ORDER BY 1") == [("ada",), ("bob",)]
    clock.set(AT + 91 * DAY)
    _forget(people)
    assert people.rows("SELECT user_id FROM phones") == [("ada",)]


@pytest.mark.usefixtures("configured")
def test_housekeeping_uses_the_setting(people: People) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=269)
    people.apply(DeviceRegistered("ada", "old", long_ago - 2 * DAY), DeviceRegistered("ada", "young", long_ago))
    tasks.housekeeping()
    assert _registrations(people) == ["young"]


# -- migration


def test_numbers_that_are_there_get_their_country_by_the_migration(people: People) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with people.engine.connect() as conn:
        config.attributes["connection"] = conn
        command.downgrade(config, "0001")
    with people.engine.begin() as conn:
        conn.execute(sa.text("INSERT INTO users (id) VALUES ('a'), ('b'), ('c')"))
        insert = sa.text("INSERT INTO phones (user_id, number) VALUES (:user, :number)")
        for user, number in (("a", AUSTRIAN), ("b", "+80012345678"), ("c", None)):
            conn.execute(insert, {"user": user, "number": number})
    migrations.upgrade(people.engine)
    assert people.rows("SELECT user_id, region FROM phones ORDER BY 1") == [("a", "AT"), ("b", None), ("c", None)]
