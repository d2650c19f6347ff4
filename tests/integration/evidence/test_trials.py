"""Rules that are tried: the SMS goes, its line in the ledger says which of them would have stopped it,
and all are counted.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_worker.config import Settings
from knocktwice_worker.counters import totals
from knocktwice_worker.evidence import trials
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.lifecycle import Delay, Refusal, TextTrouble
from knocktwice_worker.metrics.scrape import Scrapes
from knocktwice_worker.notifications.store import trial_counts
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.services import Services
from knocktwice_worker.switches import overrides
from knocktwice_worker.switches.audit import By

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from support.clock import Clock
    from support.commands import CommandOutput
    from support.http_gateway import HttpGateway

NUMBER, BRITISH = "+16505550100", "+447400123456"
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
#: All that would be in the way of these messages is off.
OFF: dict[str, Any] = {"sms_per_day": 0, "sms_same_content_s": 0, "quiet_hours": "", "untextable_days": 0}

#: The word → the trial that says it of the second of two messages to one number.
TRIALS: dict[str, dict[str, Any]] = {
    Refusal.CAPPED_DAILY: {"sms_per_day": 1},
    Refusal.DUPLICATE_CONTENT: {"sms_same_content_s": "10m"},
    Refusal.BUDGET_EXHAUSTED: {"sms_budget": 1},
    Delay.QUIET_HOURS: {"quiet_hours": "00:00-23:59:59.999"},
    Refusal.COUNTRY_BLOCKED: {"sms_countries": ["US"]},
    Refusal.INVALID_NUMBER: {"number_kinds": ["pager"]},
    Refusal.UNTEXTABLE: {"untextable_days": 30},
    Refusal.TOO_LATE: {"useless_after_marketing_s": 60},
}


@pytest.fixture
def build(working: Services) -> Iterator[Callable[..., Services]]:
    built: list[Services] = []

    def made(trial: Mapping[str, Any], **given: Any) -> Services:
        own = working.settings.model_dump() | OFF | {"trial": trial} | given
        built.append(Services(Settings(**own)))
        return built[-1]

    yield made
    for here in built:
        here.close()


def push(here: Services, number: str = NUMBER, category: str = "marketing", project: str | None = None) -> str:
    """Push to a phone that stays silent; its SMS is due at once."""
    id_ = str(uuid7())
    people = [{"id": id_, "registrations": ["silent-1"], "phone": number}]
    wire = {"v": 1, "id": str(uuid7()), "content": {"push": {"title": "t", "body": "b"}}, "recipients": people}
    plan = [{"channel": "sms", "when": "not_clicked", "after_s": 0}]
    here.pushes.send(parse_batch({**wire, "plan": plan, "category": category, "project": project}))
    return id_


def text(here: Services, *ids: str) -> None:
    assert here.later_steps.send(here.fallback.check(ids)) == sorted(ids)


def known(here: Services, id_: str) -> list[str]:
    """Return the words in the ledger's line about the decision."""
    words = "SELECT inputs -> 'would_be_stopped_by' FROM decisions WHERE notification_id = :id AND inputs ? 'due_at'"
    with here.engine.connect() as conn:
        return conn.execute(sa.text(words), {"id": id_}).scalar_one() or []


def counts(here: Services, since: timedelta = DAY) -> dict[str, int]:
    with here.engine.connect() as conn:
        return trial_counts.read(conn, since)


@pytest.mark.parametrize("word", TRIALS)
def test_what_a_trial_would_have_stopped_goes_and_is_counted_by_rule(
    build: Callable[..., Services], clock: Clock, word: str
) -> None:
    here = build(TRIALS[word])
    if word == Refusal.UNTEXTABLE:
        with here.engine.begin() as conn:
            conn.execute(
                sa.text("INSERT INTO untextable (number, channel, reason) VALUES (:n, 'sms', 'landline')"),
                {"n": BRITISH},
            )
    text(here, push(here))
    clock.advance(MINUTE)
    second = push(here, BRITISH if word in (Refusal.COUNTRY_BLOCKED, Refusal.UNTEXTABLE) else NUMBER)
    clock.advance(2 * MINUTE if word == Refusal.TOO_LATE else timedelta())
    text(here, second)
    assert known(here, second) == [word]
    found = counts(here)
    assert found[word] == found[trial_counts.ANY]
    with here.engine.connect() as conn:
        told = tell(conn, second)
    assert told is not None
    assert told.state == "texted"
    assert f"Rules that are only watched would have stopped it: {word}." in " ".join(m.sentence for m in told.moments)


def test_a_message_that_several_rules_would_have_stopped_counts_once_in_all(
    build: Callable[..., Services], clock: Clock, run: Callable[..., CommandOutput]
) -> None:
    trial = {"sms_per_day": 1, "sms_countries": ["DE"]}
    here = build(trial, brake="watch")
    text(here, push(here))
    clock.advance(MINUTE)
    text(here, push(here), push(here, BRITISH, "critical"))
    assert counts(here) == {"capped_daily": 1, "country_blocked": 3, "any": 3}
    totals.flush(here.redis, here.counters)
    assert b'knocktwice_watched_total{rule="country_blocked"} 3' in Scrapes(here).text()
    with here.engine.begin() as conn:
        by = By("a test", "to see")
        overrides.change(conn, here.settings, "trial", '{"sms_per_day": 1, "sms_countries": ["DE"]}', by)
    told = run("trial", "--json").json
    assert told["would_have_stopped"] == 3
    lines = {one["rule"]: one for one in told["rules"]}
    assert lines["country_blocked"] == {
        "rule": "country_blocked",
        "project": None,
        "setting": "KNOCKTWICE_SMS_COUNTRIES",
        "in_force": "-",
        "tried": "DE",
        "would_have_stopped": 3,
    }
    assert (lines["capped_daily"]["in_force"], lines["capped_daily"]["tried"]) == ("10", "1")
    shown = run("trial", "--since", "7d").out
    assert "3 messages of the last 7d went that they would have stopped" in shown
    # Counts are kept for five weeks.
    clock.advance(timedelta(days=36))
    with here.engine.begin() as conn:
        # The minute may have been the last one of its ten.
        assert trial_counts.expire(conn) in (3, 5)
    assert counts(here, trials.LONGEST) == {}


