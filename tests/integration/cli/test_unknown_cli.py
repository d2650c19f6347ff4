"""``knocktwice unknown``: found by what an operator knows, sent again after a look, closed with a reason."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_worker.lifecycle import REOPENED, DeliveryState
from knocktwice_worker.notifications.store import unknown
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.sandbox import Answer, Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock
    from support.commands import CommandOutput

    Run = Callable[..., CommandOutput]

FIRST, SECOND = "+16505550100", "+16505550101"
DAY = timedelta(days=1)


@pytest.fixture
def lost(working: Services, sandbox: Sandbox, clock: Clock) -> dict[str, str]:
    """Two SMS of unknown outcome by their numbers: the list did not answer for a day. The second is critical."""
    sandbox.rule(Rule("sms", answer=Answer(status=503)))
    sandbox.rule(Rule("list", answer=Answer(status=503)))
    ids: dict[str, str] = {}
    for number, category, key in ((FIRST, "transactional", "order-1"), (SECOND, "critical", "code-1")):
        recipient = {"id": str(uuid7()), "phone": number, "key": key}
        wire: dict[str, Any] = {"v": 1, "id": str(uuid7()), "content": {"sms": {"text": "Hello"}}, "only": "sms"}
        working.pushes.send(parse_batch({**wire, "category": category, "recipients": [recipient]}))
        ids[number] = str(recipient["id"])
    working.later_steps.send(working.fallback.check(list(ids.values())))
    clock.advance(DAY + timedelta(minutes=1))
    working.reconcile.resolve(list(ids.values()))
    sandbox.clear_rules()
    return ids


def _states(here: Services, id_: str) -> tuple[str, str]:
    with here.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    return told.state, told.steps[-1].state


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        ((), {FIRST, SECOND}),
        (("--number", "+1 650 555 0100"), {FIRST}),
        (("--category", "critical"), {SECOND}),
        (("--key", "order-1"), {FIRST}),
        (("--provider", "twilio", "--channel", "sms"), {FIRST, SECOND}),
        (("--provider", "acme"), set()),
        (("--channel", "whatsapp"), set()),
        (("--since", "2026-01-01T00:00+00:00"), {FIRST, SECOND}),
        (("--since", "2999-01-01T00:00+00:00"), set()),
        (("--until", "2999-01-01T00:00+00:00"), {FIRST, SECOND}),
        (("--until", "1h"), set()),
    ],
)
def test_they_are_found_by_what_an_operator_knows(
    run: Run, lost: dict[str, str], filters: tuple[str, ...], numbers: set[str]
) -> None:
    listed = run("unknown", "list", *filters, "--json").json
    assert {one["id"] for one in listed} == {lost[number] for number in numbers}
    shown = run("unknown", "list", *filters).out
    assert f"{len(numbers)} in all" in shown
    assert not [line for line in shown.splitlines() if len(line) > 80]
    assert FIRST not in shown
    dry = run("unknown", "send", *(filters or ["--all"]), "--reason", "x", "--dry-run", "--json").json
    assert dry == {"matched": len(numbers), "changed": len(numbers), "dry_run": True}
    assert len(run("unknown", "list", "--json").json) == 2


def test_what_is_sent_again_is_looked_for_first(
    working: Services, run: Run, sandbox: Sandbox, clock: Clock, lost: dict[str, str]
) -> None:
    said = run("unknown", "send", "--number", FIRST, "--reason", "outage of 3 May")
    assert said.out.startswith("taken up again: 1; left alone: 0")
    id_ = lost[FIRST]
    assert _states(working, id_) == ("active", "sending")
    for _ in range(2):
        working.reconcile.resolve([id_])
        clock.advance(timedelta(minutes=3))
    assert working.later_steps.send([id_]) == [id_]
    assert (_states(working, id_), len(sandbox.texts(FIRST))) == (("texted", "sent"), 1)
    with working.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    assert [m.sentence for m in told.moments if m.kind == "reopened"] == [
        "An operator had the SMS taken up again, although its outcome is unknown: outage of 3 May."
    ]
    assert [one["id"] for one in run("unknown", "list", "--json").json] == [lost[SECOND]]
    assert _states(working, lost[SECOND]) == ("unknown", "unknown")


def test_where_there_is_no_list_it_is_sent_at_once(working: Services, lost: dict[str, str]) -> None:
    (page,) = unknown.pages(working.engine, unknown.Wanted(number=SECOND))
    with working.engine.begin() as conn:
        assert unknown.reopen(conn, page, reason="x", listable=()) == 1
        # By now it is open: who comes second finds nothing to do.
        assert unknown.reopen(conn, page, reason="x", listable=()) == 0
        assert unknown.close(conn, page, reason="x") == 0
    assert _states(working, lost[SECOND]) == ("active", "reserved")
    assert working.later_steps.send([lost[SECOND]]) == [lost[SECOND]]


def test_who_opted_out_meanwhile_gets_nothing(working: Services, lost: dict[str, str]) -> None:
    with working.engine.begin() as conn:
        conn.execute(sa.text("INSERT INTO opt_outs (number, source) VALUES (:n, 'test')"), {"n": SECOND})
        page = next(unknown.pages(working.engine, unknown.Wanted(number=SECOND)))
        unknown.reopen(conn, page, reason="x", listable=())
    assert working.later_steps.send([lost[SECOND]]) == []
    assert _states(working, lost[SECOND]) == ("suppressed", "skipped")


def test_what_is_closed_is_listed_no_more_and_stays_unknown(working: Services, run: Run, lost: dict[str, str]) -> None:
    assert run("unknown", "close", "--key", "code-1", "--reason", "told by mail", "--dry-run").out.startswith(
        "would be closed: 1"
    )
    assert run("unknown", "close", "--key", "code-1", "--reason", "told by mail").out.startswith("closed: 1")
    assert [one["id"] for one in run("unknown", "list", "--json").json] == [lost[FIRST]]
    assert _states(working, lost[SECOND]) == ("unknown", "unknown")
    assert "told by mail" in run("explain", lost[SECOND]).out


def test_a_plan_that_went_on_is_left_alone(working: Services, run: Run, lost: dict[str, str]) -> None:
    with working.engine.begin() as conn:
        conn.execute(sa.text("UPDATE notifications SET state = 'texted' WHERE id = :id"), {"id": lost[FIRST]})
        conn.execute(sa.text("UPDATE deliveries SET number = NULL WHERE notification_id = :id"), {"id": lost[SECOND]})
    assert run("unknown", "send", "--all", "--reason", "x", "--json").json == {
        "matched": 2, "changed": 0, "dry_run": False,
    }  # fmt: skip
    assert not any(one["can_be_sent"] for one in run("unknown", "list", "--json").json)


@pytest.mark.parametrize("command", ["send", "close"])
def test_all_of_them_and_no_reason_are_not_meant_by_accident(run: Run, lost: dict[str, str], command: str) -> None:
    assert run("unknown", command, "--reason", "x").code == 2
    assert run("unknown", command, "--all").code == 2
    assert run("unknown", command, "--all", "--reason", " ").code == 2
    assert run("unknown", command, "--since", "soon", "--reason", "x").code == 1
    assert len(run("unknown", "list", "--json").json) == len(lost)


def test_more_than_a_page_is_worked_off(run: Run, lost: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unknown, "_PAGE", 1)
    assert len(run("unknown", "list", "--json").json) == len(lost)
    assert run("unknown", "close", "--all", "--reason", "x", "--json").json["changed"] == 2
    assert run("unknown", "list", "--json").json == []


def test_only_the_unknown_is_taken_up_again() -> None:
    assert {before for before, _ in REOPENED} == {DeliveryState.UNKNOWN}
