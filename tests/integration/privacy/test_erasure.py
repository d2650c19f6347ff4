"""A person who is erased is nowhere: not in any table, not in Redis, not when old messages arrive late. Counts stay."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import (
    ConsentSet,
    DeviceRegistered,
    PhoneBound,
    Receipt,
    ReceiptEvent,
    TagsSet,
    UserErased,
    parse_batch,
    parse_blast,
)
from knocktwice_shared.names import key_name
from knocktwice_worker.audience import hwids, inbound_texts, opt_outs
from knocktwice_worker.audience import people as audience
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.audience.opt_out_words import Wish
from knocktwice_worker.blasts import expansion, request
from knocktwice_worker.channels.reports import StatusReport
from knocktwice_worker.database.schema import metadata
from knocktwice_worker.lifecycle import AttemptState, DeliveryState, ProviderState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.notifications.store import provider_reports
from knocktwice_worker.privacy import erasure, notifications
from knocktwice_worker.webhooks import endpoints, events
from support.sent_messages import placed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_shared.messages import AudienceChange
    from knocktwice_worker.services import Services
    from support.clock import Clock

ADA, BOB = "user-ADA", "user-BOB"
ADAS, BOBS = "+16505550181", "+16505550182"
#: After Ada was erased, if that was some seconds before.
LATER = datetime.now(UTC) - timedelta(seconds=30)
#: All by which somebody could tell that it was Ada.
SECRETS = (ADA, ADAS, ADAS[1:], "reg-ADA", "Lovelace")


class Town:
    """Two people, and what happens to them, by the worker's own functions."""

    def __init__(self, here: Services, clock: Clock) -> None:
        self.here, self.clock = here, clock

    def say(self, *changes: AudienceChange) -> None:
        """Take up changes as the worker's task does."""
        with self.here.engine.begin() as conn:
            valid = self.here.guard.still_valid(conn, changes)
            audience.apply(conn, valid)
            self.here.guard.restore_opt_outs(conn, valid)
        self.here.erasure.erase_all(changes)

    def settle(self, at: datetime) -> None:
        """Erase Ada to the end, as the sweep brings the message back."""
        with pytest.raises(erasure.Unsettled):
            self.say(UserErased(ADA, at))
        self.clock.advance(erasure.SETTLED)
        self.say(UserErased(ADA, at))

    def wire(self, *people: dict[str, Any], after: float = 0, when: str = "not_clicked") -> dict[str, Any]:
        return {
            "v": 1,
            "id": str(uuid7()),
            # What is written for one person alone may name them.
            "content": {
                "push": {
                    "title": "For Lovelace" if len(people) == 1 else "For all",
                    "body": "Dear {{ user.tags.name | default: name }}",
                },
                "sms": {"text": "Lovelace!" if len(people) == 1 else "All!"},
            },
            "plan": [{"channel": "sms", "when": when, "after_s": after}],
            "reference": {"customer": "Lovelace"} if len(people) == 1 else {},
            "recipients": [{"id": str(uuid7()), "params": {"name": "Lovelace"}} | person for person in people],
        }

    def send(self, *people: dict[str, Any], after: float = 0, when: str = "not_clicked") -> list[str]:
        batch = parse_batch(self.wire(*people, after=after, when=when))
        self.here.pushes.send(self.here.guard.without_erased(batch))
        return [str(r.id) for r in batch.recipients]

    def text(self, ids: Sequence[str]) -> None:
        self.here.later_steps.send(self.here.fallback.check(ids))

    def states(self) -> dict[tuple[str, str], int]:
        rows = self.rows(
            "SELECT n.state, d.state, count(*) FROM notifications n JOIN deliveries d ON n.id = notification_id AND step = 1 GROUP BY 1, 2"
        )
        return {(notification, delivery): count for notification, delivery, count in rows}

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.here.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(sa.text(query))]

    def traces(self, secrets: Sequence[str] = SECRETS) -> list[str]:
        """Everything in any table or in Redis in which a secret stands."""
        found = [
            f"{table.name}: {row}"
            for table in metadata.sorted_tables
            for (row,) in self.rows(f"SELECT CAST(t AS text) FROM {table.name} t")  # noqa: S608 - our own tables
            if any(secret in row for secret in secrets)
        ]
        redis = self.here.redis
        for key in redis.keys("*"):
            held = f"{key!r}: {redis.dump(key)!r}"
            found += [held] if any(secret in held for secret in secrets) else []
        return found


