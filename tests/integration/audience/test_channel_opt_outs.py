"""Opting out of one channel: its messages stop, the others go on, and every door knows the difference."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from knocktwice import InvalidMessage
from knocktwice.testing import RecordingClient
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import OptOutSet, parse_batch
from knocktwice_worker.audience import (
    channel_opt_outs,
    inbound_texts,
    opt_out_log,
    opt_outs,
    profile,
    segment_filter,
    segment_sql,
)
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.audience.opt_out_words import Wish
from knocktwice_worker.database.schema.people import users

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from knocktwice_worker.services import Services
    from support.clock import Clock
    from support.commands import CommandOutput
    from support.http_gateway import HttpGateway

ADA, BEN = "+16505550100", "+16505550101"
SID = "HX" + "0" * 32
SECRET = b"test"
NOW = datetime.now(UTC)
WHATSAPP_THEN_SMS: list[dict[str, Any]] = [
    {"channel": "whatsapp", "content_sid": SID},
    {"channel": "sms", "when": "not_clicked", "after_s": 60, "text": "Hello"},
]


def _say(here: Services, opted_out: bool, seconds_ago: float, channel: str | None = None, number: str = ADA) -> None:
    change = OptOutSet(number, opted_out, "application", NOW - timedelta(seconds=seconds_ago), channel)
    with here.engine.begin() as conn:
        opt_out_log.say(conn, [change], SECRET)


def _listed(here: Services) -> dict[str, tuple[str, ...] | None]:
    with here.engine.connect() as conn:
        return {one.number: one.channels for one in opt_outs.every(conn)}


def _send(here: Services, plan: list[dict[str, Any]]) -> str:
    id_ = str(uuid7())
    people = [{"id": id_, "phone": ADA}]
    here.pushes.send(parse_batch({"v": 1, "id": str(uuid7()), "content": {}, "plan": plan, "recipients": people}))
    return id_


def _steps(here: Services, id_: str) -> list[tuple[str, str, str | None]]:
    query = "SELECT channel, state, reason FROM deliveries WHERE notification_id = :id ORDER BY step"
    with here.engine.connect() as conn:
        return [tuple(row) for row in conn.execute(sa.text(query), {"id": id_})]


def test_messages_of_that_channel_stop_and_the_next_step_is_taken(working: Services, clock: Clock) -> None:
    _say(working, True, 10, "whatsapp")
    id_ = _send(working, WHATSAPP_THEN_SMS)
    working.fallback.check([id_])
    clock.advance(timedelta(seconds=61))
    working.later_steps.send(working.fallback.check([id_]))
    assert _steps(working, id_) == [("whatsapp", "skipped", "opted_out"), ("sms", "sent", None)]


def test_an_opt_out_between_the_decision_and_the_call_stops_the_message(working: Services) -> None:
    id_ = _send(working, WHATSAPP_THEN_SMS)
    decided = working.fallback.check([id_])
    assert decided == [id_]
    with working.engine.begin() as conn:
        assert channel_opt_outs.add(conn, [ADA], "whatsapp", "test") == [ADA]
        assert channel_opt_outs.add(conn, [ADA], "whatsapp", "again") == []
    working.later_steps.send(decided)
    assert _steps(working, id_)[0] == ("whatsapp", "skipped", "opted_out")
    # Of SMS nothing was said.
    other = _send(working, [{"channel": "sms", "text": "Hello"}])
    working.later_steps.send(working.fallback.check([other]))
    assert _steps(working, other) == [("sms", "sent", None)]


def test_of_all_texts_and_of_one_channel_the_latest_counts_in_any_order(here: Services) -> None:
    _say(here, True, 30, "whatsapp")
    assert _listed(here) == {ADA: ("whatsapp",)}
    _say(here, True, 20)
    assert _listed(here) == {ADA: None}
    # One channel is not all texts.
    _say(here, False, 15, "whatsapp")
    assert _listed(here) == {ADA: None}
    _say(here, False, 10)
    assert _listed(here) == {}
    # Said before all was lifted, and after.
    _say(here, True, 12, "sms")
    assert _listed(here) == {}
    _say(here, True, 5, "sms")
    _say(here, True, 4, "whatsapp")
    assert _listed(here) == {ADA: ("sms", "whatsapp")}
    _say(here, False, 3, "sms")
    assert _listed(here) == {ADA: ("whatsapp",)}
    # A late opt-in of all texts lifts what was said before it, and nothing later.
    _say(here, False, 8)
    assert _listed(here) == {ADA: ("whatsapp",)}
    _say(here, False, 1)
    assert _listed(here) == {}


def test_start_lifts_what_concerns_all_texts_and_the_channel_it_came_by(here: Services) -> None:
    _say(here, True, 10, "whatsapp")
    _say(here, True, 10, "sms")
    with here.engine.begin() as conn:
        inbound_texts.receive(conn, [InboundText("1", ADA, Wish.START, channel="sms")], SECRET)
    assert _listed(here) == {ADA: ("whatsapp",)}
    with here.engine.begin() as conn:
        inbound_texts.receive(conn, [InboundText("2", ADA, Wish.STOP, channel="sms")], SECRET)
        inbound_texts.receive(conn, [InboundText("3", ADA, Wish.START, channel="whatsapp")], SECRET)
    assert _listed(here) == {}


def test_an_erased_person_stays_out_of_what_they_had_left(here: Services) -> None:
    _say(here, True, 10, "whatsapp")
    with here.engine.begin() as conn:
        assert opt_outs.forget(conn, [ADA], SECRET) == [ADA]
        assert opt_outs.suppressed(conn, [ADA], SECRET) == {ADA}
    assert _listed(here) == {}


def test_people_and_segments_know_of_it(here: Services) -> None:
    with here.engine.begin() as conn:
        for user, number in (("ada", ADA), ("ben", BEN)):
            conn.execute(sa.text("INSERT INTO users (id) VALUES (:user)"), {"user": user})
            conn.execute(
                sa.text("INSERT INTO phones (user_id, number, region) VALUES (:user, :number, 'US')"),
                {"user": user, "number": number},
            )
        channel_opt_outs.add(conn, [ADA], "sms", "test")
        channel_opt_outs.add(conn, [BEN], "whatsapp", "test")
        ada = profile.find(conn, "ada")
        assert ada is not None
        assert (ada.opted_out, ada.opted_out_of) == (False, ("sms",))
        wanted = segment_filter.parse({"field": "can_receive_sms", "op": "=", "value": True})
        assert conn.scalars(sa.select(users.c.id).where(segment_sql.where(wanted, joins=False))).all() == ["ben"]


def test_it_is_said_over_http(gateway: HttpGateway) -> None:
    client = gateway.client()
    path = f"/v1/opt-outs/{quote(ADA, safe='')}"
    put = client.put(path, json={"channel": "whatsapp", "source": "letter"}).json()
    assert (put["source"], put["channels"]) == ("letter", ["whatsapp"])
    entries = [{"number": ADA, "channel": "sms"}, {"number": ADA}, {"number": BEN, "channel": "fax"}, {"number": ADA}]
    told = client.post("/v1/opt-outs", json={"opt_outs": entries}).json()
    assert [one["status"] for one in told["results"]] == ["added", "added", "refused", "present"]
    assert told["results"][2]["field"] == "opt_outs[2].channel"
    (listed,) = client.get("/v1/opt-outs").json()["opt_outs"]
    assert (listed["number"], listed["channels"]) == (ADA, None)
    kept = client.delete(path, params={"channel": "fax"})
    assert (kept.status_code, kept.json()["field"]) == (422, "channel")
    assert client.delete(path, params={"channel": "sms"}).status_code == 204
    refused = client.delete(path, params={"channel": "sms"})
    assert (refused.status_code, "of all texts" in refused.json()["detail"]) == (404, True)
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404


def test_it_is_said_by_the_library(here: Services) -> None:
    client = RecordingClient()
    client.opt_out(ADA, channel="whatsapp")
    client.opt_out(BEN)
    client.opt_in(ADA, channel="sms")
    assert [change.channel for change in client.changes if isinstance(change, OptOutSet)] == ["whatsapp", None, "sms"]
    assert client.opt_outs == {BEN: "application"}
    with pytest.raises(InvalidMessage, match="must be one of sms, whatsapp") as refused:
        client.opt_out(ADA, channel="fax")
    assert refused.value.field == "channel"
    with here.engine.begin() as conn:
        opt_out_log.say(conn, [c for c in client.changes if isinstance(c, OptOutSet)], SECRET)
    assert _listed(here) == {ADA: ("whatsapp",), BEN: None}


def test_it_is_said_on_the_command_line_and_a_list_comes_back_as_it_was(
    run: Callable[..., CommandOutput], tmp_path: Path
) -> None:
    assert "1 added" in run("opt-out", "add", ADA, "--channel", "whatsapp").out
    assert "1 added" in run("opt-out", "add", BEN).out
    assert run("opt-out", "add", BEN, "--channel", "fax").code != 0
    assert "only whatsapp" in run("opt-out", "list").out
    before, path = run("opt-out", "list", "--json").json, tmp_path / "list.csv"
    run("opt-out", "export", "--output", str(path))
    assert "1 removed" in run("opt-out", "remove", ADA, "--channel", "whatsapp").out
    assert run("opt-out", "remove", BEN, "--channel", "sms").code == 1
    assert "1 removed" in run("opt-out", "remove", BEN).out
    assert run("opt-out", "list", "--json").json == []
    tried = run("opt-out", "import", str(path), "--dry-run", "--json").json
    done = run("opt-out", "import", str(path), "--json").json
    assert (tried["added"], done["added"]) == (2, 2)
    assert run("opt-out", "list", "--json").json == before
    path.write_text(f"number,channel\n{ADA},fax\n{ADA},sms whatsapp\n")
    told = run("opt-out", "import", str(path), "--json").json
    assert [(one["line"], one["problem"][:9]) for one in told["refused"]] == [(2, "channels:")]
    assert told["added"] == 1
