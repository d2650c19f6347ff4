"""``knocktwice blast``, as an operator or cron types it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import blast_id, uuid7
from knocktwice_worker import blast_store, blasts, segments, template_table, templates
from knocktwice_worker.segment_filter import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from clock import Clock
    from commands import Said
    from knocktwice_worker.services import Services

    Run = Callable[..., Said]

#: Noon in London, and night in Tokyo.
NOON = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
TEXT = "{{ tea }} is cheaper until Sunday, in all our shops, everywhere and all day long. " * 3
START = ("blast", "start", "all", "--template", "tea", "--param", "tea=Assam", "--key", "k")
#: id → number, region, consent, opted out, zone, device with notifications on, locale
PEOPLE: dict[str, tuple[str | None, str | None, bool, bool, str | None, bool | None, str | None]] = {
    "push": (None, None, False, False, None, True, None),
    "both": ("+16505550101", "US", True, False, "Europe/London", True, None),
    "sms": ("+16505550102", "US", True, False, "Europe/London", False, "de"),
    "asleep": ("+16505550103", "US", True, False, "Asia/Tokyo", None, None),
    "sleeps by number": ("+81312345678", "JP", True, False, None, None, None),
    "out": ("+16505550104", "US", True, True, "Europe/London", None, None),
    "no consent": ("+16505550105", "US", False, False, "Europe/London", None, None),
    "capped": ("+16505550106", "US", True, False, "Europe/London", True, None),
    "nobody": (None, None, False, False, None, None, None),
}


@pytest.fixture
def people(here: Services, clock: Clock) -> None:
    """One of each kind, a segment of all, and a template of marketing whose SMS has two parts, in German one."""
    clock.set(NOON)
    push = {"title": "Tea", "body": TEXT}
    definition = {
        "default_locale": "en",
        "category": "marketing",
        "fallback": {"when": "not_clicked", "after": "1h"},
        "contents": {"en": {"push": push}, "de": {"push": push, "sms": "{{ tea }} ist billiger."}},
    }
    with here.engine.begin() as conn:
        segments.put(conn, "all", parse({"everyone": True}))
        template_table.put(conn, "tea", templates.check("tea", definition))
        for id_, (number, region, consent, out, zone, enabled, locale) in PEOPLE.items():
            values: dict[str, Any] = {"id": id_, "number": number, "region": region, "consent": consent, "zone": zone}
            values |= {"enabled": enabled, "locale": locale}
            conn.execute(sa.text("INSERT INTO users (id, time_zone, locale) VALUES (:id, :zone, :locale)"), values)
            if enabled is not None:
                conn.execute(
                    sa.text(
                        "INSERT INTO devices (registration, user_id, notifications_enabled) VALUES ('silent-' || :id, :id, :enabled)"
                    ),
                    values,
                )
            conn.execute(
                sa.text(
                    "INSERT INTO phones (user_id, number, region, consented_at) "
                    "SELECT :id, :number, :region, CASE WHEN :consent THEN knocktwice_now() END WHERE :number IS NOT NULL"
                ),
                values,
            )
            if out:
                conn.execute(sa.text("INSERT INTO opt_outs (number, source) VALUES (:number, 'test')"), values)
        _texted(conn, "+16505550106", 10)


def _texted(conn: sa.Connection, number: str, times: int) -> None:
    batch = uuid7()
    conn.execute(
        sa.text(
            "INSERT INTO batches (id, content, category, ttl, reference) VALUES (:id, '{}', 'critical', '1 h', '{}')"
        ),
        {"id": batch},
    )
    for _ in range(times):
        values = {"id": uuid7(), "batch": batch, "number": number}
        conn.execute(
            sa.text(
                "INSERT INTO notifications (id, batch_id, params, state, reason, finished_at) "
                "VALUES (:id, :batch, '{}', 'texted', 'x', knocktwice_now())"
            ),
            values,
        )
        conn.execute(
            sa.text(
                "INSERT INTO deliveries (notification_id, step, channel, state, number, counted_at, finished_at) "
                "VALUES (:id, 1, 'sms', 'sent', :number, knocktwice_now(), knocktwice_now())"
            ),
            values,
        )


@pytest.mark.usefixtures("people")
def test_a_dry_run_counts_everybody_once_and_starts_nothing(run: Run, here: Services) -> None:
    found = run(*START, "--dry-run", "--json").json["preflight"]
    assert {name: found[name] for name in ("users", "push", "sms_only", "unreachable")} == {
        "users": 9,
        "push": 3,
        "sms_only": 3,
        "unreachable": 3,
    }
    reasons = {name: found[name] for name in ("no_phone", "opted_out", "no_consent", "country_blocked", "capped")}
    assert reasons == {"no_phone": 2, "opted_out": 1, "no_consent": 1, "country_blocked": 0, "capped": 1}
    assert found["quiet"] == 2
    # One of one part in German, three of two.
    assert found["worst_parts"] == 7
    with here.engine.begin() as conn:
        assert not blast_store.latest(conn, 1)


@pytest.mark.usefixtures("people")
def test_a_dry_run_tells_people_what_it_costs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no price for JP, US: see KNOCKTWICE_SMS_PRICES" in run(*START, "--dry-run").out
    from knocktwice_worker import services

    monkeypatch.setenv("KNOCKTWICE_SMS_PRICES", '{"US": 0.01, "*": 0.1}')
    services._services.clear()
    said = run(*START, "--dry-run", "--expected-fallback-share", "0.5").out
    assert "SMS parts, likely          6, costs 0.24" in said
    assert "SMS parts, at most         7, costs 0.25" in said
    assert "likely: 50% of those pushed are texted (as you said)" in said


@pytest.mark.usefixtures("people")
def test_a_country_that_may_not_be_texted_is_counted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from knocktwice_worker import services

    monkeypatch.setenv("KNOCKTWICE_SMS_COUNTRIES", '["US"]')
    services._services.clear()
    assert run(*START, "--dry-run", "--json").json["preflight"]["country_blocked"] == 1


@pytest.mark.usefixtures("people")
def test_a_blast_over_its_budget_is_refused_and_can_be_started_with_a_larger_one(run: Run) -> None:
    for dry in ((), ("--dry-run",)):
        said = run(*START, "--budget-parts", "6", *dry)
        assert (said.code, "up to 7 SMS parts; the budget is 6" in said.err) == (3, True)
    assert "no price for JP, US" in run(*START, "--budget-cost", "100").err
    assert run(*START, "--budget-parts", "7").out == "blast k: started\n"


@pytest.mark.usefixtures("people")
def test_the_same_key_again_says_so_and_exits_with_0(run: Run) -> None:
    assert run(*START).out == "blast k: started\n"
    said = run(*START, "--budget-parts", "0")
    assert (said.code, said.out) == (0, "blast k: was started before; nothing was done\n")
    assert run(*START, "--json").json == {"id": str(blast_id("k")), "key": "k", "new": False}


@pytest.mark.usefixtures("people")
def test_what_is_expected_is_learnt_from_earlier_blasts(run: Run, working: Services) -> None:
    run(*START)
    id_ = str(blast_id("k"))

    def publish(_: object, ids: Any) -> None:
        for page in ids:
            blasts.send_page(working, page, publish)

    blasts.step(working, id_, publish)
    blasts.step(working, id_, publish)
    with working.engine.begin() as conn:
        pushed = "SELECT notification_id FROM deliveries WHERE step = 0 AND state = 'sent' ORDER BY 1"
        ids = list(conn.scalars(sa.text(pushed)))
        assert len(ids) == 3
        conn.execute(
            sa.text(
                "UPDATE notifications SET state = CASE WHEN id = CAST(:one AS uuid) THEN 'texted' ELSE 'reached' END, reason = 'x', "
                "finished_at = knocktwice_now() WHERE id = ANY(CAST(:ids AS uuid[]))"
            ),
            {"one": ids[0], "ids": ids},
        )
    found = run(*START, "--dry-run", "--json").json["preflight"]
    assert found["fallback_share"] == pytest.approx(1 / 3)
    assert "1 of 3" in found["share_from"]


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("blast", "start", "al", "--template", "tea", "--key", "k"), 1, "segment: no segment 'al'"),
        (("blast", "start", "all", "--template", "te", "--key", "k"), 1, "template: there is none called te"),
        (("blast", "start", "all", "--template", "tea", "--key", "k"), 1, "template tea (de): content.push.body"),
        (("blast", "start", "all", "--template", "tea"), 2, "--key"),
        ((*START, "--category", "spam"), 1, "category: must be one of transactional, marketing, critical"),
        (("blast", "status", "k"), 1, "there is no blast k"),
        (("blast", "pause", "k"), 1, "there is no blast k"),
        (("blast", "unschedule", "k"), 1, "there is no recurring blast called k"),
    ],
)
def test_what_is_wrong_is_named(run: Run, words: tuple[str, ...], code: int, said: str) -> None:
    answer = run(*words)
    assert answer.code == code
    assert said in answer.err


@pytest.mark.usefixtures("people")
def test_a_blast_is_paused_resumed_and_aborted(run: Run) -> None:
    run(*START)
    assert run("blast", "pause", "k", "--reason", "a typo").out == "blast k: paused\n"
    assert run("blast", "pause", "k").err == "error: blast k is not running, it is paused\n"
    assert "a typo" in run("blast", "status", "k").out
    assert run("blast", "resume", str(blast_id("k"))).out == "blast k: resumed\n"
    assert run("blast", "abort", "k").out == "blast k: aborted\n"
    assert run("blast", "abort", "k").out == "blast k: was aborted before\n"
    said = run("blast", "status", "k", "--watch")
    assert (said.code, "blast k was aborted: aborted by hand" in said.err) == (1, True)
    (told,) = run("blast", "list", "--json").json["blasts"]
    assert (told["state"], told["template"], told["segment"]) == ("aborted", "tea", "all")
