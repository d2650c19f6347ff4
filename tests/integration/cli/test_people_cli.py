"""``opt-out``, ``erase-user`` and ``tpns`` on the command line; the documents' examples do what they show."""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice import tpns
from knocktwice.testing import RecordingClient
from knocktwice_shared.messages import (
    DeviceRegistered,
    LoggedOutEverywhere,
    PhoneBound,
    UserErased,
    parse_audience,
    parse_batch,
)
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker import services
from knocktwice_worker.audience import people
from knocktwice_worker.content import template_store
from knocktwice_worker.content.templates import check
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.gateway.auth import keys
from knocktwice_worker.gateway.auth.signing import signing_secret

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from knocktwice_worker.services import Services
    from support.commands import CommandOutput

    Run = Callable[..., CommandOutput]

DOCS = Path(__file__).parents[3] / "docs"
TOKENS = ["025ae31e59b3**********a5866354b3", "06dee08efed***********31ef23bba"]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / document).read_text(), re.DOTALL | re.MULTILINE)


def accepted(valkey: redis.Redis) -> list[dict[str, Any]]:
    return [json.loads(entry)["message"] for entry in valkey.hvals(INBOX_MESSAGES) if isinstance(entry, bytes)]


# -- opt-out


def test_the_documents_session_with_opt_outs_goes_as_shown(run: Run) -> None:
    (session,) = blocks("privacy.md", "console")
    for exchange in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, _, answer = exchange.partition("\n")
        assert run(*shlex.split(command)[1:]).out == answer


def test_the_list_says_who_said_so(run: Run) -> None:
    assert run("opt-out", "list", "--json").json == []
    run("opt-out", "add", "+16505550101", "+1 650 555 0100", "--source", "letter")
    listed = run("opt-out", "list", "--json").json
    assert [(entry["number"], entry["source"]) for entry in listed] == [
        ("+16505550100", "letter"),
        ("+16505550101", "letter"),
    ]
    assert "+16505550100" in run("opt-out", "list").out


def test_a_wrong_number_is_named_without_being_repeated(run: Run) -> None:
    said = run("opt-out", "add", "+16505550100", "0650 555 0100")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: numbers[1]: ")
    assert "0650" not in said.err
    assert run("opt-out", "remove", "+16505550100").code == 1


# -- erase-user


def test_erasing_is_accepted_for_the_workers_to_do(run: Run, valkey: redis.Redis) -> None:
    assert run("erase-user", "u-17", "--json").json == {"accepted": True}
    ((change,),) = [parse_audience(message) for message in accepted(valkey)]
    assert change == UserErased("u-17", change.at)


def test_the_documents_example_of_an_erasure_is_recorded() -> None:
    client = RecordingClient()
    client.register_device("u-17", "reg")
    client.bind_phone("u-17", "+16505550100")
    client.tag_user("u-17", {"a": 1})
    client.set_marketing_consent("u-17", True, source="s")
    (code,) = blocks("privacy.md", "python")
    exec(code, {"client": client})  # noqa: S102 - our own document
    assert [client.devices, client.phones, client.tags, client.consents] == [{}, {}, {}, {}]


def test_the_check_says_what_is_left(run: Run, here: Services) -> None:
    said = run("erase-user", "u-17", "--check")
    assert (said.code, said.out) == (0, "nothing is left\n")
    with here.engine.begin() as conn:
        people.apply(conn, [DeviceRegistered("u-17", "reg", datetime.now(UTC))])
    said = run("erase-user", "u-17", "--check", "--json")
    assert (said.code, said.json) == (
        1,
        {"users": 1, "devices": 1, "phones": 0, "aliases": 0, "notifications": 0, "blast_pages": 0},
    )


# -- tpns


def test_the_documents_example_of_a_payload_is_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    payload, tags = (json.loads(block) for block in blocks("moving/tencent.md", "json"))
    theirs, ours, tagging = blocks("moving/tencent.md", "python")
    printed, text = blocks("moving/tencent.md", "text")
    clients = [RecordingClient(), RecordingClient(), RecordingClient()]
    for client, code in zip(clients, (theirs, ours, tagging), strict=True):
        exec(code, {"client": client, "payload": payload})  # noqa: S102 - our own document
    assert capsys.readouterr().out == printed
    assert [n.batch.sms_text for n in clients[0].notifications] == [text.rstrip()] * 2
    after, before = clients[0].notifications, clients[1].notifications
    for one, other in zip(after, before, strict=True):
        assert (one.push, one.batch.plan, one.batch.sms_text) == (other.push, other.batch.plan, other.batch.sms_text)
        assert (one.recipient.registrations, one.recipient.phone) == (
            other.recipient.registrations,
            other.recipient.phone,
        )
    assert clients[2].tags == {"u-17": {"vip": True}}
    assert tpns.segment_filter(tags)


