"""What happens to notifications is told: everything, in order, signed, and again until it is taken."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import blast_id, uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, Step, When, parse_batch, parse_blast
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.blasts import states
from knocktwice_worker.channels.reports import StatusReport
from knocktwice_worker.lifecycle import AttemptState, ProviderState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline import replies
from knocktwice_worker.notifications.store import provider_reports
from knocktwice_worker.services import Services
from knocktwice_worker.webhooks import addresses, endpoints, events, signing
from support.random_histories import RandomHistories
from support.sent_messages import SentMessages
from support.webhook_receiver import WebhookReceiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.clock import Clock
    from support.commands import CommandOutput

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def application() -> Iterator[WebhookReceiver]:
    """An application of the test's own."""
    with WebhookReceiver() as built:
        yield built


def add(here: Services, url: str, *wanted: str, personal: bool = False) -> str:
    with here.engine.begin() as conn:
        return endpoints.add(conn, url, wanted, personal=personal, private=False)


def tell(here: Services, clock: Clock, after: timedelta = MINUTE) -> None:
    """Let some time go by, find out what has happened, and send what is due."""
    clock.advance(after)
    events.follow(here.engine)
    while here.webhooks.send():
        pass


def accepted(here: Services, *, reference: dict[str, Any] | None = None) -> list[store.PushWork]:
    """Somebody is to get a push; return it."""
    id_ = str(uuid7())
    wire = {
        "v": 1,
        "id": str(uuid7()),
        "content": {"push": {"title": "t", "body": "secret words"}},
        "plan": [{"channel": "sms", "when": "not_clicked", "after_s": 300}],
        "reference": reference or {},
        "recipients": [{"id": id_, "registrations": ["phone-1"], "phone": "+16502530001", "key": f"key-{id_}"}],
    }
    batch = parse_batch(wire)
    with here.engine.begin() as conn:
        return store.accept(conn, [store.Intake(batch, {}, HOUR)], lease=MINUTE)


def clicked(here: Services, *, reference: dict[str, Any] | None = None) -> str:
    """Somebody clicks a push in time; return the notification's id."""
    work = accepted(here, reference=reference)
    id_ = work[0].notification_id
    with here.engine.begin() as conn:
        store.record_push(
            conn,
            [store.PushResult(w.notification_id, w.registration, state=AttemptState.SENT) for w in work],
            retry_for=HOUR,
        )
    with here.engine.begin() as conn:
        at = datetime.now(UTC)
        store.settle_receipts(
            conn, store.record_receipts(conn, [ReceiptEvent(UUID(id_), Receipt.CLICKED, at, "phone-1")])
        )
    return id_


LIFE = ["notification.accepted", "push.sent", "push.clicked", "sms.skipped", "notification.finished"]


