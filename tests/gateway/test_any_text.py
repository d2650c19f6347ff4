"""Any text through any door ends in a refusal that names the field, or in a row that comes back equal."""

from __future__ import annotations

import csv
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from knocktwice import Client, InvalidMessage, Push
from knocktwice_shared.names import INBOX_MESSAGES, Task
from knocktwice_worker.audience import opt_outs, profile
from knocktwice_worker.content import template_store
from knocktwice_worker.content.template_store import Stored
from knocktwice_worker.declarations import files
from knocktwice_worker.declarations.files import InvalidFile
from knocktwice_worker.notation.declared_yaml import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx

    from knocktwice_worker.services import Services
    from support.commands import CommandOutput
    from support.http_gateway import HttpGateway

ADA = "+16505550100"
#: Every character there is, halves of surrogate pairs too.
CHARACTERS = st.characters(exclude_categories=())
ODD = [
    "\0",
    "a\0b",
    "\ud800",
    "\udc00x",
    "\u202eabc",
    "\u200e",
    "\ufeff",
    " ",
    "\n",
    "a\nb",
    "\r\n",
    "\t",
    "'",
    '"',
    "\\",
]
ODD += ["=1+1", "-x", "--help", "%s", "%00", "{{", "{{ a }}", "{% raw %}", "null", "~", "yes", "1e3", "2026-11-21", "a: b", "#", "&a", "*a", "|", "[bold]x[/bold]"]  # fmt: skip
TEXTS = (
    st.sampled_from(ODD)
    | st.text(CHARACTERS, max_size=30)
    | st.builds(lambda c, n: c * n, CHARACTERS, st.integers(200, 10_000))
)
few = bounded(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def library(here: Services) -> Iterator[Client]:
    """The library at the test's broker."""
    with Client(here.settings.broker_url) as client:
        yield client


def _refused(call: Callable[..., object], *arguments: object, **named: object) -> tuple[object, set[str]]:
    """Return what a call returns, or which fields it refuses."""
    try:
        return call(*arguments, **named), set()
    except InvalidMessage as error:
        return None, {one.field for one in error.problems}


def _land(here: Services) -> None:
    """Carry out what was accepted, as a worker would."""
    for entry in here.redis.hvals(INBOX_MESSAGES):
        accepted = json.loads(entry)
        here.accepted[Task(accepted["task"])]([accepted["message"]])
    here.redis.flushdb()


def _kept(here: Services, user: str) -> tuple[str, object]:
    with here.engine.connect() as conn:
        found = profile.find(conn, user)
    assert found is not None
    return found.user, found.tags.get("t")


_SAID = sa.text("""
SELECT
  b.content -> 'push' ->> 'title' AS title,
  b.reference ->> 'r' AS reference,
  n.key
FROM notifications n
JOIN batches b ON b.id = n.batch_id
WHERE n.id = :id
""")


def _told(here: Services, id_: object) -> tuple[Any, ...]:
    with here.engine.connect() as conn:
        return tuple(conn.execute(_SAID, {"id": str(id_)}).one())


@few
@given(text=TEXTS)
def test_through_the_library(here: Services, library: Client, text: str) -> None:
    _, fields = _refused(library.tag_user, text, {"t": text})
    assert fields <= {"user", "tags", "tags.t"}
    if not fields:
        _land(here)
        assert _kept(here, text) == (text, text)
    id_, fields = _refused(library.notify, user="u", push=Push(text, "b"), reference={"r": text}, key=text)
    assert fields <= {"push", "push.title", "reference", "key", "params.a"}
    if not fields:
        _land(here)
        assert _told(here, id_) == (text, text, text)


@few
@given(text=TEXTS)
def test_over_http(here: Services, gateway: HttpGateway, clients: list[httpx.Client], text: str) -> None:
    if not clients:
        clients.append(gateway.client())
    (client,) = clients
    encoded = {"Content-Type": "application/json"}
    change = {"change": "set_tags", "user": text, "tags": {"t": text}}
    answer = client.post("/v1/audience", content=json.dumps({"changes": [change]}), headers=encoded)
    if answer.status_code == 202:
        _land(here)
        assert _kept(here, text) == (text, text)
    else:
        assert answer.status_code == 422, answer.text
        fields = {one["field"] for one in answer.json()["errors"]}
        assert fields <= {"changes[0].user", "changes[0].tags", "changes[0].tags.t"}
    body = {"user": "u", "push": {"title": text, "body": "b"}, "reference": {"r": text}, "key": text}
    answer = client.post("/v1/notifications", content=json.dumps(body), headers=encoded)
    if answer.status_code == 202:
        _land(here)
        assert _told(here, answer.json()["ids"][0]) == (text, text, text)
    else:
        assert answer.status_code == 422, answer.text
        fields = {one["field"] for one in answer.json()["errors"]}
        assert fields <= {"push", "push.title", "reference", "key", "params.a"}
    asked = client.get(f"/v1/messages?user={quote(text[:2_000], errors='surrogatepass')}")
    assert asked.status_code in (200, 414) or (asked.status_code, asked.json()["field"]) == (422, "user"), asked.text


@pytest.fixture
def clients() -> list[httpx.Client]:
    """The client that all examples of a test share, once there is one."""
    return []


@bounded(few, max_examples=10)
@given(text=TEXTS)
def test_on_the_command_line(run: Callable[..., CommandOutput], here: Services, text: str) -> None:
    told = run("opt-out", "add", ADA, f"--source={text}")
    if told.code:
        assert "source" in told.err
        assert "Traceback" not in told.err
    else:
        with here.engine.begin() as conn:
            assert [one.source for one in opt_outs.every(conn)] == [text]
            opt_outs.remove(conn, [ADA], b"test")
    assert run("user", "show", "--", text).code in (1, 2)


@few
@given(text=TEXTS)
def test_in_a_file_of_opt_outs(run: Callable[..., CommandOutput], here: Services, tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.csv"
    with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows([["number", "source"], [ADA, text]])
    told = run("opt-out", "import", str(path), "--json", "--source", "file")
    if told.code:
        assert "source" in told.out + told.err or "file" in told.err
    else:
        with here.engine.begin() as conn:
            # White space around a cell does not count; an empty one says nothing.
            assert [one.source for one in opt_outs.every(conn)] == [text.strip() or "file"]
            opt_outs.remove(conn, [ADA], b"test")


def _problem(here: Services, path: Path) -> str | None:
    try:
        declared = files.read(str(path))
        with here.engine.begin() as conn:
            files.apply(conn, declared)
    except (InvalidFile, Unreadable, InvalidMessage) as error:
        return str(error)
    return None


@few
@given(text=TEXTS, escaped=st.booleans())
def test_in_a_declaration(here: Services, tmp_path: Path, text: str, escaped: bool) -> None:
    path = tmp_path / "file.yaml"
    quoted = json.dumps(text, ensure_ascii=escaped)
    written = f"templates: {{t: {{default_locale: en, contents: {{en: {{push: {{title: {quoted}, body: b}}}}}}}}}}"
    path.write_text(written, encoding="utf-8", errors="surrogatepass", newline="")
    problem = _problem(here, path)
    if problem is not None:
        assert "title" in problem or re.search(r"file.yaml:[0-9]+:[0-9]+: ", problem) or "UTF-8" in problem, problem
    else:
        with here.engine.connect() as conn:
            stored = template_store.find(conn, ["t"])["t"]
        assert isinstance(stored, Stored)
        push = stored.definition.contents["en"].push
        assert push is not None
        assert push.title == text