@pytest.fixture
def town(working: Services, clock: Clock) -> Town:
    made = Town(working, clock)
    at = datetime.now(UTC) - timedelta(days=1)
    made.say(
        DeviceRegistered(ADA, "silent-reg-ADA", at),
        DeviceRegistered(ADA, "silent-reg-ADA-2", at),
        DeviceRegistered(BOB, "silent-bob", at),
        PhoneBound(ADA, ADAS, at),
        PhoneBound(BOB, BOBS, at),
        TagsSet(ADA, {"name": "Lovelace"}, at, locale="de-AT"),
        TagsSet(BOB, {"name": "Babbage"}, at),
        ConsentSet(ADA, True, "Lovelace's form", at),
    )
    return made


def _live(town: Town) -> None:
    """Let all kinds of things happen to Ada and to Bob."""
    (clicked,) = town.send({"user": ADA, "key": "key-Lovelace"})
    with town.here.engine.begin() as conn:
        now = datetime.now(UTC)
        receipts = [ReceiptEvent(UUID(clicked), kind, now, "silent-reg-ADA") for kind in Receipt]
        store.settle_receipts(
            conn,
            store.record_receipts(
                conn, [*receipts, ReceiptEvent(UUID(clicked), Receipt.CLICKED, now, "silent-reg-ADA-2")]
            ),
        )
    town.here.redis.set(key_name("key-Lovelace"), clicked)
    town.text(town.send({"user": ADA}, {"user": BOB, "params": {"name": "Babbage"}}))
    town.send({"user": ADA}, {"user": BOB, "params": {"name": "Babbage"}}, after=3600)
    # Given inline, with the number that only Ada has.
    town.send({"phone": ADAS, "registrations": ["silent-reg-ADA"], "key": "Lovelace-inline"}, after=7200)
    with town.here.engine.begin() as conn:
        parked = town.wire({"user": ADA}, {"user": BOB, "params": {"name": "Babbage"}}, {"phone": "+1 (650) 555-0181"})
        parked["content"], parked["reference"] = {"push": {"title": "t", "body": "b"}}, {}
        for payload in (json.dumps(parked), json.dumps([[parked], {}, {}]), f"no JSON, but {ADAS} in it"):
            dead_letters.park(conn, message_id="m", task="t", reason=f"test: {ADA}", payload=payload)


def test_nothing_is_left_by_which_one_could_tell_who_it_was(town: Town) -> None:
    _live(town)
    with town.here.engine.begin() as conn:
        hwids.name(conn, "phone-Lovelace", user=ADA, registration="silent-reg-ADA")
        hwids.name(conn, "phone-Babbage", user=BOB, registration="silent-bob")
    assert len(town.traces()) > 12
    before = town.states()
    assert town.here.redis.exists(key_name("key-Lovelace"))
    town.settle(datetime.now(UTC))
    assert town.traces() == []
    assert not town.here.redis.exists(key_name("key-Lovelace"))
    assert sum(town.states().values()) == sum(before.values()) == 6
    assert town.rows("SELECT hwid FROM hwids") == [("phone-Babbage",)]
    assert town.rows("SELECT count(*) FROM attempts") == [(9,)]
    assert town.rows("SELECT count(*) FROM dead_letters") == [(3,)]
    assert town.rows("SELECT count(*) FROM dead_letters WHERE payload LIKE '%user-BOB%'") == [(2,)]


