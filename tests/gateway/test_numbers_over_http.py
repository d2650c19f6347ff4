"""What became of notifications, as figures over HTTP: the same that the roll-ups hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, parse_batch
from knocktwice_worker.content.rendering import fingerprint
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.lifecycle import AttemptState, DeliveryState, Refusal
from knocktwice_worker.notifications import store
from knocktwice_worker.reporting import rollups
from knocktwice_worker.services import Services
from support.http_gateway import HttpGateway
from support.sent_messages import placed

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from support.clock import Clock

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def priced(here: Services) -> Iterator[Services]:
    """An installation that knows what an SMS costs."""
    built = Services(here.settings.model_copy(update={"sms_prices": {"US": 0.01}}))
    yield built
    built.close()


@pytest.fixture
def client(priced: Services) -> Iterator[httpx.Client]:
    """Somebody who may read."""
    with HttpGateway(priced) as running:
        yield running.client(Scope.READ)


def _send(here: Services, count: int, template: str) -> list[str]:
    """Notify people whose push goes out and who get an SMS if they do not click."""
    ids = [str(uuid7()) for _ in range(count)]
    people = [{"id": id_, "registrations": [id_], "phone": f"+1650253{n:04}"} for n, id_ in enumerate(ids)]
    wire = {
        "v": 1,
        "id": str(uuid7()),
        "content": {"push": {"title": "t", "body": "b"}},
        "plan": [{"channel": "sms", "when": "not_clicked", "after_s": 300}],
        "recipients": people,
    }
    content = {"template": template, "push": {"title": "t", "body": "b"}, "sms": None}
    with here.engine.begin() as conn:
        work = store.accept(conn, [store.Intake(parse_batch(wire), {}, HOUR, content)], lease=MINUTE)
        store.record_push(
            conn,
            [store.PushResult(one.notification_id, one.registration, state=AttemptState.SENT) for one in work],
            retry_for=HOUR,
        )
    return ids


def _text(here: Services, ids: list[str], body: str) -> None:
    with here.engine.begin() as conn:
        store.reserve(conn, [store.Reservation(i, "+16502530000", body, fingerprint(body)) for i in ids], MINUTE)
        claimed, _ = store.claim_steps(conn, placed(ids), MINUTE)
        store.record_steps(conn, [store.StepResult(i, DeliveryState.SENT, provider_id=f"SM{i}") for i in claimed])


def _lived(here: Services, clock: Clock) -> list[str]:
    """Let five people be notified: one clicks, two are texted and one of these clicks then,
    one is capped, one waits.
    """
    first, second, third, fourth = _send(here, 4, "news")
    _send(here, 1, "other")

    def click(id_: str) -> None:
        with here.engine.begin() as conn:
            store.settle_receipts(
                conn, store.record_receipts(conn, [ReceiptEvent(UUID(id_), Receipt.CLICKED, datetime.now(UTC), "")])
            )

    click(first)
    _text(here, [second, third], "x" * 161)
    click(second)
    with here.engine.begin() as conn:
        store.skip(conn, [store.Decision(fourth, Refusal.CAPPED_DAILY, {})])
    clock.advance(MINUTE)
    return [first, second, third, fourth]


def test_the_figures_are_those_of_what_happened(here: Services, client: httpx.Client, clock: Clock) -> None:
    assert client.get("/v1/stats").json()["lines"] == []
    _lived(here, clock)
    rollups.refresh(here.engine, "UTC", everything=True)
    told = client.get("/v1/stats", params={"by": "template"}).json()
    lines = {line["template"]: line for line in told["lines"]}
    assert lines.keys() == {"news", "other"}
    news = lines["news"]
    assert (news["accepted"], news["pushed"], news["clicked"], news["fell_back"]) == (4, 4, 2, 3)
    assert (news["sms_sent"], news["sms_wasted"], news["sms_parts"]) == (2, 1, 4)
    assert news["suppressed"] == {"capped_daily": 1}
    assert (news["fell_back_rate"], news["delivery_rate"]) == (0.75, 0.75)
    assert (news["cost"], news["sms_only_cost"], news["saved"]) == ("0.0400", "0.0800", "0.0400")
    assert told["total"]["accepted"] == 5
    (by_country,) = client.get("/v1/stats", params={"by": "country", "template": "news"}).json()["lines"]
    assert (by_country["country"], by_country["sms_sent"]) == ("US", 2)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"by": "colour"}, "by"),
        ({"since": "yesterday"}, "since"),
        ({"since": "20261121"}, "since"),
        ({"since": "2026-11-21", "until": "2026-11-20"}, "until"),
        ({"template": ""}, "template"),
        ({"template": "a\0b"}, "template"),
        ({"day": "2026-11-21"}, "day"),
    ],
)
def test_a_wrong_question_is_told_its_parameter(client: httpx.Client, parameters: dict[str, str], field: str) -> None:
    answer = client.get("/v1/stats", params=parameters)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_who_took_a_message_is_named_by_the_history_and_by_the_notification(
    here: Services, client: httpx.Client, clock: Clock
) -> None:
    clicked, twilio, other, _ = _lived(here, clock)
    chosen = sa.text("UPDATE deliveries SET provider = 'cheap' WHERE notification_id = ANY(:ids) AND step = 1")
    with here.engine.begin() as conn:
        conn.execute(chosen, {"ids": [clicked, other]})
    page = client.get("/v1/messages").json()["messages"]
    providers = {entry["id"]: [step["provider"] for step in entry["steps"]] for entry in page}
    # Chosen is not taken.
    assert providers[clicked] == [None, None]
    assert providers[twilio] == [None, "twilio"]
    assert providers[other] == [None, "cheap"]
    for id_ in (clicked, twilio, other):
        told = client.get(f"/v1/notifications/{id_}").json()
        assert [step["provider"] for step in told["steps"]] == providers[id_]
