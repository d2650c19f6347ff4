"""Blasts, limits, deletion and what follows notifications from afar, each met by another worker at every statement."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import blast_id
from knocktwice_shared.messages import DeviceRegistered, PhoneBound, TagsSet, parse_blast
from knocktwice_worker import services
from knocktwice_worker.blasts import request, states
from knocktwice_worker.lifecycle import AttemptState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.notifications.pipeline import cancellation
from knocktwice_worker.notifications.store import change_feed
from knocktwice_worker.privacy import retention
from knocktwice_worker.reporting import rollups
from knocktwice_worker.sandbox import Answer, Rule
from knocktwice_worker.webhooks import endpoints, events
from support.interleaving import both_ways
from support.invariants import must_be_told_in_order, must_be_whole, numbers_must_agree
from support.one_notification import OneNotification
from support.scenario import CONTENT, LATER, NOW, SAID, Scenario, installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from knocktwice_shared.messages import Batch
    from knocktwice_worker.embedded.servers import Servers
    from support.interleaving import Interleaver

_numbers = itertools.count(1)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def scenario(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    """One installation for all, in which nobody is erased and nothing deleted."""
    with installed(servers, tmp_path_factory.mktemp("home")) as built:
        yield built


@pytest.fixture(scope="module")
def between(scenario: Scenario) -> Iterator[Interleaver]:
    with scenario.meetings() as meetings:
        yield meetings


@pytest.fixture(autouse=True)
def _anew(scenario: Scenario) -> None:
    scenario.begin()


@dataclass
class Campaign:
    """A blast to two people."""

    scenario: Scenario
    key: str
    pushing: list[store.PushWork] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(blast_id(self.key))

    def start(self) -> None:
        wire = {"v": 1, "key": self.key, "content": CONTENT, "plan": LATER}
        who = {"field": "tags.likes", "op": "=", "value": self.key}
        with self.scenario.here.engine.begin() as conn:
            request.start(conn, parse_blast({**wire, "filter": who}))

    def step(self) -> None:
        self.scenario.here.expansion.step(self.id, _lose)

    def page(self) -> None:
        for (page,) in self._rows("SELECT id FROM blast_pages WHERE blast_id = :id"):
            self.scenario.here.expansion.send_page(str(page), _lose)

    def begin_page(self) -> None:
        """Have a worker write the page's notifications; the provider has not answered yet."""

        def accept(batches: Sequence[Batch], wanted: Callable[[sa.Connection], bool]) -> None:
            with self.scenario.here.engine.begin() as conn:
                assert wanted(conn)
                self.pushing += store.accept(conn, [store.Intake(b, {}, HOUR) for b in batches], lease=HOUR)

        expansion = replace(self.scenario.here.expansion, send=accept)
        for (page,) in self._rows("SELECT id FROM blast_pages WHERE blast_id = :id"):
            expansion.send_page(str(page), _lose)

    def be_refused(self) -> None:
        """The provider wants the pushes to be tried again, and their worker notes it."""
        refused = [
            store.PushResult(w.notification_id, w.registration, AttemptState.OPEN, retry_after=HOUR)
            for w in self.pushing
        ]
        with self.scenario.here.engine.begin() as conn:
            again = store.record_push(conn, refused, retry_for=HOUR)
        if again:
            with self.scenario.here.engine.begin() as conn:
                store.settle_cancelled(conn, again)

    def abort(self) -> None:
        def abort(conn: sa.Connection) -> None:
            states.abort(conn, self.key, "cancelled by the application")

        cancellation.cancel(self.scenario.here.engine, [], [], also=abort)

    def end(self) -> None:
        self.abort()
        self.step()

    def pause(self) -> None:
        with self.scenario.here.engine.begin() as conn:
            states.pause(conn, self.id, "wait")

    def resume(self) -> None:
        with self.scenario.here.engine.begin() as conn:
            states.resume(conn, self.id)

    def must_be_whole(self) -> None:
        """Everybody has one notification, or the blast was ended and what it had sent is over."""
        (state,) = self._rows("SELECT state, wake_at FROM blasts WHERE id = :id")
        told = self._rows(
            "SELECT n.user_id, n.state FROM notifications n JOIN blast_pages p ON n.batch_id = p.id WHERE p.blast_id = :id"
        )
        assert len({user for user, _ in told}) == len(told), "somebody was notified twice"
        assert all(reason != "active" for _, reason in told)
        assert tuple(state) == ("aborted", None) or (state.state == "finished" and len(told) == 2), state

    def waits(self) -> int:
        """How many of its fallbacks are still to come."""
        return len(
            self._rows(
                "SELECT FROM deliveries d JOIN notifications n ON n.id = d.notification_id "
                "JOIN blast_pages p ON n.batch_id = p.id WHERE p.blast_id = :id AND d.state = 'scheduled'"
            )
        )

    def _rows(self, query: str) -> list[Any]:
        with self.scenario.here.engine.connect() as conn:
            return list(conn.execute(sa.text(query), {"id": self.id}).all())