def test_the_document_names_every_field() -> None:
    told = (DOCS / "moving/tencent.md").read_text()
    for field in (*tpns.IGNORED, *tpns.REFERENCE):
        assert f"`{field}`" in told


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (payload, tags) = blocks("moving/tencent.md", "json")
    (tmp_path / "payload.json").write_text(payload)
    (tmp_path / "tags.json").write_text(tags)
    (tmp_path / "templates.json").write_text(json.dumps({"123": "{1} and {2}"}))
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_a_payload_leaves_it_to_the_workers_whose_its_tokens_are(run: Run, valkey: redis.Redis) -> None:
    (command, _) = (shlex.split(block.splitlines()[0]) for block in blocks("moving/tencent.md", "console"))
    said = run(*command[2:])
    (batch,) = (parse_batch(message) for message in accepted(valkey))
    assert (said.code, said.err) == (0, "")
    assert said.out.split() == [str(r.id) for r in batch.recipients]
    assert [(r.registrations, r.phone) for r in batch.recipients] == [((token,), None) for token in TOKENS]


@pytest.mark.usefixtures("folder")
def test_a_saved_template_is_the_sms_and_strictly_it_must_be_there(
    run: Run, here: Services, valkey: redis.Redis
) -> None:
    refused = run("tpns", "notify", "payload.json", "--strict")
    assert (refused.code, "sms_info.sms_template_id" in refused.err) == (1, True)
    content = {"push": {"title": "t", "body": "{1} or {2}"}}
    with here.engine.begin() as conn:
        template_store.put(conn, "123", check("123", {"default_locale": "en", "contents": {"en": content}}))
    assert run("tpns", "notify", "payload.json", "--strict").code == 0
    ((batch,),) = [[parse_batch(message)] for message in accepted(valkey)]
    assert batch.sms_text == "[signe_name] param1 or param2"


def test_the_secret_that_signs_requests_is_shown_for_a_key_that_works(run: Run, here: Services) -> None:
    key = run("key", "create", "shop", "--scope", "notify").out.strip()
    root = secret(services.services().settings)
    with here.engine.connect() as conn:
        assert keys.working(conn)[keys.id_of(key) or ""].digest == keys.digest(key, root)
    shown = {"AccessId": keys.id_of(key), "SecretKey": signing_secret(keys.digest(key, root), root)}
    assert run("key", "sign", key, "--json").json == run("key", "sign", shown["AccessId"], "--json").json == shown
    assert (
        run("key", "sign", shown["AccessId"]).out == f"AccessId: {shown['AccessId']}\nSecretKey: {shown['SecretKey']}\n"
    )
    assert run("key", "sign", "nobodys").code == 1


def test_a_wrong_payload_is_a_line_for_each_problem(run: Run, folder: Path, valkey: redis.Redis) -> None:
    (folder / "payload.json").write_text('{"audience_type": "token_list", "message_type": "notify", "message": {}}')
    said = run("tpns", "notify", "payload.json")
    assert said.code == 1
    assert [line.split()[1] for line in said.err.splitlines()] == ["message.title:", "message.content:", "token_list:"]
    assert accepted(valkey) == []
    assert "cannot be read" in run("tpns", "notify", "nowhere.json").err
    (folder / "payload.json").write_text("{")
    assert "is not JSON" in run("tpns", "notify", "payload.json").err


@pytest.mark.usefixtures("folder")
def test_tags_are_printed_as_a_segments_filter(run: Run, here: Services) -> None:
    (_, session) = blocks("moving/tencent.md", "console")
    command, answer = session.split("\n", 1)
    said = run(*shlex.split(command)[2:])
    assert said.out == answer
    assert run("segment", "put", "vips", "--filter", said.out).code == 0
    with here.engine.connect() as conn:
        assert conn.execute(sa.text("SELECT filter FROM segments")).scalar_one() == json.loads(answer)


# -- user


def test_a_person_is_shown_found_and_logged_out(run: Run, here: Services, valkey: redis.Redis) -> None:
    with here.engine.begin() as conn:
        moment = datetime.now(UTC)
        people.apply(conn, [DeviceRegistered("u-17", "token-of-a-phone", moment)])
        people.apply(conn, [PhoneBound("u-17", "+16505550100", moment)])
    said = run("user", "show", "u-17")
    assert (said.code, "+1650•••00" in said.out, "…-phone" in said.out) == (0, True, True)
    assert "+16505550100" not in said.out
    assert run("user", "show", "u-17", "--unmasked", "--json").json["phone"] == "+16505550100"
    assert [one["registration"] for one in run("user", "devices", "u-17", "--json").json] == ["…-phone"]
    assert run("user", "find", "+1 650 555 0100", "--json").json == ["u-17"]
    assert run("user", "find", "+14155552671").code == run("user", "show", "nobody").code == 1
    assert run("user", "logout", "u-17", "--json").json == {"accepted": True}
    ((change,),) = [parse_audience(message) for message in accepted(valkey)]
    assert isinstance(change, LoggedOutEverywhere)
    assert change.user == "u-17"
