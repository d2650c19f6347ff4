"""``knocktwice doctor`` looks at what the workers use, and tells the truth while a server hangs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from knocktwice_worker.counters import totals
from knocktwice_worker.counters.counters import Count, Counters
from knocktwice_worker.diagnosis import doctor
from knocktwice_worker.diagnosis.check import Level
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.fleet import members
from knocktwice_worker.fleet.fingerprints import fingerprints
from knocktwice_worker.fleet.members import Member
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.services import Services
from support.own_valkey import OwnValkey

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from knocktwice_worker.config import Settings
    from support.commands import CommandOutput

ALL = ("knocktwice.push", "knocktwice.fallback", "knocktwice.sms", "knocktwice.events")


def _worker(here: Services, name: str = "w1", **facts: object) -> None:
    settings = fingerprints(here.settings, secret(here.settings))
    member = Member(name, "worker", "0.1.0", ALL, settings, 0.01, {"push": "", "sms": ""})
    members.announce(here.redis, replace(member, **facts))  # type: ignore[arg-type]


def _found(here: Services) -> dict[str, tuple[Level, str]]:
    return {check.name: (check.level, check.finding) for check in doctor.examine(here)}


def test_without_a_worker_everything_about_workers_says_so(here: Services) -> None:
    found = _found(here)
    assert found["workers"][0] is found["queues"][0] is Level.ERROR
    assert "celery -A knocktwice_worker worker" in found["workers"][1]
    assert found["beat"][0] is Level.WARNING


def test_queues_that_no_worker_serves_are_named(here: Services) -> None:
    _worker(here, queues=("knocktwice.events",))
    level, finding = _found(here)["queues"]
    assert level is Level.ERROR
    assert "knocktwice.push, knocktwice.fallback, knocktwice.sms (only knocktwice.events)" in finding
    _worker(here, "w2", queues=ALL[:3])
    assert _found(here)["queues"][0] is Level.OK


def test_a_worker_that_fell_silent_serves_nothing_and_is_named(here: Services) -> None:
    _worker(here)
    said = here.redis.hget("knocktwice:members", "w1")
    assert isinstance(said, bytes)
    long_ago = int(said.partition(b" ")[0]) - members.GONE_S - 1
    here.redis.hset("knocktwice:members", "w1", f"{long_ago} ".encode() + said.partition(b" ")[2])
    assert _found(here)["queues"][0] is Level.ERROR
    _worker(here, "w2")
    level, finding = _found(here)["workers"]
    assert level is Level.WARNING
    assert "w1 for" in finding


def test_workers_that_differ_are_an_error_and_a_shell_that_differs_is_told(here: Services) -> None:
    _worker(here)
    assert _found(here)["settings"] == (Level.OK, "all workers agree, and this shell with them")
    others = here.settings.model_copy(update={"sms_per_day": 3, "public_url": "https://x.example"})
    _worker(here, settings=fingerprints(others, secret(here.settings)))
    level, finding = _found(here)["settings"]
    assert level is Level.OK
    assert "KNOCKTWICE_PUBLIC_URL, KNOCKTWICE_SMS_PER_DAY" in finding
    _worker(here, "w2")
    level, finding = _found(here)["settings"]
    assert level is Level.ERROR
    assert "KNOCKTWICE_PUBLIC_URL, KNOCKTWICE_SMS_PER_DAY" in finding


def test_a_wrong_clock_is_named(here: Services) -> None:
    _worker(here)
    assert _found(here)["clocks"][0] is Level.OK
    _worker(here, "fast", ahead_s=3.0)
    level, finding = _found(here)["clocks"]
    assert level is Level.WARNING
    assert "fast is 3 s ahead" in finding
    _worker(here, "slow", ahead_s=-3700.0)
    level, finding = _found(here)["clocks"]
    assert level is Level.ERROR
    assert "slow is 3700 s behind" in finding


def test_the_workers_credentials_count_and_not_those_of_this_shell(here: Services) -> None:
    # This shell has none.
    assert _found(here)["push"][0] is Level.WARNING
    others = here.settings.model_copy(update={"twilio_from": "+16505550199"})
    theirs = fingerprints(others, secret(here.settings))
    _worker(here, settings=theirs)
    found = _found(here)
    assert found["push"][0] is found["sms"][0] is Level.OK
    _worker(here, settings=theirs, credentials={"push": "Google gives no access token", "sms": ""})
    level, finding = _found(here)["push"]
    assert level is Level.ERROR
    assert "w1: Google gives no access token" in finding


def test_answers_of_the_last_minutes_are_told_by_the_providers_codes(here: Services) -> None:
    counters = Counters()
    counters.add(Count.PROVIDER_ANSWERS, ("twilio", "sent", "none"), 2)
    counters.add(Count.PROVIDER_ANSWERS, ("twilio", "rejected", "21211"), 3)
    totals.flush(here.redis, counters)
    assert _found(here)["answers"] == (Level.OK, "in 10 minutes twilio: 3 rejected 21211, 2 sent")
    counters.add(Count.PROVIDER_ANSWERS, ("twilio", "refused", "20003"), 9)
    totals.flush(here.redis, counters)
    level, finding = _found(here)["answers"]
    assert level is Level.WARNING
    assert "9 refused 20003" in finding


def test_parked_messages_are_told_without_what_they_quote(here: Services) -> None:
    assert _found(here)["dead letters"] == (Level.OK, "none")
    with here.engine.begin() as conn:
        for _ in range(2):
            dead_letters.park(conn, message_id=None, task=None, reason="no such field: +16505550100", payload="{}")
    level, finding = _found(here)["dead letters"]
    assert level is Level.WARNING
    assert finding.startswith("2 parked, for example: no such field; ")


def test_a_hanging_broker_is_told_line_by_line_and_what_works_is_told_too(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "DEADLINE_S", 1.0)
    monkeypatch.setattr(doctor, "PROVIDERS_DEADLINE_S", 1.0)
    with OwnValkey(tmp_path / "hanging") as valkey:
        here = Services(settings.model_copy(update={"broker_url": valkey.url}))
        here.redis.ping()
        valkey.suspend()
        found = _found(here)
        for name in ("broker", "workers", "queues", "backlog", "refusals"):
            assert found[name][0] is Level.ERROR, name
            assert "no answer within 1 s" in found[name][1], name
        assert found["postgres"][0] is found["migrations"][0] is found["dead letters"][0] is Level.OK
        valkey.resume()
        here.close()


def test_the_command_fails_while_something_does_not_work(run: Callable[..., CommandOutput], here: Services) -> None:
    done = run("doctor")
    assert done.code == 1
    assert "error    workers" in done.out
    _worker(here)
    told = {check["name"]: check["level"] for check in run("doctor", "--json").json}
    assert told["workers"] == told["queues"] == "ok"