def _blast(town: Town, key: str) -> str:
    """Start a blast to everybody."""
    content = {"push": {"title": "Tea", "body": "Now"}}
    wire = {"v": 1, "key": key, "filter": {"everyone": True}, "content": content, "category": "critical"}
    with town.here.engine.begin() as conn:
        return str(request.start(conn, parse_blast(wire)).id)


def _send_pages(town: Town, blast: str) -> None:
    for (page,) in town.rows(f"SELECT id FROM blast_pages WHERE users IS NOT NULL AND blast_id = '{blast}'"):  # noqa: S608
        town.here.expansion.send_page(str(page), lambda *_: None)


def test_nothing_is_left_in_blasts_webhooks_plans_and_what_people_wrote(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    with town.here.engine.begin() as conn:
        endpoints.add(conn, "https://shop.example/hooks", private=False)
    monkeypatch.setattr(expansion, "_TAKEN", 1)
    waiting, halfway = _blast(town, "waiting"), _blast(town, "halfway")
    while town.here.expansion.expand(waiting) is not None:
        pass
    # Her id is the place where this one goes on.
    while town.rows(f"SELECT cursor FROM blasts WHERE id = '{halfway}'") != [(ADA,)]:  # noqa: S608
        town.here.expansion.expand(halfway)
    wire = town.wire({"user": ADA}) | {
        "plan": [
            {
                "channel": "whatsapp",
                "content_sid": "HX" + "0" * 32,
                "variables": {"1": "Lovelace"},
                "when": "not_clicked",
                "after_s": 60,
            },
            {"channel": "sms", "when": "not_clicked", "after_s": 60, "text": "Lovelace!"},
        ]
    }
    town.here.pushes.send(parse_batch(wire))
    (sent,) = town.send({"user": ADA})
    town.text([sent])
    with town.here.engine.begin() as conn:
        inbound_texts.receive(conn, [InboundText("SM-in", ADAS, None)], b"test")
        provider_id = conn.execute(
            sa.text("SELECT provider_id FROM deliveries WHERE step = 1 AND state = 'sent'")
        ).scalar_one()
        provider_reports.accept(
            conn, [StatusReport("twilio", provider_id, ProviderState.UNDELIVERED, datetime.now(UTC), 30003)]
        )
        conn.execute(sa.text("UPDATE deliveries SET reason = 'taken: ' || number WHERE number IS NOT NULL"))
    town.clock.advance(timedelta(minutes=1))
    events.follow(town.here.engine)
    tables = {trace.split(":")[0] for trace in town.traces()}
    assert {"blasts", "blast_pages", "batches", "inbound_texts", "webhook_events"} <= tables

    town.settle(datetime.now(UTC) + timedelta(minutes=1))
    assert town.traces() == []
    told = town.rows("SELECT data->>'state', data->'steps' FROM webhook_events WHERE type = 'notification.finished'")
    assert [(state, steps[1]["reason"]) for state, steps in told] == [("texted", "taken")]
    assert town.rows("SELECT provider_id FROM inbound_texts") == [("SM-in",)]

    while town.here.expansion.expand(halfway) is not None:
        pass
    for blast in (waiting, halfway):
        _send_pages(town, blast)
    notified = "SELECT user_id, count(*) FROM notifications n JOIN blast_pages p ON p.id = n.batch_id GROUP BY 1"
    assert town.rows(notified) == [(BOB, 2)]
    assert town.rows("SELECT cursor FROM blasts WHERE cursor IS NOT NULL") == []


def test_a_page_that_was_read_before_an_erasure_notifies_the_others(town: Town) -> None:
    blast = _blast(town, "late")
    while town.here.expansion.expand(blast) is not None:
        pass
    with town.here.engine.begin() as conn:
        # The worker knows of her erasure before the page is cleaned.
        town.here.erased.note(conn, ADA, datetime.now(UTC) + timedelta(seconds=1), timedelta())
    _send_pages(town, blast)
    assert town.rows("SELECT user_id, state FROM notifications ORDER BY user_id NULLS LAST") == [
        (BOB, "pushed"),
        (None, "cancelled"),
    ]


def test_what_waits_is_cancelled_and_says_why_and_the_others_get_theirs(town: Town) -> None:
    _live(town)
    town.settle(datetime.now(UTC))
    cancelled = town.rows("SELECT reason, finished_at IS NOT NULL FROM notifications WHERE state = 'cancelled'")
    assert cancelled == [("erased", True)] * 2
    assert town.states()["active", "scheduled"] == 1
    assert town.rows("SELECT user_id, phone FROM notifications n WHERE state = 'active'") == [(BOB, None)]
    assert len(town.traces([BOB])) == 7


def test_what_was_written_for_all_still_reaches_the_others(town: Town) -> None:
    _, bobs = town.send({"user": ADA}, {"user": BOB, "params": {"name": "Babbage"}}, after=3600)
    town.settle(datetime.now(UTC))
    town.clock.advance(timedelta(hours=1))
    town.text([bobs])
    assert town.rows("SELECT state, number, text FROM deliveries WHERE number IS NOT NULL") == [("sent", BOBS, "All!")]


def test_messages_that_were_on_their_way_do_not_bring_the_person_back(town: Town) -> None:
    said = datetime.now(UTC) - timedelta(minutes=1)
    late, with_bob = town.wire({"user": ADA}), town.wire({"user": ADA}, {"user": BOB, "params": {"name": "Babbage"}})
    town.settle(datetime.now(UTC))
    town.say(
        DeviceRegistered(ADA, "silent-reg-ADA", said),
        PhoneBound(ADA, ADAS, said),
        TagsSet(ADA, {"name": "Lovelace"}, said),
        ConsentSet(ADA, True, "Lovelace's form", said),
    )
    for wire in (late, with_bob):
        town.here.pushes.send(town.here.guard.without_erased(parse_batch(wire)))
    assert town.traces() == []
    assert town.rows("SELECT state, count(*) FROM notifications GROUP BY 1 ORDER BY 1") == [
        ("active", 1),
        ("cancelled", 2),
    ]


def test_a_worker_that_does_not_know_yet_is_cleaned_up_after(town: Town) -> None:
    assert town.here.erased.recall([ADA]) == {}
    late = town.wire({"user": ADA})
    with pytest.raises(erasure.Unsettled):
        town.say(UserErased(ADA, datetime.now(UTC)))
    town.here.pushes.send(parse_batch(late))
    assert town.traces()
    town.settle(datetime.now(UTC))
    assert town.traces() == []


def test_what_was_begun_before_and_written_after_goes_as_well(town: Town) -> None:
    at = datetime.now(UTC) - timedelta(seconds=1)
    with pytest.raises(erasure.Unsettled):
        town.say(UserErased(ADA, at))
    # By a worker that had read of her before, into a message made after.
    town.here.pushes.send(parse_batch(town.wire({"user": ADA})))
    assert town.traces()
    town.clock.advance(erasure.SETTLED)
    town.say(UserErased(ADA, at))
    assert town.traces() == []


@pytest.mark.parametrize("has", ["a device and a number", "a number"])
def test_somebody_who_is_erased_while_their_notification_is_written_gets_nothing(town: Town, has: str) -> None:
    """The erasure has not seen the rows, and its message is carried out again only when every worker knows of it."""
    said = datetime.now(UTC) - timedelta(seconds=1)
    batch = parse_batch(town.wire({"user": ADA}))
    introduced: list[AudienceChange] = [PhoneBound(ADA, ADAS, said)]
    if has == "a device and a number":
        introduced.append(DeviceRegistered(ADA, "reg-ADA", said))

    def erase(_: sa.Connection) -> bool:
        with pytest.raises(erasure.Unsettled):
            town.say(UserErased(ADA, datetime.now(UTC)))
        # By a worker that had looked for erasures before.
        with town.here.engine.begin() as conn:
            audience.apply(conn, introduced)
        return True

    town.here.pushes.send_all([town.here.guard.without_erased(batch)], erase)
    assert town.rows("SELECT count(*) FROM attempts WHERE state = 'sent'") == [(0,)]
    town.text([str(r.id) for r in batch.recipients])
    assert town.rows("SELECT state FROM notifications") == [("cancelled",)]
    assert town.rows("SELECT count(*) FROM deliveries WHERE wake_at IS NOT NULL") == [(0,)]


def test_whoever_comes_back_is_somebody_new(town: Town) -> None:
    erased = datetime.now(UTC) - timedelta(minutes=1)
    later = erased + timedelta(seconds=30)
    # In whatever order the news comes.
    town.say(TagsSet(ADA, {"is": "back"}, later), DeviceRegistered(ADA, "silent-new", later))
    town.settle(erased)
    town.say(PhoneBound(ADA, BOBS, later))
    (id_,) = town.send({"user": ADA})
    assert town.rows("SELECT tags, locale FROM users WHERE id = 'user-ADA'") == [({"is": "back"}, None)]
    assert town.rows("SELECT registration FROM devices WHERE user_id = 'user-ADA'") == [("silent-new",)]
    assert town.rows("SELECT consented_at FROM phones WHERE user_id = 'user-ADA'") == [(None,)]
    assert town.here.fallback.check([id_]) == [id_]


def test_what_was_said_in_the_moment_of_the_erasure_is_void(town: Town) -> None:
    at = datetime.now(UTC)
    town.settle(at)
    town.say(TagsSet(ADA, {"is": "back"}, at))
    assert town.rows("SELECT id FROM users") == [(BOB,)]
    town.say(TagsSet(ADA, {"is": "back"}, at + timedelta(milliseconds=1)))
    assert town.rows("SELECT id FROM users ORDER BY id") == [(ADA,), (BOB,)]


def test_what_was_said_in_the_very_moment_and_taken_up_before_goes_as_well(town: Town) -> None:
    at = datetime.now(UTC)
    town.say(DeviceRegistered(ADA, "reg-ADA", at), PhoneBound(ADA, ADAS, at))
    town.say(TagsSet(ADA, {"is": "here"}, at), ConsentSet(ADA, True, "web", at))
    town.settle(at)
    assert town.rows("SELECT id FROM users") == [(BOB,)]
    assert town.rows("SELECT user_id FROM devices UNION SELECT user_id FROM phones") == [(BOB,)]


@pytest.mark.parametrize(
    "back",
    [DeviceRegistered(ADA, "silent-new", LATER), PhoneBound(ADA, "+16505550183", LATER)],
    ids=["device", "phone"],
)
def test_whoever_comes_back_may_be_known_by_one_thing_only(town: Town, back: AudienceChange) -> None:
    erased = LATER - timedelta(seconds=30)
    town.say(back)
    town.settle(erased)
    left = [town.rows(f"SELECT user_id FROM {table} WHERE user_id = '{ADA}'") for table in ("devices", "phones")]  # noqa: S608
    assert sorted(left) == [[], [(ADA,)]]
    assert town.rows(f"SELECT tags FROM users WHERE id = '{ADA}'") == [({},)]  # noqa: S608
    number = [(back.phone,)] if isinstance(back, PhoneBound) else []
    assert town.rows(f"SELECT number FROM phones WHERE user_id = '{ADA}'") == number  # noqa: S608


def test_whoever_comes_back_before_all_is_settled_keeps_what_is_new(town: Town) -> None:
    at, number = datetime.now(UTC) - timedelta(minutes=1), "+16505550183"
    with pytest.raises(erasure.Unsettled):
        town.say(UserErased(ADA, at))
    later = at + timedelta(seconds=30)
    town.say(PhoneBound(ADA, number, later), DeviceRegistered(ADA, "silent-new", later))
    with town.here.engine.begin() as conn:
        inbound_texts.receive(conn, [InboundText("SM-stop", number, Wish.STOP)], b"test")
    town.clock.advance(erasure.SETTLED)
    town.say(UserErased(ADA, at))
    assert town.rows(f"SELECT number FROM phones WHERE user_id = '{ADA}'") == [(number,)]  # noqa: S608
    assert town.rows(f"SELECT registration FROM devices WHERE user_id = '{ADA}'") == [("silent-new",)]  # noqa: S608
    # Who has asked for silence under the new number was not erased with it.
    assert town.rows("SELECT number FROM opt_outs") == [(number,)]


def test_whoever_comes_back_is_notified_by_a_blast_once(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expansion, "_TAKEN", 1)
    blast = _blast(town, "halfway")
    # She is the place where it goes on.
    while town.rows("SELECT cursor FROM blasts") != [(ADA,)]:
        town.here.expansion.expand(blast)
    at = datetime.now(UTC) - timedelta(minutes=1)
    later = at + timedelta(seconds=30)
    town.say(DeviceRegistered(ADA, "silent-new", later))
    # Her page is newer than her erasure: she was taken into it as the one who came back.
    town.settle(at)
    while town.here.expansion.expand(blast) is not None:
        pass
    _send_pages(town, blast)
    assert town.rows("SELECT user_id, count(*) FROM notifications GROUP BY 1 ORDER BY 1") == [(ADA, 1), (BOB, 1)]


@pytest.mark.parametrize("named", [{"registrations": ["silent-reg-ADA"]}, {"registrations": ["x", "silent-reg-ADA-2"]}])
def test_a_parked_message_that_names_only_a_device_is_emptied_of_it(town: Town, named: dict[str, Any]) -> None:
    wire = town.wire(named, {"user": BOB, "params": {"name": "Babbage"}})
    with town.here.engine.begin() as conn:
        dead_letters.park(conn, message_id="m", task="t", reason="test", payload=json.dumps(wire))
    town.settle(datetime.now(UTC))
    assert town.traces() == []
    ((left,),) = town.rows("SELECT payload FROM dead_letters")
    assert [person["user"] for person in json.loads(left)["recipients"]] == [BOB]


def test_how_often_an_erased_number_was_texted_is_forgotten_and_anybody_elses_is_not(town: Town) -> None:
    town.text(town.send({"user": ADA}, {"user": BOB}))
    counters = "{knocktwice:sms}:day:*"
    assert len(town.here.redis.keys(counters)) == 2
    town.settle(datetime.now(UTC))
    assert len(town.here.redis.keys(counters)) == 1


def test_an_opt_out_outlives_its_number_without_naming_it(town: Town) -> None:
    with town.here.engine.begin() as conn:
        opt_outs.add(conn, [ADAS, BOBS], "STOP")
    town.settle(datetime.now(UTC))
    assert town.traces() == []
    assert town.rows("SELECT number FROM opt_outs") == [(BOBS,)]
    # Given inline, then bound to somebody.
    (inline,) = town.send({"phone": ADAS})
    assert town.here.fallback.check([inline]) == []
    assert town.rows("SELECT state, reason FROM notifications") == [("suppressed", "opted_out")]
    town.say(PhoneBound("new", ADAS, datetime.now(UTC)))
    assert town.rows("SELECT number, source FROM opt_outs ORDER BY 1") == [(ADAS, "before erasure"), (BOBS, "STOP")]


def test_an_sms_that_waits_for_its_sender_respects_an_opt_out_that_is_only_a_hash(town: Town) -> None:
    now = datetime.now(UTC)
    town.say(PhoneBound(BOB, ADAS, now))
    (id_,) = town.send({"user": BOB})
    assert town.here.fallback.check([id_]) == [id_]
    # From here on it is Ada's alone.
    town.say(PhoneBound(BOB, BOBS, now + timedelta(milliseconds=1)))
    with town.here.engine.begin() as conn:
        opt_outs.add(conn, [ADAS], "STOP")
    town.settle(datetime.now(UTC))
    assert town.here.later_steps.send([id_]) == []
    assert town.rows("SELECT state, reason FROM notifications") == [("suppressed", "opted_out")]


def test_what_was_sent_to_an_older_spelling_of_the_number_goes_too(town: Town) -> None:
    mexican, older = "+525512345678", "+5215512345678"
    town.say(PhoneBound(ADA, mexican, datetime.now(UTC)))
    (id_,) = town.send({"phone": mexican})
    with town.here.engine.begin() as conn:
        conn.execute(sa.text("UPDATE notifications SET phone = :older WHERE id = :id"), {"older": older, "id": id_})
    town.settle(datetime.now(UTC))
    assert town.rows("SELECT phone FROM notifications") == [(None,)]


def test_a_start_lifts_an_opt_out_whatever_was_erased_in_between(town: Town) -> None:
    def write(wish: Wish) -> None:
        with town.here.engine.begin() as conn:
            inbound_texts.receive(conn, [InboundText(f"SM-{wish}", ADAS, wish)], town.here.guard.secret)

    write(Wish.STOP)
    town.settle(datetime.now(UTC))
    write(Wish.START)
    town.say(PhoneBound("new", ADAS, datetime.now(UTC)))
    assert town.rows("SELECT number FROM opt_outs") == []
    assert town.rows("SELECT count(*) FROM suppressions") == [(0,)]
    (id_,) = town.send({"user": "new"})
    assert town.here.fallback.check([id_]) == [id_]


def test_a_stop_after_the_erasure_holds_for_the_next_owner(town: Town) -> None:
    town.settle(datetime.now(UTC))
    with town.here.engine.begin() as conn:
        inbound_texts.receive(conn, [InboundText("SM-stop", ADAS, Wish.STOP)], town.here.guard.secret)
    town.say(PhoneBound("new", ADAS, datetime.now(UTC)))
    (id_,) = town.send({"user": "new"})
    assert town.here.fallback.check([id_]) == []


def test_an_opt_out_that_is_only_a_hash_is_found_under_another_spelling(town: Town) -> None:
    """Hashes of earlier releases are of the spelling that was bound then."""
    key, older, one = town.here.guard.secret, "+5215512345678", "+525512345678"
    with town.here.engine.begin() as conn:
        opt_outs.add(conn, [older], "STOP")
        assert opt_outs.forget(conn, [older], key) == [older]
        assert opt_outs.suppressed(conn, {one}, key) == {one}
    town.say(PhoneBound("new", older, datetime.now(UTC)))
    assert town.rows("SELECT number FROM opt_outs") == [(one,)]


def test_an_operator_can_lift_an_opt_out_that_outlived_its_number(town: Town) -> None:
    key = town.here.limits.limits.secret
    with town.here.engine.begin() as conn:
        opt_outs.add(conn, [ADAS], "STOP")
    town.settle(datetime.now(UTC))
    with town.here.engine.begin() as conn:
        assert opt_outs.suppressed(conn, {ADAS, BOBS}, key) == {ADAS}
        assert opt_outs.remove(conn, [ADAS], key) == [ADAS]
        assert opt_outs.suppressed(conn, {ADAS}, key) == set()


def test_a_number_that_somebody_else_has_too_stays_theirs(town: Town) -> None:
    town.say(PhoneBound(BOB, ADAS, datetime.now(UTC)))
    with town.here.engine.begin() as conn:
        opt_outs.add(conn, [ADAS], "STOP")
    town.send({"phone": ADAS}, after=3600)
    town.settle(datetime.now(UTC))
    assert town.rows("SELECT number FROM opt_outs") == [(ADAS,)]
    assert town.rows("SELECT phone, state FROM notifications") == [(ADAS, "active")]


def test_what_is_being_sent_is_erased_when_its_outcome_is_known(town: Town) -> None:
    (id_,) = town.send({"user": ADA})
    (reserved,) = town.here.fallback.check([id_])
    with town.here.engine.begin() as conn:
        claimed, _ = store.claim_steps(conn, placed([reserved]), timedelta(minutes=1))
    assert claimed == [id_]
    at = datetime.now(UTC)
    for _ in range(2):
        with pytest.raises(erasure.Unsettled):
            town.say(UserErased(ADA, at))
        town.clock.advance(erasure.SETTLED)
    with town.here.engine.begin() as conn:
        store.record_steps(conn, [store.StepResult(id_, DeliveryState.SENT, provider_id="SM1")])
    town.say(UserErased(ADA, at))
    assert town.traces() == []
    assert town.rows("SELECT state FROM notifications") == [("texted",)]


def test_a_push_that_is_under_way_is_erased_when_its_outcome_is_known(town: Town) -> None:
    made = parse_batch(town.wire({"user": ADA}, after=3600))
    with town.here.engine.begin() as conn:
        work = store.accept(conn, [store.Intake(made, {}, timedelta(hours=1))], lease=timedelta(minutes=1))
    assert len(work) == 2
    at = datetime.now(UTC)
    for _ in range(2):
        with pytest.raises(erasure.Unsettled):
            town.say(UserErased(ADA, at))
        town.clock.advance(erasure.SETTLED)
    assert town.states() == {("cancelled", "cancelled"): 1}
    # The answer finds what it is about.
    with town.here.engine.begin() as conn:
        results = [store.PushResult(w.notification_id, w.registration, state=AttemptState.SENT) for w in work]
        store.record_push(conn, results, retry_for=timedelta(hours=1), complete=True)
    assert town.rows("SELECT state, count(*) FROM attempts GROUP BY 1") == [("sent", 2)]
    town.say(UserErased(ADA, at))
    assert town.traces() == []


def test_an_answer_that_comes_after_the_erasure_writes_no_device_down(town: Town) -> None:
    made = parse_batch(town.wire({"user": ADA}, after=3600))
    lease = timedelta(minutes=1)
    with town.here.engine.begin() as conn:
        work = store.accept(conn, [store.Intake(made, {}, timedelta(hours=1))], lease=lease)
    # Its worker stands still for longer than its lease.
    town.clock.advance(lease)
    with town.here.engine.begin() as conn:
        store.ring(conn, limit=10, lease=lease)
    at = datetime.now(UTC)
    with pytest.raises(erasure.Unsettled):
        town.say(UserErased(ADA, at))
    town.clock.advance(erasure.SETTLED)
    town.say(UserErased(ADA, at))
    with town.here.engine.begin() as conn:
        results = [store.PushResult(w.notification_id, w.registration, state=AttemptState.SENT) for w in work]
        store.record_push(conn, results, retry_for=timedelta(hours=1), complete=True)
    assert town.rows("SELECT FROM attempts") == []
    assert town.traces() == []


def test_an_erasure_that_is_killed_anywhere_is_finished_by_the_next(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    _live(town)
    at = datetime.now(UTC)
    monkeypatch.setattr(notifications, "BATCH_LIMIT", 1)
    steps = 0

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        nonlocal steps
        steps -= 1
        if steps < 0:
            raise Killed

    sa.event.listen(town.here.engine, "commit", die)
    for kill_after in range(14):
        steps = kill_after
        try:
            town.say(UserErased(ADA, at))
        except (Killed, erasure.Unsettled):
            continue
    sa.event.remove(town.here.engine, "commit", die)
    town.settle(at)
    assert town.traces() == []
    assert town.rows("SELECT count(*) FROM notifications") == [(6,)]
