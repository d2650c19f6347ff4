"""Short links in the database: written with the reservation, told in the story, gone with the notification."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import DeviceRegistered, PhoneBound, Receipt, ReceiptEvent, parse_batch
from knocktwice_worker.audience import people
from knocktwice_worker.config import Settings
from knocktwice_worker.notifications.pipeline import receipts
from knocktwice_worker.privacy import erasure, retention
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.services import Services, process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from knocktwice_worker.sandbox import Sandbox
    from support.clock import Clock
    from support.commands import CommandOutput

TARGET = "https://shop.example/orders/4711"
NUMBER = "+16505550100"
TEXT = "Pay here: {{ url | track }}"
DELAY = timedelta(hours=1)


@pytest.fixture
def public(working: Services) -> Iterator[Services]:
    """Services of an installation that the world can reach."""
    more = {"public_url": "https://push.example.com/base", "link_url": "https://k2.example"}
    built = Services(Settings(**{**working.settings.model_dump(), **more}))
    yield built
    built.close()


def _send(here: Services, *, text: str | None = TEXT, body: str = "b", **person: Any) -> str:
    id_ = str(uuid7())
    address = {} if "user" in person else {"registrations": [f"silent-{id_}"], "phone": NUMBER}
    recipient = {"id": id_, "params": {"url": TARGET}, **address, **person}
    content: dict[str, Any] = {"push": {"title": "t", "body": body}}
    if text is not None:
        content["sms"] = {"text": text}
    plan = [{"channel": "sms", "when": "not_clicked", "after_s": DELAY.total_seconds()}]
    here.pushes.send(
        parse_batch({"v": 1, "id": str(uuid7()), "content": content, "plan": plan, "recipients": [recipient]})
    )
    return id_


def _links(here: Services) -> list[tuple[Any, ...]]:
    with here.engine.connect() as conn:
        rows = conn.execute(sa.text("SELECT token, CAST(notification_id AS text), step, target FROM links"))
        return [tuple(row) for row in rows]


def _words(here: Services, id_: str) -> list[str]:
    with here.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    return [moment.sentence for moment in told.moments]


@pytest.mark.parametrize(("text", "body"), [(TEXT, "b"), (None, TEXT)])
def test_the_link_that_is_sent_is_the_one_that_is_stored(
    public: Services, sandbox: Sandbox, clock: Clock, text: str | None, body: str
) -> None:
    id_ = _send(public, text=text, body=body)
    assert _links(public) == []
    clock.advance(DELAY)
    public.later_steps.send(public.fallback.check([id_]))
    (sent,) = sandbox.texts(NUMBER)
    found = re.fullmatch(r"Pay here: https://k2\.example/l/([0-9A-Za-z]{12})", sent.body)
    assert found, sent.body
    assert _links(public) == [(found[1], id_, 1, TARGET)]
    receipts.record(public.engine, [_click(id_)])
    assert "The link in the SMS was opened." in _words(public, id_)


def _click(id_: str) -> ReceiptEvent:
    return ReceiptEvent(UUID(id_), Receipt.CLICKED, datetime.now(UTC), "link:1", 1)


def test_a_text_without_links_costs_no_statement(public: Services, clock: Clock) -> None:
    ids = [_send(public, text=f"Plain {n}") for n in range(2)]
    clock.advance(DELAY)
    statements: list[str] = []
    sa.event.listen(public.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    assert len(public.fallback.check(ids)) == 2
    assert not [s for s in statements if "links" in s]


def test_the_links_of_a_batch_are_one_statement(public: Services, clock: Clock) -> None:
    ids = [_send(public, phone=f"+1650555{n:04}") for n in range(20)]
    clock.advance(DELAY)
    statements: list[str] = []
    sa.event.listen(public.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    assert len(public.fallback.check(ids)) == 20
    assert len([s for s in statements if "links" in s]) == 1
    assert len(_links(public)) == 20


def test_the_same_text_with_another_token_is_still_the_same_text(
    public: Services, sandbox: Sandbox, clock: Clock
) -> None:
    first, second, other = _send(public), _send(public), _send(public, params={"url": TARGET + "2"})
    clock.advance(DELAY)
    won = public.fallback.check([first, second, other])
    assert other in won
    assert len(won) == 2
    public.later_steps.send(won)
    assert len(sandbox.texts(NUMBER)) == 2
    assert len(_links(public)) == 2


def test_where_nobody_could_open_a_link_the_address_is_sent(working: Services, sandbox: Sandbox, clock: Clock) -> None:
    id_ = _send(working)
    clock.advance(DELAY)
    working.later_steps.send(working.fallback.check([id_]))
    assert [text.body for text in sandbox.texts(NUMBER)] == [f"Pay here: {TARGET}"]
    assert _links(working) == []


def test_what_is_no_address_is_refused_with_its_message_and_the_push_goes(
    public: Services, sandbox: Sandbox, clock: Clock
) -> None:
    id_ = _send(public, params={"url": "javascript:alert(1)"})
    clock.advance(DELAY)
    assert public.fallback.check([id_]) == []
    with public.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    assert told.state == "failed"
    assert told.reason
    problem = "content.sms.text: what {{ … | track }} is given must be an http or https address"
    assert told.reason.startswith(f"invalid_content: {problem}")
    assert "javascript" not in told.reason
    assert len(sandbox.pushes(f"silent-{id_}")) == 1
    assert sandbox.texts(NUMBER) == []


def test_links_go_with_their_notifications(public: Services, clock: Clock) -> None:
    id_ = _send(public)
    clock.advance(DELAY)
    public.later_steps.send(public.fallback.check([id_]))
    assert len(_links(public)) == 1
    clock.advance(timedelta(days=91))
    assert retention.purge(public.engine, timedelta(days=90)).notifications == 1
    assert _links(public) == []


def test_links_go_with_their_people(public: Services, clock: Clock) -> None:
    at = datetime.now(UTC) - timedelta(days=1)
    with public.engine.begin() as conn:
        people.apply(conn, [DeviceRegistered("ada", "silent-ada", at), PhoneBound("ada", NUMBER, at)])
    id_ = _send(public, user="ada")
    clock.advance(DELAY)
    public.later_steps.send(public.fallback.check([id_]))
    assert len(_links(public)) == 1
    with pytest.raises(erasure.Unsettled):
        public.erasure.erase("ada", datetime.now(UTC))
    assert _links(public) == []


def test_a_preview_shows_a_link_as_long_as_the_real_one(
    run: Callable[..., CommandOutput], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "t.yaml"
    content = {"push": {"title": "t", "body": "b"}, "sms": TEXT}
    file.write_text(json.dumps({"templates": {"pay": {"default_locale": "en", "contents": {"en": content}}}}))
    words = ("template", "preview", "pay", "--file", str(file), "--param", f"url={TARGET}", "--json")
    assert run(*words).json["sms"] == f"Pay here: {TARGET}"
    monkeypatch.setenv("KNOCKTWICE_LINK_URL", "https://k2.example")
    process._services.clear()
    assert re.fullmatch(r"Pay here: https://k2\.example/l/[0-9A-Za-z]{12}", run(*words).json["sms"])
