"""The brake: a wave of people who would all be texted by mistake is seen within minutes, and their SMS wait."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.messages import Receipt
from knocktwice_worker.audience import opt_outs
from knocktwice_worker.brake import brakes, push_counts, watch
from knocktwice_worker.brake.judgement import Scope
from knocktwice_worker.config import BrakeMode
from knocktwice_worker.lifecycle import BrakeState, Delay, PushTrouble
from knocktwice_worker.notifications.pipeline import cancellation
from knocktwice_worker.notifications.store import trial_counts
from knocktwice_worker.notifications.store.braked import HeldFilter
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.services import Services
from knocktwice_worker.webhooks import endpoints, events
from support.crowd import APNS, HOUR, MINUTE, PROJECT, Crowd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from knocktwice_worker.brake.brakes import Brake
    from support.clock import Clock

ONE_SECOND = timedelta(seconds=1)


@pytest.fixture
def build(working: Services) -> Iterator[Callable[..., Services]]:
    """Makes the same installation with other settings."""
    made: list[Services] = []

    def build(**settings: Any) -> Services:
        given = {"sms_per_day": 0, "quiet_hours": "", "sms_prices": {"US": 0.01}} | settings
        made.append(Services(working.settings.model_copy(update=given)))
        return made[-1]

    yield build
    for one in made:
        one.close()


@pytest.fixture
def crowd(build: Callable[..., Services], clock: Clock) -> Crowd:
    """People whose apps have reported as usual until now."""
    built = Crowd(build(), clock)
    built.ordinary()
    return built


def on(here: Services) -> list[Brake]:
    with here.engine.connect() as conn:
        return brakes.list_all(conn)


def lapse(crowd: Crowd, count: int = 150, **fields: Any) -> list[str]:
    """Push to iPhones after their APNs key has lapsed, and let the brake look."""
    ids = crowd.push(count, "ios", "4.1", refused=APNS, **({"blast": "sale"} | fields))
    crowd.watch()
    return ids


def story(here: Services, id_: str) -> str:
    with here.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    return "\n".join(moment.sentence for moment in told.moments)


def test_a_lapsed_apns_key_holds_the_sms_of_iphones_and_of_nobody_else(crowd: Crowd) -> None:
    here = crowd.here
    iphones = crowd.push(150, "ios", "4.1", refused=APNS, blast="sale")
    androids = crowd.push(150, "android", "2.0", blast="sale too", after=MINUTE)
    crowd.report(androids, 0.92)
    # A whole wave waits until its pushes were counted, although no brake is on yet.
    assert crowd.check(iphones) == set()
    crowd.watch()
    (brake,) = on(here)
    assert (brake.kind, brake.scope, brake.state) == (PushTrouble.REFUSED, Scope(None, "ios"), BrakeState.ON)
    assert brake.why == f"100 % of ios fall back, usually 0 %: FCM refuses their pushes ({APNS})"
    crowd.clock.advance(timedelta(seconds=5))
    assert crowd.check(iphones) == set()
    assert len(crowd.check(androids)) == 12
    assert on(here)[0].held == 150
    assert crowd.ledger(iphones[0])[0][0] == "brake"
    assert f"The SMS is held by brake {brake.id} since" in story(here, iphones[0])
    assert "because 100 % of ios fall back, usually 0 %: FCM refuses their pushes" in story(here, iphones[0])


def test_no_receipts_at_all_hold_everybody_who_usually_reports(crowd: Crowd) -> None:
    everybody = crowd.push(150, "android", blast="one") + crowd.push(150, "ios", "4.1", blast="two")
    browsers = crowd.push(150, "web", "", blast="three")
    crowd.watch()
    (brake,) = on(crowd.here)
    assert (brake.kind, brake.scope) == (PushTrouble.UNDELIVERED, Scope())
    assert brake.why == (
        "100 % of all people fall back, usually 8 %: their pushes are not reported as delivered within half a minute"
    )
    crowd.clock.advance(2 * MINUTE)
    assert crowd.check(everybody) == set()
    # Browsers have never reported anything: for them it is a day like any other. But who holds all holds them, too.
    assert crowd.check(browsers) == set()


def test_a_release_that_reports_nothing_holds_its_own_people(crowd: Crowd) -> None:
    new = crowd.push(150, "ios", "4.2", blast="one")
    old = crowd.push(150, "ios", "4.1", blast="two")
    crowd.report(old, 0.92)
    crowd.watch()
    (brake,) = on(crowd.here)
    assert (brake.kind, brake.scope) == (PushTrouble.UNDELIVERED, Scope(None, "ios", "4.2"))
    crowd.clock.advance(2 * MINUTE)
    assert crowd.check(new) == set()
    assert len(crowd.check(old)) == 12


@pytest.mark.parametrize("history", [True, False])
def test_a_wrong_project_holds_everybody_on_the_first_day_too(
    build: Callable[..., Services], clock: Clock, history: bool
) -> None:
    crowd = Crowd(build(), clock)
    if history:
        crowd.ordinary()
    else:
        crowd.watch()
    ids = crowd.push(80, "ios", "4.1", refused=PROJECT, blast="one") + crowd.push(80, refused=PROJECT, blast="two")
    crowd.watch()
    assert [(b.kind, b.scope) for b in on(crowd.here)] == [(PushTrouble.REFUSED, Scope())]
    assert crowd.check(ids) == set()


def test_a_404_that_says_nothing_of_the_device_raises_the_alarm_while_pushes_are_still_tried(crowd: Crowd) -> None:
    ids = crowd.push(150, blast="sale", after=HOUR)
    reason = "FCM NOT_FOUND says nothing of the device: check KNOCKTWICE_FCM_PROJECT and KNOCKTWICE_FCM_URL"
    with crowd.here.engine.begin() as conn:
        conn.execute(
            sa.text(
                "UPDATE attempts SET state = 'open', reason = :reason WHERE notification_id = ANY(CAST(:ids AS uuid[]))"
            ),
            {"reason": reason, "ids": ids},
        )
        conn.execute(
            sa.text("""
            UPDATE deliveries SET state = 'scheduled', finished_at = NULL, wake_at = knocktwice_now() + interval '70 seconds'
            WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step = 0
            """),
            {"ids": ids},
        )
    crowd.watch()
    (brake,) = on(crowd.here)
    assert (brake.kind, brake.scope) == (PushTrouble.REFUSED, Scope(None, "android"))
    assert reason in brake.why


def test_the_first_blast_of_a_template_is_compared_with_what_its_devices_usually_report(crowd: Crowd) -> None:
    ids = crowd.push(150, template="never seen", blast="sale")
    crowd.watch()
    assert [b.scope for b in on(crowd.here)] == [Scope(None, "android")]
    assert crowd.check(ids) == set()


def test_who_falls_back_for_a_reason_of_their_own_is_not_held(crowd: Crowd) -> None:
    lapse(crowd)
    gone = crowd.push(30, "ios", "4.1", refused="unregistered: FCM UNREGISTERED", blast="other")
    crowd.watch()
    assert crowd.check(gone) == set(gone)


def test_who_has_seen_the_push_and_not_clicked_is_not_held(crowd: Crowd) -> None:
    ids = crowd.push(150, when="not_clicked", blast="sale")
    seen = crowd.report(ids, 0.04)
    crowd.watch()
    assert [b.kind for b in on(crowd.here)] == [PushTrouble.UNDELIVERED]
    crowd.clock.advance(2 * MINUTE)
    assert crowd.check(ids) == set(seen)


def test_a_released_trouble_hides_no_other(crowd: Crowd) -> None:
    lapse(crowd)
    release(crowd)
    ids = crowd.push(150, "ios", "4.1", blast="other")
    crowd.watch()
    assert [(b.kind, b.scope) for b in on(crowd.here)] == [(PushTrouble.UNDELIVERED, Scope(None, "ios"))]
    crowd.clock.advance(2 * MINUTE)
    assert crowd.check(ids) == set()


def test_a_second_device_that_works_still_counts(crowd: Crowd) -> None:
    lapse(crowd)
    (id_,) = crowd.push(1, "ios", "4.1", refused=None, blast="other")
    with crowd.here.engine.begin() as conn:
        conn.execute(sa.text("INSERT INTO devices (registration, platform) VALUES ('tablet', 'android')"))
        conn.execute(
            sa.text("INSERT INTO attempts (notification_id, registration, state) VALUES (:id, 'tablet', 'sent')"),
            {"id": id_},
        )
    crowd.clock.advance(3 * MINUTE)
    assert crowd.check([id_]) == {id_}


def test_single_messages_go_and_are_counted_unless_the_setting_says_otherwise(
    crowd: Crowd, build: Callable[..., Services]
) -> None:
    singles = lapse(crowd, blast=None)
    assert crowd.check(singles[:50]) == set(singles[:50])
    (brake,) = on(crowd.here)
    assert (brake.held, brake.passed) == (0, 50)
    assert crowd.ledger(singles[0])[0][1]["would_be_held_by_brake"] == brake.id
    holding = Crowd(build(brake_singles=BrakeMode.ON), crowd.clock)
    assert holding.check(singles[50:]) == set()
    assert on(crowd.here)[0].held == 100
    off = Crowd(build(brake_singles=BrakeMode.OFF), crowd.clock)
    fresh = off.push(1, "ios", "4.1x", refused=APNS)
    assert off.check(fresh) == set(fresh)


def test_marketing_is_held_like_a_blast(crowd: Crowd) -> None:
    ids = lapse(crowd, blast=None, category="marketing")
    assert crowd.check(ids) == set()


def test_watching_only_holds_nothing_and_says_what_it_would_have_held(
    build: Callable[..., Services], clock: Clock
) -> None:
    crowd = Crowd(build(brake=BrakeMode.WATCH), clock)
    crowd.ordinary()
    ids = lapse(crowd)
    assert crowd.check(ids) == set(ids)
    assert [(b.held, b.passed) for b in on(crowd.here)] == [(0, 150)]
    with crowd.here.engine.connect() as conn:
        assert trial_counts.read(conn, timedelta(days=1)) == {Delay.BRAKE: 150, trial_counts.ANY: 150}


def test_switched_off_nothing_is_counted(build: Callable[..., Services], clock: Clock) -> None:
    crowd = Crowd(build(brake=BrakeMode.OFF, brake_singles=BrakeMode.OFF), clock)
    ids = lapse(crowd)
    assert on(crowd.here) == []
    assert crowd.check(ids) == set(ids)
    with crowd.here.engine.connect() as conn:
        assert conn.execute(sa.text("SELECT count(*) FROM push_counts")).scalar_one() == 0


def test_a_click_a_cancellation_and_an_opt_out_end_what_is_held(crowd: Crowd) -> None:
    ids = lapse(crowd)
    crowd.check(ids)
    crowd.report(ids[:1], kind=Receipt.CLICKED)
    cancellation.cancel(crowd.here.engine, ids[1:2], [])
    assert crowd.states(ids[:2]) == {"reached: reached_in_time": 1, "cancelled: cancelled": 1}
    with crowd.here.engine.begin() as conn:
        number = conn.execute(
            sa.text("SELECT number FROM phones JOIN notifications USING (user_id) WHERE id = :id"), {"id": ids[2]}
        ).scalar_one()
        opt_outs.add(conn, [number], "sms")
    release(crowd)
    crowd.check(ids[2:])
    assert crowd.states(ids[2:3]) == {"suppressed: opted_out": 1}


def test_what_is_held_for_too_long_is_not_sent_any_more(crowd: Crowd) -> None:
    ids = lapse(crowd)
    crowd.check(ids)
    crowd.clock.advance(timedelta(days=1, seconds=5))
    with crowd.here.engine.connect() as conn:
        query = "SELECT count(*) FROM deliveries WHERE wake_at <= knocktwice_now() AND brake IS NOT NULL"
        rung = conn.execute(sa.text(query)).scalar_one()
    assert rung == 150
    assert crowd.check(ids) == set()
    assert crowd.states(ids) == {"suppressed: too_late": 150}


def release(crowd: Crowd, wanted: HeldFilter | None = None, grace: timedelta = HOUR) -> int:
    return brakes.release(crowd.here.engine, wanted or HeldFilter(), grace=grace, reason="the key is renewed")


def test_what_is_released_goes_the_usual_way_and_its_people_are_not_held_again_for_a_while(crowd: Crowd) -> None:
    ids = lapse(crowd)
    crowd.check(ids)
    (brake,) = on(crowd.here)
    assert release(crowd, HeldFilter(brake.id)) == 150
    assert on(crowd.here) == []
    assert crowd.check(ids) == set(ids)
    assert f"The SMS was released from brake {brake.id}: the key is renewed." in story(crowd.here, ids[0])
    again = lapse(crowd, blast="again")
    assert on(crowd.here) == []
    assert crowd.check(again) == set(again)
    # The grace is over, and the trouble is not.
    crowd.watch(HOUR)
    lapse(crowd, blast="once more")
    assert [b.scope for b in on(crowd.here)] == [Scope(None, "ios")]


def test_some_are_released_and_the_brake_stays_on_for_the_others(crowd: Crowd) -> None:
    first, second = lapse(crowd, blast="one"), lapse(crowd, blast="two")
    crowd.check(first)
    crowd.check(second)
    assert release(crowd, HeldFilter(blast="one")) == 150
    assert crowd.check(first) == set(first)
    assert crowd.check(second) == set()
    assert [b.held for b in on(crowd.here)] == [150]


def test_what_is_dropped_ends_and_the_brake_stays_on(crowd: Crowd) -> None:
    ids = lapse(crowd)
    crowd.check(ids)
    (brake,) = on(crowd.here)
    assert brakes.drop(crowd.here.engine, HeldFilter(brake.id), reason="they saw it") == 150
    assert crowd.states(ids) == {"suppressed: dropped": 150}
    assert f"An operator dropped the SMS that brake {brake.id} held: they saw it." in story(crowd.here, ids[0])
    assert [(b.state, b.held) for b in on(crowd.here)] == [(BrakeState.ON, 0)]


def test_when_the_share_is_usual_again_singles_go_and_blasts_wait_for_an_operator(
    build: Callable[..., Services], clock: Clock
) -> None:
    crowd = Crowd(build(brake_singles=BrakeMode.ON), clock)
    crowd.ordinary()
    blast, singles = lapse(crowd), crowd.push(30, "ios", "4.1", refused=APNS)
    crowd.watch()
    assert crowd.check(blast) == crowd.check(singles) == set()
    crowd.clock.advance(5 * MINUTE)
    crowd.report(crowd.push(150, "ios", "4.1"), 0.92)
    crowd.watch()
    assert [(b.state, b.held) for b in on(crowd.here)] == [(BrakeState.OVER, 150)]
    assert crowd.check(singles) == set(singles)
    assert "the share that falls back is usual again" in story(crowd.here, singles[0])
    later = crowd.push(30, "ios", "4.1", refused=APNS, blast="later")
    assert crowd.check(later) == set(later)


def test_messages_that_wait_for_their_turn_are_held_too(crowd: Crowd) -> None:
    early = crowd.push(20, "ios", "4.1", refused=APNS, blast="early")
    reserved = crowd.check(early)
    assert len(reserved) == 20
    ids = lapse(crowd)
    assert crowd.here.later_steps.send(sorted(reserved)) == []
    assert on(crowd.here)[0].held == 20
    release(crowd)
    assert len(crowd.here.later_steps.send(sorted(reserved))) == 20
    assert crowd.states(early) == {"texted: sms accepted by the provider": 20}
    assert crowd.check(ids) == set(ids)


def test_a_long_trouble_never_becomes_what_is_usual(crowd: Crowd) -> None:
    for n in range(6):
        lapse(crowd, blast=f"sale {n}")
        crowd.watch(HOUR)
    (brake,) = on(crowd.here)
    assert brake.usual == 0
    with crowd.here.engine.begin() as conn:
        push_counts.merge(conn)
        counted = conn.execute(
            sa.text("SELECT sum(refused) FROM push_counts WHERE NOT troubled AND platform = 'ios'")
        ).scalar_one()
    assert counted == 0


def test_old_counts_are_merged_and_say_the_same(crowd: Crowd) -> None:
    def totals() -> Sequence[Any]:
        with crowd.here.engine.connect() as conn:
            query = "SELECT count(*) > 3, sum(sent), sum(delivered) FROM push_counts"
            return conn.execute(sa.text(query)).one()[1:]

    before = totals()
    for span in (timedelta(hours=5), timedelta(days=3)):
        crowd.clock.advance(span)
        watch.clean(crowd.here.engine)
        assert totals() == before
    crowd.push(150)
    crowd.watch()
    assert [b.kind for b in on(crowd.here)] == [PushTrouble.UNDELIVERED]


def test_each_push_is_counted_once_however_many_workers_look(crowd: Crowd) -> None:
    ids = crowd.push(40, "android", "9.9")
    crowd.report(ids, 0.5)
    crowd.clock.advance(MINUTE)
    with crowd.here.engine.begin() as conn:
        assert push_counts.count(conn)
        # Another one finds the place taken and has nothing to do.
        watch.refresh(crowd.here.engine, watch.Rules.of(crowd.here.settings))
    crowd.watch()
    with crowd.here.engine.connect() as conn:
        found = conn.execute(sa.text("SELECT sum(sent), sum(delivered) FROM push_counts WHERE app_version = '9.9'"))
        assert tuple(found.one()) == (40, 20)


def test_a_receipt_that_comes_after_half_a_minute_does_not_count(crowd: Crowd) -> None:
    ids = crowd.push(40, "android", "9.9")
    crowd.clock.advance(timedelta(seconds=31))
    crowd.report(ids)
    crowd.watch()
    with crowd.here.engine.connect() as conn:
        query = "SELECT sum(sent), sum(delivered) FROM push_counts WHERE app_version = '9.9'"
        assert tuple(conn.execute(sa.text(query)).one()) == (40, 0)


def test_a_small_wave_waits_for_nobody(crowd: Crowd) -> None:
    ids = crowd.push(99, "ios", "4.1", refused=APNS, blast="small")
    assert crowd.check(ids) == set(ids)


@pytest.mark.parametrize("pushes", [{"refused": APNS}, {}], ids=["refused", "not reported"])
def test_a_wave_in_small_slices_waits_as_a_whole(crowd: Crowd, pushes: dict[str, str]) -> None:
    ids = crowd.push(150, "ios", "4.1", blast="sale", after=MINUTE / 2, **pushes)
    if not pushes:
        crowd.clock.advance(MINUTE / 2 + ONE_SECOND)
    for first in range(0, 150, 30):
        assert crowd.check(ids[first : first + 30]) == set()


def test_many_answered_pushes_are_no_wave(crowd: Crowd) -> None:
    crowd.report(crowd.push(150, "ios", "4.1", blast="sale"), 1.0)
    few = crowd.push(30, "ios", "4.1", refused=APNS, blast="small")
    assert crowd.check(few) == set(few)


def test_a_wave_waits_two_minutes_at_most_for_those_who_count(crowd: Crowd) -> None:
    ids = crowd.push(150, "ios", "4.1", refused=APNS, blast="sale")
    assert crowd.check(ids) == set()
    crowd.clock.advance(2 * MINUTE + ONE_SECOND)
    assert crowd.check(ids) == set(ids)


def test_ordinary_traffic_holds_nothing_and_costs_no_wait(crowd: Crowd) -> None:
    sent: list[str] = []
    for hour in range(24):
        share = 0.92 if 7 < hour < 22 else 0.65
        for platform, version in (("android", "2.0"), ("ios", "4.1")):
            ids = crowd.push(60, platform, version, template=f"small {hour % 5}")
            crowd.report(ids, share)
            sent += ids
        few = crowd.push(15, "ios", f"5.{hour}", template=f"new {hour}")
        blast = crowd.push(200, template="rarely clicked", when="not_clicked", blast=f"sale {hour}")
        crowd.report(few, share)
        crowd.report(blast, share)
        sent += few + blast
        crowd.watch()
        crowd.watch(timedelta(minutes=59))
    assert on(crowd.here) == []
    with crowd.here.engine.connect() as conn:
        assert conn.execute(sa.text("SELECT count(*) FROM brakes")).scalar_one() == 0
    assert len(crowd.check(sent[-200:])) == 200


def test_webhooks_tell_of_the_brake_and_of_its_end(crowd: Crowd) -> None:
    with crowd.here.engine.begin() as conn:
        endpoints.add(conn, "http://localhost:1/hooks", ["brake.on", "brake.released"], private=False)
    ids = lapse(crowd)
    crowd.check(ids)
    release(crowd)
    crowd.clock.advance(MINUTE)
    events.follow(crowd.here.engine)
    events.follow(crowd.here.engine)
    with crowd.here.engine.connect() as conn:
        query = (
            "SELECT v.type, v.data FROM webhook_events v JOIN webhook_deliveries d ON d.event_id = v.id ORDER BY v.id"
        )
        told = conn.execute(sa.text(query)).all()
    assert [row.type for row in told] == ["brake.on", "brake.released"]
    assert told[0].data["platform"] == "ios"
    assert told[0].data["share"] == 1
    assert told[0].data["holds"] == "blasts and marketing"
    assert told[1].data == {"brake": told[0].data["brake"], "reason": "the key is renewed"}


def test_without_a_brake_a_decision_costs_no_more_round_trips(crowd: Crowd) -> None:
    statements: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    ids = crowd.push(50, blast="sale")
    crowd.clock.advance(3 * MINUTE)
    sa.event.listen(crowd.here.engine, "before_cursor_execute", note)
    crowd.check(ids)
    assert not [s for s in statements if "UPDATE brakes" in s or "SET\n  brake =" in s or "INTO alarms" in s]


def test_doctor_warns_while_a_brake_is_on(crowd: Crowd) -> None:
    from knocktwice_worker.diagnosis.check import Level
    from knocktwice_worker.diagnosis.doctor import examine

    def check() -> tuple[Level, str]:
        return next((c.level, c.finding) for c in examine(crowd.here) if c.name == "brake")

    assert check() == (
        Level.OK,
        "none is on; one would hold blasts and marketing; with SMS pumping it would hold nothing",
    )
    crowd.check(lapse(crowd))
    level, finding = check()
    assert level is Level.WARNING
    assert "holds 150 messages" in finding
    assert "100 % of ios fall back, usually 0 %" in finding
