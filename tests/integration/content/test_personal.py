"""Texts that use the person: tags, id, language and zone, looked up once for a batch and kept with the notification."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import DeviceRegistered, PhoneBound, TagsSet, parse_batch, parse_blast
from knocktwice_worker.audience import people as audience
from knocktwice_worker.blasts import preflight, request
from knocktwice_worker.channels.registry import wording_of
from knocktwice_worker.content import templates
from knocktwice_worker.content.preview import for_user, preview

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

PUSH = {
    "title": "Hello {{ user.tags.name | default: 'you' }}",
    "body": "{{ user.id }} {{ user.locale }} {{ user.timezone }}",
    "link": "https://shop.example/{{ user.tags.city }}",
    "data": {"likes": "{{ user.tags.likes | join: '+' }}"},
}
STEP = {"channel": "sms", "when": "not_clicked", "after_s": 60, "text": "{{ greeting }} {{ user.tags.name }}"}


@pytest.fixture
def people(working: Services) -> None:
    """Ada, of whom much is known, and Ben, of whom little is."""
    with working.engine.begin() as conn:
        now = conn.execute(sa.text("SELECT knocktwice_now()")).scalar_one()
        tags: dict[str, Any] = {"name": "Ada", "city": "St. Pölten", "likes": ("tea", "rum"), "secret": "s"}
        audience.apply(
            conn,
            [
                TagsSet("ada", tags, now, time_zone="Europe/Vienna"),
                TagsSet("ben", {"city": "Linz", "likes": ()}, now),
                DeviceRegistered("ada", "silent-ada", now, locale="de-AT", time_zone="Asia/Tokyo"),
                DeviceRegistered("ben", "silent-ben", now),
                PhoneBound("ada", "+16505550101", now),
            ],
        )


@pytest.fixture
def statements(working: Services) -> Iterator[list[str]]:
    """Every statement that is executed."""
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement)

    sa.event.listen(working.engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(working.engine, "before_cursor_execute", note)


def _wire(*people: dict[str, Any], push: dict[str, Any] | None = None, plan: Any = (STEP,)) -> dict[str, Any]:
    recipients = [{"id": str(uuid7()), "params": {"greeting": "Dear"}} | person for person in people]
    return {"v": 1, "id": str(uuid7()), "content": {"push": push or PUSH}, "plan": list(plan), "recipients": recipients}


def _send(here: Services, *people: dict[str, Any], **more: Any) -> list[str]:
    batch = parse_batch(_wire(*people, **more))
    here.pushes.send(batch)
    return [str(r.id) for r in batch.recipients]


def _row(here: Services, id_: str) -> Any:
    with here.engine.connect() as conn:
        query = "SELECT n.* FROM notifications n WHERE n.id = :id"
        return conn.execute(sa.text(query), {"id": id_}).one()


@pytest.mark.usefixtures("people")
def test_a_text_says_what_is_known_of_the_person(working: Services, sandbox: Sandbox, clock: Clock) -> None:
    (id_,) = _send(working, {"user": "ada"})
    (push,) = sandbox.pushes()
    assert (push.title, push.body) == ("Hello Ada", "ada de-AT Asia/Tokyo")
    assert (push.data["link"], push.data["likes"]) == ("https://shop.example/St.%20P%C3%B6lten", "tea+rum")
    # What was known when it was accepted counts for the SMS, too, and no more is kept than the texts use.
    with working.engine.begin() as conn:
        now = conn.execute(sa.text("SELECT knocktwice_now()")).scalar_one()
        audience.apply(conn, [TagsSet("ada", {"name": "Somebody"}, now + timedelta(seconds=1))])
    clock.advance(timedelta(minutes=2))
    working.later_steps.send(working.fallback.check([id_]))
    assert [t.body for t in sandbox.texts()] == ["Dear Ada"]
    assert "secret" not in str(_row(working, id_).params)


@pytest.mark.usefixtures("people")
def test_what_is_not_known_is_missing_as_a_param_is(working: Services, sandbox: Sandbox) -> None:
    ben, nobody = _send(working, {"user": "ben"}, {"registrations": ["silent-x"], "phone": "+16505550109"})
    assert not sandbox.pushes()
    assert _row(working, ben).reason == "content.push.body: user.locale is undefined"
    assert _row(working, nobody).reason == "content.push.body: 'user' is undefined"
    push = {"title": "{{ user.tags.name | default: 'you' }}", "body": "{{ user.tags.city | default: 'there' }}"}
    _send(
        working, {"user": "ben"}, {"registrations": ["silent-x"]}, {"registrations": ["silent-ada"]}, push=push, plan=()
    )
    assert {p.registration: (p.title, p.body) for p in sandbox.pushes()} == {
        "silent-ben": ("you", "Linz"),
        "silent-x": ("you", "there"),
        "silent-ada": ("Ada", "St. Pölten"),
    }


@pytest.mark.usefixtures("people")
def test_the_applications_own_user_counts_instead(working: Services, sandbox: Sandbox) -> None:
    own = {"user": {"tags": {"name": "Eve"}, "first": "E"}}
    push = {"title": "{{ user.tags.name }}", "body": "{{ user.first }}"}
    _send(working, {"user": "ada", "params": own}, push=push, plan=())
    assert [(p.title, p.body) for p in sandbox.pushes()] == [("Eve", "E")]


@pytest.mark.usefixtures("people")
def test_one_query_looks_up_all_people_and_none_where_no_text_uses_them(
    working: Services, statements: list[str]
) -> None:
    everybody = [{"user": "ada"}, {"user": "ben"}] * 10

    def asked(push: dict[str, Any]) -> int:
        statements.clear()
        _send(working, *everybody, push=push, plan=())
        return sum("jsonb_object_agg" in statement for statement in statements)

    assert asked({"title": "t", "body": "{{ user.tags.city }}"}) == 1
    assert asked({"title": "t", "body": "{{ greeting }}"}) == 0


@pytest.mark.usefixtures("people")
def test_a_blast_is_checked_for_nobody_and_costs_what_the_longest_value_makes_of_it(working: Services) -> None:
    def blast(text: str) -> Any:
        step = {"channel": "sms", "when": "not_clicked", "after_s": 60, "text": text}
        wire = {"v": 1, "key": text, "filter": {"everyone": True}, "content": {"push": PUSH}, "plan": [step]}
        return parse_blast(wire)

    with working.engine.begin() as conn:
        with pytest.raises(InvalidMessage, match="greeting"):
            request.start(conn, blast("{{ user.tags.name }} {% if greeting %}{% endif %}"))
        assert request.start(conn, blast("{{ user.tags.name }}")).new
        said = request.check_content(conn, blast("{{ user.tags.city }}"))
        audience.apply(conn, [TagsSet("cleo", {"city": "ж" * 100}, conn.scalar(sa.text("SELECT knocktwice_now()")))])
        texts = preflight._texts(conn, said, working.settings, working.channels)
    assert texts.sizes["sms"] == {"": 2}


@pytest.mark.usefixtures("people")
def test_a_preview_is_for_a_named_person(working: Services) -> None:
    contents = {
        "en": {"push": {"title": "Hello", "body": "{{ user.tags.name }}"}},
        "de": {"push": {"title": "Hallo", "body": "{{ user.tags.name }} {{ x }}"}},
    }
    definition = templates.check("t", {"default_locale": "en", "contents": contents})
    assert definition.parameters == ["x"]
    with working.engine.connect() as conn:
        params, locale = for_user(conn, definition, "ada", {"x": 1}, None)
    shown = preview(definition, params, locale, wording_of=wording_of)
    assert shown.push is not None
    assert (shown.locale, shown.push.title, shown.push.body) == ("de", "Hallo", "Ada 1")
