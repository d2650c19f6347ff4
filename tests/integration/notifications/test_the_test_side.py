"""A test goes the whole way, but no provider is called, and nobody's limits and figures change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import blast_id, uuid7
from knocktwice_shared.messages import parse_batch, parse_blast
from knocktwice_shared.names import Task
from knocktwice_shared.test_side import MARK, side_of_tests
from knocktwice_worker.audience import receipt_health
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.blasts import request
from knocktwice_worker.brake import push_counts, text_counts
from knocktwice_worker.limits import budget
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline import replies
from knocktwice_worker.reporting import rollups
from knocktwice_worker.reporting.story import Story, tell
from knocktwice_worker.sandbox.rules import Kind
from knocktwice_worker.services import Services
from support.sms_provider import TOKEN, SmsProvider

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from knocktwice_worker.sandbox import Sandbox
    from support.clock import Clock

NUMBER = "+16505550100"
SMS = {"channel": "sms", "when": "not_clicked", "after_s": 0}
WHATSAPP = {"channel": "whatsapp", "when": "not_delivered", "after_s": 0, "content_sid": "HX" + "0" * 32}


@pytest.fixture
def here(working: Services) -> Iterator[Services]:
    """A worker's services; a part costs 0.05, and the day's budget is four parts."""
    more = {"sms_prices": {"*": 0.05}, "whatsapp_from": "+15005550006", "sms_budget": 4, "quiet_hours": ""}
    built = Services(type(working.settings).model_validate({**working.settings.model_dump(), **more}))
    yield built
    built.close()


def _wire(*plan: dict[str, Any], project: str | None = MARK, **recipient: Any) -> dict[str, Any]:
    whose = recipient or {"registrations": ["silent-1"], "phone": NUMBER}
    wire = {
        "v": 1,
        "id": str(uuid7()),
        "content": {"push": {"title": "Order", "body": "It is here, {{ name }}."}},
        "plan": list(plan),
        "recipients": [{"id": str(uuid7()), "params": {"name": "Ada"}, **whose}],
    }
    return wire if project is None else wire | {"project": project}


def _send(here: Services, *plan: dict[str, Any], **more: Any) -> Story:
    """Send one notification, take it through its plan, and return its story."""
    wire = _wire(*plan, **more)
    ids = [wire["recipients"][0]["id"]]
    here.pushes.send(parse_batch(wire))
    for _ in plan:
        here.withdrawals.withdraw(here.later_steps.send(here.fallback.check(ids)))
    return _story(here, ids[0])


def _story(here: Services, id_: str) -> Story:
    with here.engine.connect() as conn:
        told = tell(conn, id_)
    assert told is not None
    return told


def _rows(here: Services, query: str) -> list[Any]:
    with here.engine.connect() as conn:
        return [tuple(row) for row in conn.execute(sa.text(query))]


def _untouched(sandbox: Sandbox) -> bool:
    """Whether no provider had any request, of whatever kind."""
    return all(sandbox.requests(kind) == 0 for kind in get_args(Kind))


def test_it_goes_the_whole_way_and_says_what_would_have_been_sent(here: Services, sandbox: Sandbox) -> None:
    told = _send(here, SMS, WHATSAPP)
    assert _untouched(sandbox)
    assert (told.state, told.test, told.project) == ("texted", True, None)
    assert [(s.channel, s.state, s.provider, s.provider_status) for s in told.steps] == [
        ("push", "sent", None, None),
        ("sms", "sent", None, None),
        ("whatsapp", "sent", None, None),
    ]
    push, sms, whatsapp = told.would_have_sent
    assert (push.to, push.content) == ("…lent-1", {"title": "Order", "body": "It is here, Ada."})
    assert (sms.to, sms.sender, sms.parts, sms.price) == ("+1650•••00", "+15005550006", 1, "0.05")
    assert sms.content["text"] == "It is here, Ada."
    assert (whatsapp.channel, whatsapp.parts) == ("whatsapp", None)
    said = [m.sentence for m in told.moments]
    assert "Here the SMS would have gone to +1650•••00 from +15005550006, 1 part, for 0.05." in said
    assert "The apps would have been told to take the push off the screen." in said
    assert not any(MARK in sentence or "took the" in sentence for sentence in said)
    assert _rows(here, "SELECT count(*) FROM deliveries WHERE step > 0 AND reported_at IS NULL") == [(0,)]


@pytest.mark.parametrize(
    ("registration", "state"), [("clicks-1", "reached"), ("delivers-1", "texted"), ("gone-1", "texted")]
)
def test_a_registration_says_what_becomes_of_the_push_as_in_the_sandbox(
    here: Services, sandbox: Sandbox, registration: str, state: str
) -> None:
    with here.engine.begin() as conn:
        conn.execute(sa.text("INSERT INTO users (id) VALUES ('ada')"))
        conn.execute(sa.text("INSERT INTO devices (registration, user_id) VALUES (:one, 'ada')"), {"one": registration})
    told = _send(here, SMS, registrations=[registration], phone=NUMBER)
    assert told.state == state
    # A device that may be real is not forgotten.
    assert _rows(here, "SELECT registration FROM devices") == [(registration,)]
    assert _untouched(sandbox)


def test_a_push_that_is_taken_up_again_goes_nowhere(here: Services, sandbox: Sandbox, clock: Clock) -> None:
    wire = _wire(SMS, project="shop~test") | {"send_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    id_ = wire["recipients"][0]["id"]
    here.pushes.send(parse_batch(wire))
    clock.advance(timedelta(hours=1, minutes=1))
    here.pushes.resume([id_])
    told = _story(here, id_)
    assert (told.steps[0].state, told.project, len(told.would_have_sent)) == ("sent", "shop", 1)
    assert _untouched(sandbox)


def test_a_message_whose_sender_died_is_only_tested_again(here: Services, sandbox: Sandbox, clock: Clock) -> None:
    wire = _wire(SMS)
    ids = [wire["recipients"][0]["id"]]
    here.pushes.send(parse_batch(wire))
    (reserved,) = here.fallback.check(ids)
    with here.engine.begin() as conn:
        (row,) = store.reserved(conn, [reserved])
        assert row.provider == MARK
        store.claim_steps(conn, {reserved: store.Placement(MARK, 0)}, timedelta(minutes=1))
    clock.advance(timedelta(minutes=2))
    assert here.reconcile.resolve(ids) == []
    assert here.later_steps.send(ids) == ids
    assert _story(here, ids[0]).state == "texted"
    assert _untouched(sandbox)


def test_who_sends_a_test_by_mistake_is_refused(here: Services) -> None:
    provider = here.channels.provider("whatsapp", MARK)
    with pytest.raises(Exception, match="no longer"):
        provider.authorize()


def test_tests_and_real_ones_in_one_task_go_each_their_way(here: Services, sandbox: Sandbox) -> None:
    wires = [
        _wire(SMS, project=project, registrations=[f"silent-{n}"], phone=f"+1650555010{n}")
        for n, project in enumerate((None, MARK, "shop", "shop~test"))
    ]
    ids = [wire["recipients"][0]["id"] for wire in wires]
    here.pushes.send_all([parse_batch(wire) for wire in wires])
    sent = here.later_steps.send(here.fallback.check(ids))
    assert sorted(sent) == sorted(ids)
    here.withdrawals.withdraw(sent)
    assert {push.registration for push in sandbox.pushes()} == {"silent-0", "silent-2"}
    assert {push.registration for push in sandbox.pushes() if push.withdrawn_at} == {"silent-0", "silent-2"}
    assert {text.to for text in sandbox.texts()} == {"+16505550100", "+16505550102"}
    assert [_story(here, id_).test for id_ in ids] == [False, True, False, True]


def test_none_of_several_providers_is_chosen(
    here: Services, sandbox: Sandbox, acme: SmsProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_TOKEN", TOKEN)
    update = {"sms_providers_file": acme.file(tmp_path, twilio=50)}
    several = Services(here.settings.model_copy(update=update))
    told = [_send(several, SMS, registrations=["silent-1"], phone=f"+1650555010{n}") for n in range(6)]
    several.close()
    assert [one.state for one in told] == ["texted"] * 6
    assert (_untouched(sandbox), acme.asked) == (True, 0)
    assert not any("provider_chosen" in {m.kind for m in one.moments} for one in told)


def test_a_blast_of_tests_reaches_nobody(here: Services, sandbox: Sandbox) -> None:
    with here.engine.begin() as conn:
        for user in ("ada", "ben"):
            conn.execute(sa.text("INSERT INTO users (id) VALUES (:user)"), {"user": user})
            conn.execute(
                sa.text("INSERT INTO devices (registration, user_id) VALUES (:one, :user)"),
                {"one": f"silent-{user}", "user": user},
            )
        content = {"push": {"title": "Tea", "body": "It is cheaper."}}
        wire = {"v": 1, "key": "k", "filter": {"everyone": True}, "content": content, "plan": [], "project": MARK}
        blast = parse_blast(wire)
        request.start(conn, blast)
        id_ = str(blast_id("k", MARK))
    waiting: list[tuple[Task, str]] = []

    def publish(task: Task, ids: Sequence[str]) -> None:
        waiting.extend((task, one) for one in ids)

    for _ in range(3):
        here.expansion.step(id_, publish)
    for task, page in waiting:
        if task is Task.SEND_PAGE:
            here.expansion.send_page(page, publish)
    assert _rows(here, "SELECT user_id, project, state FROM notifications ORDER BY 1") == [
        ("ada", MARK, "pushed"),
        ("ben", MARK, "pushed"),
    ]
    assert _untouched(sandbox)


def test_limits_hold_for_tests_and_use_up_nothing_of_what_people_get(here: Services, sandbox: Sandbox) -> None:
    assert [_send(here, SMS).reason for _ in range(2)] == ["sms only tested", "duplicate_30s"]
    # The same text to the same number, and no part of the budget gone.
    real = _send(here, SMS, project=None)
    assert (real.state, len(sandbox.texts())) == ("texted", 1)
    with here.engine.connect() as conn:
        start = here.limits.limits.day(datetime.now(UTC))[1] - timedelta(days=1)
        assert sum(budget.today(conn, start).spent.values()) == 1
    key = here.limits.limits.budget_key(here.limits.limits.day(datetime.now(UTC))[0])
    assert here.redis.hget(key, "total") == b"1"


def test_the_same_is_counted_after_redis_forgot_and_while_it_is_away(here: Services, sandbox: Sandbox) -> None:
    _send(here, SMS)
    here.redis.flushall()
    assert _send(here, SMS, project=None).state == "texted"
    assert _send(here, SMS).reason == "duplicate_30s"
    assert len(sandbox.texts()) == 1


def test_no_figure_counts_a_test(here: Services, clock: Clock) -> None:
    # The watchers begin to count with the first look.
    with here.engine.begin() as conn:
        push_counts.count(conn)
        text_counts.count(conn)
    told = _send(here, SMS)
    assert told.state == "texted"
    clock.advance(timedelta(hours=3))
    rollups.refresh(here.engine, "UTC", everything=True)
    receipt_health.roll_up(here.engine)
    for _ in range(3):
        with here.engine.begin() as conn:
            push_counts.count(conn)
            text_counts.count(conn)
    for table in ("rollups", "receipt_health", "push_counts", "text_counts"):
        assert _rows(here, f"SELECT count(*) FROM {table}") == [(0,)], table  # noqa: S608 - names of this file


def test_what_a_person_writes_answers_no_test(here: Services) -> None:
    _send(here, SMS)
    with here.engine.begin() as conn:
        text = InboundText("SM1", NUMBER, None, "Thanks!", "twilio", "sms", "+15005550006")
        assert replies.receive(conn, [text], b"test", here.channels, timedelta(days=3)) == []


def test_a_key_of_a_test_stays_free_for_the_real_notification(here: Services, sandbox: Sandbox) -> None:
    for project in (MARK, None):
        wire = _wire(project=project)
        wire["recipients"][0]["key"] = "order-4711"
        here.pushes.send(parse_batch(wire))
    assert len(sandbox.pushes()) == 1
    assert [state for (state,) in _rows(here, "SELECT state FROM notifications")] == ["pushed", "pushed"]


def test_the_ledger_names_what_it_is(here: Services) -> None:
    _send(here, SMS, project=side_of_tests("shop"))
    assert _rows(here, "SELECT step, inputs FROM decisions WHERE verdict = 'would_have_sent' ORDER BY step") == [
        (0, {"devices": 1}),
        (1, {"to": "+1650•••00", "from": "+15005550006", "parts": 1, "price": "0.05"}),
    ]