def test_a_life_is_told_in_order_signed_and_without_personal_data(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    endpoint = add(here, application.url)
    id_ = clicked(here, reference={"order": 4711, "note": None})
    tell(here, clock)
    assert application.types() == LIFE
    verifier = Webhook(signing.key_of("test", endpoint))
    for headers, body in application.seen:
        assert verifier.verify(body, headers)["data"]["notification"] == id_
        assert headers["content-type"] == "application/json"
        for personal in (b"+1650", b"secret words", b"phone-1", b"key-"):
            assert personal not in body
    headers, body = application.seen[0]
    with pytest.raises(WebhookVerificationError):
        verifier.verify(body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(signing.key_of("test", "ep_other")).verify(body, headers)
    message_id, report = application.taken[-1]
    assert message_id == f"{id_}.0.notification.finished"
    assert (report["data"]["state"], report["data"]["reason"]) == ("reached", "reached_in_time")
    assert report["data"]["reference"] == {"order": 4711, "note": None}
    assert [(s["channel"], s["state"]) for s in report["data"]["steps"]] == [("push", "sent"), ("sms", "skipped")]


def test_a_cancellation_that_began_before_its_notification_is_told_behind_it(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    add(here, application.url)
    with here.engine.begin() as early:
        # What a transaction writes carries the time at which it began.
        early.execute(sa.text("SELECT knocktwice_now()"))
        (work,) = accepted(here)
        store.cancel(early, [work.notification_id], [], datetime.now(UTC))
    tell(here, clock)
    assert application.types() == ["notification.accepted", "sms.cancelled", "notification.finished"]


def test_what_a_blast_sent_is_told_with_its_key(here: Services, application: WebhookReceiver, clock: Clock) -> None:
    add(here, application.url, "push.clicked")
    id_ = clicked(here)
    clicked(here)
    with here.engine.begin() as conn:
        wire = {"v": 1, "key": "tea-47", "filter": {"everyone": True}, "content": {"template": "news"}}
        states.start(conn, parse_blast(wire), {"everyone": True})
        page = """INSERT INTO blast_pages (id, last_id, blast_id, count, sent_at)
          SELECT batch_id, id, :blast, 1, knocktwice_now() FROM notifications WHERE id = :id"""
        conn.execute(sa.text(page), {"blast": blast_id("tea-47"), "id": id_})
    tell(here, clock)
    blasts = {told["data"]["notification"]: told["data"].get("blast") for _, told in application.taken}
    assert len(blasts) == 2
    assert blasts.pop(id_) == "tea-47"
    assert list(blasts.values()) == [None]


def test_what_the_provider_reports_is_told_under_its_own_channel(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    post = SentMessages(here)
    whatsapp = Step("whatsapp", When.NOT_CLICKED, HOUR, content={"content_sid": "HX" + "0" * 32})
    sms = Step("sms", When.NOT_CLICKED, HOUR)
    add(here, application.url)
    post.handed_over(whatsapp)
    post.handed_over(sms, first=1)
    post.handed_over(sms, first=2)
    tell(here, clock)
    for number, state in ((0, "delivered"), (0, "read"), (1, "undelivered"), (2, "failed")):
        code = {"error": 30003} if number == 1 else {"error_text": "INVALID_NUMBER"} if number else {}
        with here.engine.begin() as conn:
            heard = StatusReport("twilio", f"SM{number}", ProviderState(state), datetime.now(UTC), **code)
            provider_reports.accept(conn, [heard])
            provider_reports.bring(conn)
        tell(here, clock)
    told = {(t["type"], t["data"].get("error")) for _, t in application.taken if t["data"].get("step")}
    assert told == {
        ("whatsapp.sent", None),
        ("sms.sent", None),
        ("whatsapp.delivered", None),
        ("whatsapp.read", None),
        ("sms.undelivered", 30003),
        ("sms.undelivered", "INVALID_NUMBER"),
    }
    assert {t for t in application.types() if t.startswith("push.")} == {"push.sent"}
    assert set(application.types()) <= set(endpoints.types())


def test_what_was_seen_elsewhere_and_what_was_replied_is_told(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    add(here, application.url)
    post = SentMessages(here)
    (id_,) = post.handed_over(Step("sms", When.NOT_ANSWERED, HOUR))
    with here.engine.begin() as conn:
        written = InboundText("SM-in", "+16505550100", None, "yes", "twilio", "sms", None)
        assert replies.receive(conn, [written], b"test", here.channels, HOUR) == [id_]
        store.record_receipts(conn, [ReceiptEvent(UUID(id_), Receipt.SEEN, datetime.now(UTC))])
    tell(here, clock)
    told = {t["type"]: t["data"] for _, t in application.taken}
    assert told["sms.replied"]["notification"] == told["inbound.text"]["notification"] == id_
    assert told["sms.replied"]["inbound"] == told["inbound.text"]["inbound"]
    assert (told["sms.replied"]["step"], told["sms.replied"]["state"]) == (1, "replied")
    assert told["notification.seen"]["notification"] == id_
    assert set(application.types()) <= set(endpoints.types())


def test_nothing_is_told_twice_and_nothing_from_before(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    clicked(here)
    clock.advance(MINUTE)
    add(here, application.url)
    tell(here, clock)
    assert application.types() == []
    clicked(here)
    tell(here, clock)
    tell(here, clock)
    assert application.types() == LIFE


def test_a_second_endpoint_is_told_nothing_from_before_it_was_there(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    with WebhookReceiver() as second:
        add(here, application.url)
        clicked(here)
        clock.advance(MINUTE)
        add(here, second.url)
        tell(here, clock)
        assert application.types() == LIFE
        assert second.types() == []


def test_an_endpoint_that_takes_nothing_is_left_alone_for_a_while(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    add(here, application.url)
    application.answer = lambda _: 500
    clicked(here)
    for _ in range(4):
        tell(here, clock, after=HOUR)
    tries = len(application.seen)
    # Not even with what happens to another notification.
    clicked(here)
    tell(here, clock)
    assert len(application.seen) == tries
    tell(here, clock, after=HOUR)
    assert len(application.seen) > tries


def test_an_endpoint_chooses_events_and_may_be_told_who(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    add(here, application.url, "notification.finished", personal=True)
    id_ = clicked(here)
    tell(here, clock)
    ((_, report),) = application.taken
    assert report["data"]["key"] == f"key-{id_}"
    assert report["data"]["phone"] == "+16502530001"


def test_what_is_refused_comes_again_and_what_follows_waits(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    endpoint = add(here, application.url)
    refused = clicked(here)
    application.answer = lambda told: (
        503 if told["type"] == "push.sent" and told["data"]["notification"] == refused else 204
    )
    tell(here, clock)
    assert application.types() == LIFE[:1]
    # Another notification does not wait for this one.
    clicked(here)
    tell(here, clock)
    assert application.types() == [*LIFE[:1], *LIFE]
    application.answer = lambda _: 204
    tell(here, clock, after=HOUR)
    assert application.types() == [*LIFE[:1], *LIFE, *LIFE[1:]]
    with here.engine.connect() as conn:
        assert endpoints.get(conn, endpoint).waiting == 0


def test_an_event_that_is_refused_for_ever_is_given_up_and_what_follows_goes_on(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    endpoint = add(here, application.url)
    refused = clicked(here)
    application.answer = lambda told: 400 if told["data"]["notification"] == refused else 204
    for _ in range(16):
        # The endpoint takes others, so it is well.
        clicked(here)
        tell(here, clock, after=timedelta(hours=7))
    bodies = [json.loads(body) for _, body in application.seen]
    told = [body["type"] for body in bodies if body["data"]["notification"] == refused]
    assert told == [*LIFE[:1] * 16, LIFE[1]]
    with here.engine.connect() as conn:
        assert endpoints.get(conn, endpoint).disabled_reason is None
    # What comes behind the one that was given up has its turn.
    application.answer = lambda _: 204
    tell(here, clock, after=timedelta(hours=7))
    assert [t["type"] for _, t in application.taken if t["data"]["notification"] == refused] == LIFE[1:]


def test_an_endpoint_that_fails_for_long_is_disabled_and_says_why(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    endpoint = add(here, application.url)
    application.answer = lambda _: 500
    clicked(here)
    for _ in range(20):
        tell(here, clock, after=timedelta(hours=7))
    with here.engine.connect() as conn:
        found = endpoints.get(conn, endpoint)
    assert found.disabled_reason
    assert found.disabled_reason.startswith("it has failed since 20")
    assert found.disabled_reason.endswith("at last: HTTP 500")
    tries = len(application.seen)
    clicked(here)
    tell(here, clock, after=timedelta(days=1))
    assert len(application.seen) == tries
    application.answer = lambda _: 204
    with here.engine.begin() as conn:
        endpoints.enable(conn, endpoint)
    tell(here, clock)
    assert application.types() == LIFE
    # What happened while it was disabled is there for a replay.
    with here.engine.begin() as conn:
        assert events.replay(conn, since=datetime(2000, 1, 1, tzinfo=UTC)) == 2 * len(LIFE)
    application.taken.clear()
    tell(here, clock)
    assert sorted(application.types()) == sorted([*LIFE, *LIFE])


def test_an_endpoint_that_is_gone_is_disabled_at_once(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    endpoint = add(here, application.url)
    application.answer = lambda _: 410
    clicked(here)
    tell(here, clock)
    with here.engine.connect() as conn:
        assert endpoints.get(conn, endpoint).disabled_reason == "it answered 410 Gone"
    asked, application.answer = len(application.seen), lambda _: 200
    # What waits for it is told when it is enabled again, and no moment earlier.
    for _ in range(3):
        tell(here, clock, HOUR)
    assert len(application.seen) == asked
    with here.engine.begin() as conn:
        endpoints.enable(conn, endpoint)
    tell(here, clock)
    assert len(application.seen) > asked


class Killed(Exception):
    """The worker is gone, and its transaction with it."""


def test_no_event_is_lost_and_all_are_in_order_after_fifty_kills(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    add(here, application.url)
    worker, left, kills = Services(here.settings), [0], 0

    def die(*_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    sa.event.listen(worker.engine, "before_cursor_execute", die)
    life = RandomHistories(here, seed=11)
    for turn in range(1000):
        if kills == 50:
            break
        for _ in range(5):
            life.step()
        clock.advance(timedelta(seconds=30))
        left[0] = turn % 8
        try:
            events.follow(worker.engine)
            while worker.webhooks.send():
                pass
        except Killed:
            kills += 1
    assert kills == 50
    worker.close()
    tell(here, clock, after=2 * MINUTE)
    with here.engine.connect() as conn:
        expected = _expected(conn)
    told: dict[str, list[str]] = defaultdict(list)
    for message_id, _ in application.taken:
        id_, _, type_ = message_id.split(".", 2)
        # A repeat after a kill has the same id: whoever takes webhooks knows it by that.
        if type_ not in told[id_]:
            told[id_].append(type_)
    # That a message is lost may be told before it is reported as delivered after all.
    certain = {id_: sorted(t for t in types if not t.endswith(".undelivered")) for id_, types in told.items()}
    assert certain == expected
    order = ["notification.accepted", "push", "sms"]
    for types in told.values():
        assert types[0] in (order[0], "notification.finished", "inbound.text")
        if "sms.sent" in types and "notification.finished" in types:
            assert types.index("sms.sent") < types.index("notification.finished")


def _expected(conn: sa.Connection) -> dict[str, list[str]]:
    """Return notification → what must have been told of it, read row by row."""
    expected: dict[str, list[str]] = defaultdict(list)
    for n in conn.execute(sa.text("SELECT * FROM notifications")):
        expected[str(n.id)] += ["notification.accepted"] if n.state != "duplicate" else []
        expected[str(n.id)] += ["notification.finished"] if n.finished_at else []
    for d in conn.execute(sa.text("SELECT * FROM deliveries WHERE finished_at IS NOT NULL")):
        expected[str(d.notification_id)].append(f"{d.channel}.{d.state}")
    kinds = """SELECT DISTINCT e.notification_id, e.kind, coalesce(d.channel, 'push') AS channel
      FROM events e JOIN notifications n ON n.id = e.notification_id
      LEFT JOIN deliveries d ON d.notification_id = n.id AND d.step = e.step AND d.step > 0 WHERE e.kind <> 'cancelled'"""
    for e in conn.execute(sa.text(kinds)):
        kind = "read" if e.kind == "clicked" and e.channel != "push" else e.kind
        of = "notification" if e.kind == "seen" else e.channel
        expected[str(e.notification_id)].append(f"{of}.{kind}")
    for one in conn.execute(sa.text("SELECT id FROM inbound_texts")):
        expected[str(one.id)].append("inbound.text")
    return {id_: sorted(types) for id_, types in expected.items()}


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("shop.example/hooks", "is not a URL"),
        ("ftp://shop.example", "is not a URL"),
        ("https://", "is not a URL"),
        ("https://shop.example:x/", "is not a URL"),
        ("https://shop.example/a b", "is not a URL"),
        ("http://shop.example/hooks", "must be https"),
        ("https://user:pass@shop.example", "holds a password"),
        ("https://10.0.0.1/", "has a private address"),
        ("https://192.168.1.1/", "has a private address"),
        ("https://169.254.169.254/latest/meta-data", "has a private address"),
        ("https://[fd00::1]/", "has a private address"),
        ("https://[::ffff:10.0.0.1]/", "has a private address"),
        ("https://0.0.0.0/", "has a private address"),
        ("https://2130706433/", "has a private address"),
    ],
)
def test_urls_that_should_not_be_called_are_refused(url: str, problem: str) -> None:
    with pytest.raises(InvalidMessage, match=problem) as refused:
        addresses.check(url, private=False)
    assert refused.value.field == "url"


def test_private_addresses_are_allowed_by_the_setting() -> None:
    addresses.check("http://10.0.0.1/", private=True)


def test_a_name_that_comes_to_mean_a_private_address_is_not_called(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    add(here, application.url)
    # Not the loopback by name, but by what it resolves to: as a name would after its owner changed it.
    elsewhere = application.url.replace("127.0.0.1", "127.0.0.2")
    with here.engine.begin() as conn:
        conn.execute(sa.text("UPDATE webhook_endpoints SET url = :url"), {"url": elsewhere})
    clicked(here)
    tell(here, clock)
    assert application.seen == []
    with here.engine.connect() as conn:
        (found,) = endpoints.list_all(conn)
    assert found.last_error
    assert found.waiting == len(LIFE)


def test_a_redirect_is_not_followed(here: Services, application: WebhookReceiver) -> None:
    endpoint = add(here, application.url)
    assert here.webhooks.test(endpoint, application.url) is None
    application.answer = lambda _: 302
    assert here.webhooks.test(endpoint, application.url) == "HTTP 302"


def test_while_a_secret_is_exchanged_the_old_and_the_new_one_verify(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    endpoint = add(here, application.url)
    for setting, valid, void in (
        (None, ["test"], ["new"]),
        # From the usual one to one of its own, then to the next.
        ("new, test", ["new", "test"], ["other"]),
        ("new", ["new"], ["test"]),
        ("newer,new", ["newer", "new"], ["test"]),
    ):
        changed = here.settings.model_copy(update={"webhook_secret": setting and SecretStr(setting)})
        there = Services(changed)
        clicked(here)
        application.seen.clear()
        tell(there, clock)
        there.close()
        assert len(application.seen) == len(LIFE)
        for headers, body in application.seen:
            for secret in valid:
                Webhook(signing.key_of(secret, endpoint)).verify(body, headers)
            for secret in void:
                with pytest.raises(WebhookVerificationError):
                    Webhook(signing.key_of(secret, endpoint)).verify(body, headers)


def test_old_events_are_forgotten(here: Services, application: WebhookReceiver, clock: Clock) -> None:
    add(here, application.url)
    clicked(here)
    tell(here, clock)
    clock.advance(timedelta(days=1))
    clicked(here)
    tell(here, clock)
    with here.engine.begin() as conn:
        events.forget(conn, timedelta(days=1))
        assert conn.execute(sa.text("SELECT count(*) FROM webhook_events")).scalar_one() == len(LIFE)


def test_the_setting_declares_endpoints_once(here: Services, application: WebhookReceiver) -> None:
    for _ in range(2):
        with here.engine.begin() as conn:
            endpoints.declare(conn, [application.url], private=False)
    with here.engine.connect() as conn:
        assert [e.url for e in endpoints.list_all(conn)] == [application.url]


def test_the_command_line(
    here: Services, application: WebhookReceiver, run: Callable[..., CommandOutput], clock: Clock
) -> None:
    added = run("webhooks", "add", application.url, "--events", "notification.finished", "--json").json
    (listed,) = run("webhooks", "list", "--json").json
    assert (listed["id"], listed["url"]) == (added["id"], application.url)
    assert "secret" not in listed
    assert run("webhooks", "add", application.url).err.startswith("error: url: is an endpoint already")
    assert (
        "events: there is no nothing; there are notification.accepted"
        in run("webhooks", "add", "https://example.com", "--events", "nothing").err
    )
    assert "url: must be https" in run("webhooks", "add", "http://shop.example").err
    id_ = clicked(here)
    tell(here, clock)
    assert application.types() == ["notification.finished"]
    assert run("webhooks", "replay", id_, "--json").json == {"events": 1}
    assert run("webhooks", "replay", "--since", "1d", "--json").json == {"events": 1}
    assert "since: give either" in run("webhooks", "replay").err
    assert "since: must be a time" in run("webhooks", "replay", "--since", "soon").err
    assert "notification: must be" in run("webhooks", "replay", "x").err
    assert run("webhooks", "enable", added["id"]).code == 0
    assert "well" in run("webhooks", "list").out
    application.answer = lambda _: 418
    assert "HTTP 418" in run("webhooks", "test", added["id"]).err
    assert run("webhooks", "remove", added["id"]).code == 0
    assert "there is no endpoint" in run("webhooks", "remove", added["id"]).err