def _lose(*_: object) -> None:
    """A broker that loses every message: what is published is found again by the dispatcher."""


def _planned(scenario: Scenario) -> Campaign:
    campaign = Campaign(scenario, f"tea-{next(_numbers)}")
    for who in ("ada", "bob"):
        user = f"{who}-{campaign.key}"
        number = f"+1651{2_530_000 + next(_numbers)}"
        likes = TagsSet(user, {"likes": campaign.key}, SAID)
        scenario.know(DeviceRegistered(user, f"silent-{user}", SAID), PhoneBound(user, number, SAID), likes)
    return campaign


def _started(scenario: Scenario) -> Campaign:
    campaign = _planned(scenario)
    campaign.start()
    return campaign


def _expanded(scenario: Scenario) -> Campaign:
    campaign = _started(scenario)
    campaign.step()
    return campaign


def _refused(scenario: Scenario) -> Campaign:
    """One whose pushes the provider will want to be tried again."""
    campaign = _expanded(scenario)
    for who in ("ada", "bob"):
        scenario.sandbox.rule(Rule("push", match=f"silent-{who}-{campaign.key}", times=1, answer=Answer(status=503)))
    return campaign


def _under_way(scenario: Scenario) -> Campaign:
    campaign = _expanded(scenario)
    campaign.begin_page()
    return campaign


def _sent(scenario: Scenario) -> Campaign:
    campaign = _expanded(scenario)
    campaign.page()
    return campaign


def _paused(scenario: Scenario) -> Campaign:
    campaign = _expanded(scenario)
    campaign.pause()
    return campaign


CAMPAIGNS: dict[str, tuple[Callable[[Scenario], Campaign], Callable[[Campaign], None], Callable[[Campaign], None]]] = {
    "start & start": (_planned, Campaign.start, Campaign.start),
    "start & end": (_planned, Campaign.start, Campaign.end),
    "expand & expand": (_started, Campaign.step, Campaign.step),
    "expand & end": (_started, Campaign.step, Campaign.end),
    "page & page": (_expanded, Campaign.page, Campaign.page),
    "page & end": (_expanded, Campaign.page, Campaign.end),
    "page, to be tried again & end": (_refused, Campaign.page, Campaign.end),
    "answer, to be tried again & end": (_under_way, Campaign.be_refused, Campaign.end),
    "page & pause": (_expanded, Campaign.page, Campaign.pause),
    "go on & end": (_paused, Campaign.resume, Campaign.end),
    "end & end": (_sent, Campaign.end, Campaign.end),
}


@pytest.mark.parametrize(("pair", "first"), both_ways(CAMPAIGNS))
def test_a_blast_reaches_everybody_once_or_ends(
    scenario: Scenario, between: Interleaver, pair: str, first: str
) -> None:
    make, left, right = CAMPAIGNS[pair]
    one, other = (left, right) if first == "left" else (right, left)
    campaigns: list[Campaign] = []

    def prepare() -> tuple[Callable[[], None], Callable[[], None]]:
        campaign = make(scenario)
        campaigns.append(campaign)
        return lambda: one(campaign), lambda: other(campaign)

    for meeting in between.every_meeting(prepare):
        assert not meeting.deadlocks
        if Campaign.end in (one, other):
            campaigns[-1].step()
            assert not campaigns[-1].waits(), meeting
    for campaign in campaigns:
        campaign.start()
        campaign.resume()
    scenario.live_on()
    for campaign in campaigns:
        campaign.must_be_whole()


@pytest.mark.parametrize("counted_in", ["Redis", "PostgreSQL"])
def test_the_same_text_to_one_number_goes_once(scenario: Scenario, between: Interleaver, counted_in: str) -> None:
    here = scenario.here if counted_in == "Redis" else _blind(scenario)
    pairs: list[tuple[OneNotification, OneNotification]] = []

    def prepare() -> tuple[Callable[[], None], Callable[[], None]]:
        one = scenario.accepted(plan=NOW)
        other = scenario.accepted(plan=NOW, number=one.number)
        pairs.append((one, other))
        return lambda: _check(here, one), lambda: _check(here, other)

    for meeting in between.every_meeting(prepare):
        assert not meeting.deadlocks
        assert sorted(case.steps()[1] for case in pairs[-1]) == ["reserved", "skipped"]
    scenario.live_on()
    assert {one.texts for one, _ in pairs} == {1}


def _check(here: services.Services, case: OneNotification) -> None:
    here.fallback.check([case.id])