def test_a_project_tries_its_own_limits(
    build: Callable[..., Services],
    clock: Clock,
    run: Callable[..., CommandOutput],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "projects.yaml"
    own = "{sms_per_day: 3, trial: {sms_per_day: 2, sms_same_content: 0, budget: {total: 2}}}"
    file.write_text(f"projects: {{shop: {own}, bank: {{}}}}")
    here = build({"sms_countries": ["DE"]}, projects_file=str(file))
    words = []
    for project in ("bank", "shop", "shop", "shop"):
        id_ = push(here, project=project)
        text(here, id_)
        words.append(known(here, id_))
        clock.advance(MINUTE)
    # Messages of the other project take up no room.
    assert words == [["country_blocked"]] * 3 + [["country_blocked", "shop/capped_daily"]]
    assert counts(here) == {"country_blocked": 4, "shop/capped_daily": 1, "any": 4}
    totals.flush(here.redis, here.counters)
    assert b'knocktwice_watched_total{rule="shop/capped_daily"} 1' in Scrapes(here).text()
    monkeypatch.setenv("KNOCKTWICE_PROJECTS_FILE", str(file))
    told = [one for one in run("trial", "--json").json["rules"] if one["project"]]
    assert [tuple(one.values()) for one in told] == [
        ("capped_daily", "shop", "sms_per_day", "3", "2", 1),
        ("budget_exhausted", "shop", "budget.total", "-", "2", 0),
    ]
    assert "shop/capped_daily,3,2,1" in run("trial", "--csv").out


def test_what_is_stopped_anyway_is_not_counted(build: Callable[..., Services], clock: Clock) -> None:
    here = build({"sms_per_day": 1, "sms_countries": ["DE"]}, sms_per_day=1)
    text(here, push(here))
    clock.advance(MINUTE)
    second = push(here)
    assert here.fallback.check([second]) == []
    assert counts(here) == {"country_blocked": 1, "any": 1}
    with here.engine.connect() as conn:
        inputs = conn.execute(sa.text("SELECT inputs FROM decisions WHERE notification_id = :id"), {"id": second})
        assert "would_be_stopped_by" not in inputs.scalar_one()


def test_without_a_trial_no_statement_is_more_and_nothing_is_counted(build: Callable[..., Services]) -> None:
    statements: list[str] = []
    here = build({})
    sa.event.listen(here.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    text(here, push(here))
    assert not any("trial_counts" in one for one in statements)
    assert counts(here) == {}


def test_the_gateway_tells_it_to_keys_that_read_everything(gateway: HttpGateway) -> None:
    client = gateway.client(Scope.READ)
    told = client.get("/v1/trials?since_s=3600").json()
    assert (told["since_s"], told["would_have_stopped"]) == (3600, 0)
    assert {one["rule"] for one in told["rules"]} == set(map(str, trials.SETTINGS))
    assert client.get("/v1/trials?since_s=0").status_code == 422


def test_every_rule_that_stops_or_holds_can_be_watched_or_is_always_enforced() -> None:
    enforced = {
        # Consent, and the person's own word.
        Refusal.OPTED_OUT,
        Refusal.NO_CONSENT,
        # Nothing could go, or it would go twice or to somebody else.
        Refusal.NO_PHONE,
        Refusal.NO_ADDRESS,
        Refusal.NO_SENDER,
        Refusal.INVALID_CONTENT,
        Refusal.SHARED_NUMBER,
        Refusal.NUMBER_CHANGED,
        # An operator, an experiment or an outage speaks of this very message here, so no rule can be tried.
        Refusal.DROPPED,
        Refusal.HELD_OUT,
        Delay.PAUSED,
        Delay.PROBE,
        Delay.LIMITS_UNAVAILABLE,
    }
    watchable = set(trials.SETTINGS)
    assert watchable | enforced == set(Refusal) | set(Delay) | set(TextTrouble)
    assert not watchable & enforced


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('{"opt_outs": true}', "opt_outs: consent, opt-outs, answers and cancellations are always enforced"),
        ('{"sms_a_day": 5}', "sms_a_day: is no rule that can be tried; these can: sms_per_day"),
        ('{"sms_per_day": -1}', "sms_per_day: "),
        ('{"sms_per_day": 5', "must be a JSON object"),
    ],
)
def test_a_trial_that_cannot_be_names_what_is_wrong(here: Services, value: str, said: str) -> None:
    with here.engine.begin() as conn, pytest.raises(InvalidMessage, match=said):
        overrides.change(conn, here.settings, "trial", value, By("a test", "to see"))
