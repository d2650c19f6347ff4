"""The operators' switches on the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice_worker import services
from knocktwice_worker.fleet import members
from knocktwice_worker.runtime.announcing import Announcer
from knocktwice_worker.services import process
from knocktwice_worker.switches import overrides
from knocktwice_worker.switches.audit import By
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.commands import CommandOutput

WHY = ("--reason", "the operator there is down")


def test_a_pause_is_set_listed_seen_by_doctor_and_ended_by_the_same_words(run: Callable[..., CommandOutput]) -> None:
    assert run("pause", "sms", "--country", "de", "--for", "2h", *WHY).code == 0
    (one,) = json.loads(run("switches", "--json").out)["pauses"]
    assert (one["channel"], one["country"], one["reason"], one["waiting"]) == ("sms", "DE", WHY[1], 0)
    told = run("switches").out
    assert "sms, country DE since" in told
    assert f"({WHY[1]}): nothing waits" in " ".join(told.split())
    assert run("set", "sms_budget", "5000", *WHY).code == 0
    checks = {check["name"]: check for check in json.loads(run("doctor", "--json").out)}
    assert (checks["pauses"]["level"], "country DE" in checks["pauses"]["finding"]) == ("warning", True)
    assert "KNOCKTWICE_SMS_BUDGET=5000 since" in checks["changed"]["finding"]
    assert "0 of 5000 in all" in checks["sms budget"]["finding"]
    # Without the country it is another pause, which is not on.
    refused = run("resume", "sms", *WHY)
    assert refused.code == 1
    assert "sms is not paused; paused now: 1: sms, country DE" in refused.err
    assert run("resume", "sms", "--country", "DE", *WHY).code == 0
    assert json.loads(run("switches", "--json").out)["pauses"][0]["ended_at"] is not None
    said = run("audit").out
    assert "pause 1, channel sms, country DE, for 2h" in said
    assert "the operator there is down" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pause", *WHY), "say what"),
        (("pause", "sms"), "reason: say why"),
        (("pause", "smoke", *WHY), "channel: there is no smoke; there are: push, sms, whatsapp"),
        (("pause", "sms", "--for", "0s", *WHY), "for: must be longer than nothing"),
        (("pause", "sms", "--for", "0", *WHY), "for: must be longer than nothing"),
        (("pause", "sms", "--for", "-1h", *WHY), "for: must be seconds or a time"),
        (("pause", "sms", "--for", "366d", *WHY), "for: must be between 0 and 365 days"),
        (("pause", "--country", "", *WHY), "country: is no country code"),
        (("pause", "sms", "--reason", "\x1b[2J"), "reason: must be one line without control characters"),
        (("resume", "sms", "--everything", *WHY), "name the pause by its number, or by its options"),
        (("set", "sms_countries", "[" * 2000, *WHY), "KNOCKTWICE_SMS_COUNTRIES: must be a JSON list"),
        (("set", "sms_parts_per_s", "nan", *WHY), "KNOCKTWICE_SMS_PARTS_PER_S: "),
        (("pause", "sms", "--channel", "push", *WHY), "it is sms or push, not both"),
        (("resume", "--id", "7", *WHY), "pause 7 is not on; paused now: nothing"),
        (
            ("set", "secret", "x", *WHY),
            "secret: cannot be changed without a restart; these can: KNOCKTWICE_SMS_PER_DAY",
        ),
        (("set", "sms_budget", "many", *WHY), "KNOCKTWICE_SMS_BUDGET: "),
        (("set", "quiet_hours", "late", *WHY), "KNOCKTWICE_QUIET_HOURS: is not a span of hours such as 21:00-08:00"),
        (("set", "sms_countries", '["XX"]', *WHY), "KNOCKTWICE_SMS_COUNTRIES: "),
        (("unset", "sms_budget", *WHY), "KNOCKTWICE_SMS_BUDGET: is not changed"),
    ],
)
def test_what_cannot_be_is_refused_and_says_what_can(
    run: Callable[..., CommandOutput], words: tuple[str, ...], said: str
) -> None:
    refused = run(*words)
    assert refused.code != 0
    assert said in " ".join(refused.err.replace("│", " ").split())


def test_a_changed_setting_reaches_a_worker_that_runs_and_one_that_starts(
    run: Callable[..., CommandOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_steered", {})
    monkeypatch.setattr(process, "_FRESH_S", 0.0)
    before = services.steered()
    counted, noticed = before.counters, before.troubles
    assert (before.settings.sms_budget, before.fallback.countries, before.quiet.hours.start.hour) == (
        0,
        frozenset(),
        21,
    )
    assert run("set", "sms_budget", "5000", *WHY).code == 0
    assert run("set", "KNOCKTWICE_SMS_COUNTRIES", '["DE", "AT"]', *WHY).code == 0
    assert run("set", "quiet_hours", "20:00-09:00", *WHY).code == 0
    assert run("set", "sms_parts_per_s", "5", *WHY).code == 0
    after = services.steered()
    assert after.engine is before.engine
    # What was counted, and what is known of providers, goes on.
    assert (after.counters, after.troubles) == (counted, noticed)
    assert (after.limits.limits.budget.total, after.fallback.countries) == (5000, {"DE", "AT"})
    assert (after.quiet.hours.start.hour, after.settings.sms_parts_per_s) == (20, 5)
    assert services.steered() is after
    # A worker that starts has them from its first task on.
    monkeypatch.setattr(process, "_steered", {})
    process._services.clear()
    assert services.steered().limits.limits.budget.total == 5000
    assert "KNOCKTWICE_QUIET_HOURS=20:00-09:00" in run("switches").out
    assert run("unset", "sms_budget", *WHY).code == 0
    assert services.steered().limits.limits.budget.total == 0
    assert "set KNOCKTWICE_SMS_BUDGET, value 5000" in run("audit").out


def test_a_worker_that_has_a_changed_setting_differs_from_no_other(
    run: Callable[..., CommandOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_steered", {})
    assert run("set", "sms_budget", "5000", *WHY).code == 0
    here = services.steered()
    assert here.settings.sms_budget == 5000
    announcer = Announcer("worker", tries=False)
    announcer.start()
    eventually(lambda: members.list_all(here.redis))
    # As a shell, or a worker that had no task yet, has it.
    process._services.clear()
    checks = {check["name"]: check for check in json.loads(run("doctor", "--json").out)}
    assert checks["settings"]["finding"] == "all workers agree, and this shell with them"
    announcer.stop()
    here.close()


def test_a_setting_must_fit_together_with_the_others(run: Callable[..., CommandOutput]) -> None:
    assert "must not be more than KNOCKTWICE_SMS_BUDGET" in run("set", "sms_budget_reserve", "10", *WHY).err
    assert run("set", "sms_budget", "100", *WHY).code == 0
    assert run("set", "sms_budget_reserve", "10", *WHY).code == 0
    assert "must not be more than KNOCKTWICE_SMS_BUDGET" in run("unset", "sms_budget", *WHY).err
    assert json.loads(run("switches", "--json").out)["settings"][0]["value"] == "100"


def test_a_worker_whose_database_does_not_answer_keeps_what_it_knows(
    run: Callable[..., CommandOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_steered", {})
    monkeypatch.setattr(process, "_FRESH_S", 0.0)
    assert run("set", "sms_budget", "5000", *WHY).code == 0
    before = services.steered()

    def refuse(*_: object) -> None:
        raise sa.exc.OperationalError("SELECT", {}, Exception("gone"))

    sa.event.listen(before.engine, "before_cursor_execute", refuse)
    assert services.steered() is before
    assert services.steered().settings.sms_budget == 5000
    sa.event.remove(before.engine, "before_cursor_execute", refuse)


def test_a_wrong_row_of_another_release_changes_nothing(
    run: Callable[..., CommandOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_steered", {})
    monkeypatch.setattr(process, "_FRESH_S", 0.0)
    here = services.services()
    with here.engine.begin() as conn:
        overrides.change(conn, here.settings, "sms_budget", "5", By("ada", "why"))
        conn.execute(sa.text("UPDATE overrides SET value = 'many'"))
    assert services.steered().settings.sms_budget == 0
    assert run("unset", "sms_budget", *WHY).code == 0