def _blind(scenario: Scenario) -> services.Services:
    """The same worker, whose limits do not reach Redis. It has looked into the inbox before."""
    blind = services.Services(scenario.here.settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"}))
    blind.__dict__["engine"] = scenario.here.engine
    blind.__dict__["catch_up"] = scenario.here.catch_up
    return blind


MOMENTS: dict[str, tuple[Callable[[Scenario], OneNotification], Callable[[OneNotification], None]]] = {
    "accept": (lambda w: w.notification(plan=LATER), OneNotification.accept),
    "decide and send": (lambda w: w.accepted(plan=NOW), OneNotification.decide_and_send),
    "click": (lambda w: w.accepted(plan=LATER), OneNotification.click),
    "cancel": (lambda w: w.accepted(plan=LATER), OneNotification.cancel),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_whoever_follows_what_happens_misses_nothing(
    scenario: Scenario, between: Interleaver, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if each statement took seconds: nothing is too new to be looked at.
    monkeypatch.setattr(change_feed, "_MARGIN", timedelta(milliseconds=1))
    monkeypatch.setattr(events, "_STRIDE", timedelta(days=3_650))
    with scenario.here.engine.begin() as conn:
        conn.execute(sa.text("DELETE FROM webhook_endpoints"))
        endpoints.add(conn, "https://shop.example/hooks", private=True)
    make, operation = MOMENTS[moment]

    def look() -> None:
        events.follow(scenario.here.engine)
        rollups.refresh(scenario.here.engine, "UTC", everything=True)

    def prepare() -> tuple[Callable[[], None], Callable[[], None]]:
        case = make(scenario)
        return lambda: operation(case), look

    for meeting in between.every_meeting(prepare):
        assert not meeting.deadlocks
    scenario.live_on()
    must_be_whole(scenario)
    must_be_told_in_order(scenario)
    numbers_must_agree(scenario)


def test_erasing_somebody_and_deleting_what_is_old_wait_for_each_other(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with installed(servers, tmp_path_factory.mktemp("home")) as other, other.meetings() as meetings:
        other.begin()

        def purge() -> None:
            retention.purge(other.here.engine, timedelta(days=1))

        def prepare() -> tuple[Callable[[], None], Callable[[], None]]:
            case = other.accepted(user=True, plan=NOW)
            case.decide_and_send()
            other.clock.advance(timedelta(days=2))
            return case.erase, purge

        assert not [meeting.before[-1] for meeting in meetings.every_meeting(prepare) if meeting.deadlocks]


def test_two_people_are_erased_from_one_parked_message(scenario: Scenario, between: Interleaver) -> None:
    ada, bob = DeviceRegistered("ada", "r-ada", SAID), DeviceRegistered("bob", "r-bob", SAID)

    def erase(who: DeviceRegistered) -> None:
        dead_letters.erase(scenario.here.engine, who.user, (), [who.registration])

    def prepare() -> tuple[Callable[[], None], Callable[[], None]]:
        payload = json.dumps({"changes": [{"user": who.user, "registration": who.registration} for who in (ada, bob)]})
        with scenario.here.engine.begin() as conn:
            dead_letters.park(conn, message_id=None, task=None, reason="r", payload=payload)
        return lambda: erase(ada), lambda: erase(bob)

    for meeting in between.every_meeting(prepare):
        assert not meeting.deadlocks
        with scenario.here.engine.connect() as conn:
            assert set(conn.scalars(sa.text("SELECT payload FROM dead_letters"))) == {'{"changes": []}'}


def test_two_that_record_the_same_pushes_wait_for_each_other(scenario: Scenario, between: Interleaver) -> None:
    """As after a lease that was too short: both have the answers, in whatever order."""
    cases = [scenario.notification(plan=LATER) for _ in range(3)]
    with scenario.here.engine.begin() as conn:
        intakes = [store.Intake(case.batch, {}, timedelta(hours=1)) for case in cases]
        work = store.accept(conn, intakes, lease=timedelta(minutes=1))
    results = [
        store.PushResult(w.notification_id, w.registration, state=AttemptState.REJECTED, reason="r")
        for w in sorted(work, key=lambda w: w.notification_id)
    ]

    def record(answers: list[store.PushResult]) -> None:
        with scenario.here.engine.begin() as conn:
            store.record_push(conn, answers, retry_for=timedelta(hours=1), complete=True)

    middle = sorted(case.id for case in cases)[1]
    query = "SELECT FROM attempts WHERE notification_id = :id FOR UPDATE"
    assert not between.all_at_once([lambda: record(results), lambda: record(results[::-1])], query, id=middle)
    scenario.live_on()
    must_be_whole(scenario)


def test_a_number_that_was_bound_at_night_is_not_woken(scenario: Scenario, between: Interleaver) -> None:
    """Held for the night and clicked at the same moment: whoever comes first, nobody is texted in the morning."""

    def prepare() -> tuple[Callable[[], None], Callable[[], None]]:
        now = scenario.now().astimezone(UTC)
        # Seven in the morning UTC is between 23 and 0 o'clock in California.
        night = now.replace(hour=7, minute=30) + timedelta(days=now.hour >= 7)
        scenario.clock.advance(night - now)
        case = scenario.accepted(plan=NOW, category="marketing")
        return case.check, case.click

    for meeting in between.every_meeting(prepare):
        assert not meeting.deadlocks
    scenario.live_on()
    must_be_whole(scenario)
    assert not [case.number for case in scenario.notifications if case.texts]
