"""``knocktwice lint``: from files, from the database, and by what became of earlier pushes."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, parse_audience, parse_batch
from knocktwice_worker.audience import people, receipt_health
from knocktwice_worker.content import template_store, templates
from knocktwice_worker.lifecycle import AttemptState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline import receipts
from knocktwice_worker.reporting import delay_curve, rollups

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from uuid import UUID

    from knocktwice_worker.services import Services
    from support.clock import Clock
    from support.commands import CommandOutput

HOUR, LEASE = timedelta(hours=1), timedelta(minutes=1)
WHY = ("--reason", "the nights are short")
COSTLY = "Your table\u2019s ready and we keep it for you until a quarter to eight, please ask for it at the door"


def _template(sms: str = "Tea is ready", **fields: Any) -> dict[str, Any]:
    return {"default_locale": "en", "contents": {"en": {"push": {"title": "t", "body": "b"}, "sms": sms}}, **fields}


def _file(place: Path, **declared: Any) -> str:
    # JSON is YAML.
    place.write_text(json.dumps(declared))
    return str(place)


def _input(declared: dict[str, Any]) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(json.dumps(declared).encode()))


def _rules(done: CommandOutput) -> list[tuple[str, str]]:
    return [(flaw["rule"], flaw["where"]) for flaw in done.json]


def _keep(here: Services, name: str, made: dict[str, Any]) -> None:
    with here.engine.begin() as conn:
        template_store.put(conn, name, templates.check(name, made))


def _push(here: Services, template: str, users: list[str], when: str) -> list[UUID]:
    """Let the provider take a push to each user's phone."""
    said = {"push": {"title": "t", "body": "b"}}
    wire = {
        "v": 1,
        "id": str(uuid7()),
        "content": said,
        "plan": [{"channel": "sms", "when": when, "after_s": 60}],
        "recipients": [{"id": str(uuid7()), "registrations": [f"phone-{user}"]} for user in users],
    }
    batch = parse_batch(wire)
    with here.engine.begin() as conn:
        work = store.accept(
            conn, [store.Intake(batch, {}, HOUR, {**said, "template": template, "sms": None})], lease=LEASE
        )
        taken = [store.PushResult(w.notification_id, w.registration, state=AttemptState.SENT) for w in work]
        store.record_push(conn, taken, retry_for=HOUR)
    return [r.id for r in batch.recipients if r.id is not None]


def _answer(here: Services, ids: list[UUID], users: list[str], kind: Receipt) -> None:
    now = datetime.now(UTC)
    found = [ReceiptEvent(id_, kind, now, f"phone-{user}") for id_, user in zip(ids, users, strict=False)]
    receipts.record(here.engine, found)


@pytest.fixture
def slow_app(here: Services, clock: Clock) -> None:
    """People who click five minutes after a push of the template ``news``."""
    users = [str(n) for n in range(delay_curve.FEWEST_PUSHES)]
    ids = _push(here, "news", users, "not_clicked")
    clock.advance(timedelta(minutes=5))
    _answer(here, ids, users[: delay_curve.FEWEST_CONFIRMED], Receipt.CLICKED)
    clock.advance(timedelta(hours=2))
    rollups.refresh(here.engine, "UTC", everything=True)


