"""``knocktwice brake``: what is held, what it costs, and what an operator does with it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from knocktwice_worker.services import Services
from support.crowd import APNS, Crowd

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.clock import Clock
    from support.commands import CommandOutput

    Run = Callable[..., CommandOutput]


@pytest.fixture
def held(here: Services, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> tuple[Crowd, list[str]]:
    """Iphones of a blast whose SMS are held."""
    monkeypatch.setenv("KNOCKTWICE_SMS_PRICES", '{"US": 0.01}')
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC" + "0" * 32)
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "secret")
    monkeypatch.setenv("KNOCKTWICE_TWILIO_FROM", "+16505550006")
    settings = here.settings.model_copy(
        update={
            "quiet_hours": "",
            "twilio_account_sid": "AC" + "0" * 32,
            "twilio_from": "+16505550006",
        }
    )
    crowd = Crowd(Services(settings), clock)
    crowd.watch()
    ids = crowd.push(120, "ios", "4.1", refused=APNS, blast="sale")
    crowd.watch()
    assert crowd.check(ids) == set()
    return crowd, ids


@pytest.mark.usefixtures("held")
def test_it_lists_why_how_many_and_what_they_cost(run: Run) -> None:
    said = run("brake", "list")
    assert said.code == 0
    assert "100 % of ios fall back, usually 0 %" in said.out
    assert "holds 120 messages, about 1.20" in said.out
    (one,) = run("brake", "list", "--json").json
    assert (one["state"], one["platform"], one["held"], one["share"]) == ("on", "ios", 120, 1)
    assert one["cost"] == {"messages": 120, "cost": 1.2, "unpriced": []}


def test_dropping_asks_and_says_how_many_and_what_they_cost(
    run: Run, held: tuple[Crowd, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd, ids = held
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    said = run("brake", "drop", "1")
    assert said.code == 1
    assert "Drop 120 messages, about 1.20? They cannot be brought back" in said.out + said.err
    assert crowd.states(ids) == {"active": 120}
    assert "would be dropped: 120 messages, about 1.20" in run("brake", "drop", "1", "--dry-run").out
    assert "dropped: 120 messages, about 1.20" in run("brake", "drop", "1", "--yes", "--reason", "seen").out
    assert crowd.states(ids) == {"suppressed: dropped": 120}


def test_releasing_takes_the_brake_off_and_a_filter_only_picks_messages(
    run: Run, held: tuple[Crowd, list[str]]
) -> None:
    crowd, ids = held
    assert run("brake", "release", "--blast", "other", "--json").json == {
        "messages": 0,
        "cost": 0,
        "unpriced": [],
        "dry_run": False,
    }
    assert run("brake", "release", "1", "--for", "2h", "--json").json["messages"] == 120
    assert "no brake is on; one would hold blasts and marketing" in run("brake", "list").out
    assert run("brake", "list", "--all", "--json").json[0]["state"] == "released"
    assert crowd.check(ids) == set(ids)


@pytest.mark.parametrize("command", ["release", "drop"])
def test_who_says_neither_a_brake_nor_a_filter_is_asked(run: Run, command: str) -> None:
    said = run("brake", command)
    assert said.code == 2
    assert "--all" in said.err
    missing = run("brake", command, "77")
    assert missing.code == 1
    assert "there is no brake 77" in missing.err