@pytest.fixture
def silent_app(here: Services, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app for iOS that reports no delivery, and one for Android that does."""
    monkeypatch.setenv("KNOCKTWICE_UNCONFIRMED_SAMPLE", "5")
    known = [(f"{platform}{n}", platform) for platform in ("ios", "android") for n in range(6)]
    changes = [
        {
            "change": "register_device",
            "user": user,
            "registration": f"phone-{user}",
            "platform": platform,
            "app_version": "3.1",
            "notifications_enabled": True,
            "at": "2026-11-01T12:00:00Z",
        }
        for user, platform in known
    ]
    with here.engine.begin() as conn:
        people.apply(conn, parse_audience({"v": 1, "changes": changes}))
    users = [user for user, _ in known]
    ids = _push(here, "news", users, "not_delivered")
    _answer(here, ids[6:], users[6:], Receipt.DELIVERED)
    clock.advance(timedelta(hours=3))
    receipt_health.roll_up(here.engine)


def test_files_are_named_with_their_flaws_and_the_code_is_for_pipelines(
    run: Callable[..., CommandOutput], tmp_path: Path
) -> None:
    costly = _file(tmp_path / "costly.yaml", templates={"table": _template(COSTLY)})
    sound = _file(tmp_path / "sound.yaml", templates={"tea": _template()})
    done = run("lint", sound, costly)
    assert done.code == 1
    assert f"{costly}: templates.table.contents.en.sms: '\u2019' (U+2019 RIGHT SINGLE QUOTATION MARK)" in done.out
    assert "2 parts, and 1 without" in done.out
    assert sound not in done.out
    (flaw,) = run("lint", sound, costly, "--json").json
    assert (flaw["file"], flaw["rule"]) == (costly, "costly_character")
    done = run("lint", sound)
    assert (done.code, done.out) == (0, "nothing to mend\n")
    done = run("lint", sound, "--json")
    assert (done.code, done.json) == (0, [])


def test_a_file_may_come_from_the_standard_input_and_a_wrong_one_is_refused_as_by_apply(
    run: Callable[..., CommandOutput], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", _input({"templates": {"table": _template(COSTLY)}}))
    assert "'\u2019'" in run("lint", "-").out
    wrong = run("lint", _file(tmp_path / "wrong.yaml", templates={"t": {"default_locale": "en"}}, plans={}))
    assert wrong.code == 1
    assert "templates.t.contents" in wrong.err
    assert "plans: is not known" in wrong.err


def test_files_and_settings_need_no_database(
    run: Callable[..., CommandOutput], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KNOCKTWICE_DATABASE_URL", "postgresql://127.0.0.1:1/nowhere")
    assert run("lint", _file(tmp_path / "sound.yaml", templates={"tea": _template()})).code == 0
    assert run("lint").code == 0
    assert "the database does not answer" in run("lint", "--history").err


@pytest.mark.usefixtures("slow_app")
def test_a_delay_below_the_apps_own_latency_is_found(
    run: Callable[..., CommandOutput], here: Services, tmp_path: Path
) -> None:
    hasty = _template(fallback={"when": "not_clicked", "after": "1m"})
    file = _file(tmp_path / "t.yaml", templates={"news": hasty})
    assert run("lint", file).code == 0
    assert _rules(run("lint", file, "--history", "--json")) == [("delay_too_short", "templates.news.fallback.after")]
    _keep(here, "news", hasty)
    done = run("lint", "--history")
    assert done.code == 1
    assert "waits 1m, but the app takes longer: of 200 pushes about 50 were confirmed after that" in done.out
    assert "wait 10m" in done.out
    # As long as the advice, or about another trigger, it is left alone; and so is a template without history.
    for patient in ({"when": "not_clicked", "after": "10m"}, {"when": "not_delivered", "after": "1m"}, "never"):
        _keep(here, "news", _template(fallback=patient))
        assert run("lint", "--history").code == 0, patient
    _keep(here, "olds", hasty)
    assert run("lint", "--history").code == 0


@pytest.mark.usefixtures("silent_app")
def test_waiting_for_reports_that_an_app_never_makes_is_found(
    run: Callable[..., CommandOutput], here: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = [{"when": "not_delivered", "after": "5m"}, {"when": "not_clicked", "after": "5m"}]
    _keep(here, "news", _template(fallback=waits))
    done = run("lint", "--history", "--json")
    assert _rules(done) == [("never_reported", "templates.news.fallback.0.when")]
    # Android reports.
    assert done.json[0]["problem"].startswith("ios 3.1 never report")
    _keep(here, "news", _template(fallback=waits[::-1]))
    assert run("lint", "--history").code == 0
    _keep(here, "news", _template(fallback=waits))
    monkeypatch.setenv("KNOCKTWICE_UNCONFIRMED_POLICY", "accept")
    _forget_services()
    assert run("lint", "--history").code == 0


def test_stored_templates_and_recurring_blasts_are_looked_at_with_the_hours_that_operators_have_set(
    run: Callable[..., CommandOutput], here: Services, tmp_path: Path
) -> None:
    blast = {"segment": "all", "template": "tea", "schedule": "0 9 * * 5", "category": "marketing"}
    declared = {"segments": {"all": {"filter": {"everyone": True}}}, "templates": {"tea": _template("Tea is cheap")}}
    done = run("apply", _file(tmp_path / "t.yaml", blasts={"friday": blast}, **declared))
    assert done.code == 0, done.err
    assert _rules(run("lint", "--history", "--json")) == [("no_opt_out", "blasts.friday.template.contents.en.sms")]
    _keep(here, "tea", _template("Tea is cheap. STOP ends it", valid_for="12h"))
    assert run("lint", "--history").code == 0
    assert run("set", "quiet_hours", "19:00-09:00", *WHY).code == 0
    assert _rules(run("lint", "--history", "--json")) == [("quiet_for_ever", "blasts.friday.template")]


def _forget_services() -> None:
    """The next command reads its environment anew."""
    from knocktwice_worker import services
    from knocktwice_worker.services import process

    services.services().close()
    process._services.clear()
