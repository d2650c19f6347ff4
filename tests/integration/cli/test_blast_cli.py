"""``knocktwice blast``, as an operator or cron types it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import blast_id, uuid7
from knocktwice_worker.audience import segments
from knocktwice_worker.audience.segment_filter import parse
from knocktwice_worker.blasts import preflight, request, standing
from knocktwice_worker.content import template_store, templates
from knocktwice_worker.content.links import short_links
from knocktwice_worker.switches import audit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from knocktwice_worker.services import Services
    from support.clock import Clock
    from support.commands import CommandOutput

    Run = Callable[..., CommandOutput]

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
        template_store.put(conn, "tea", templates.check("tea", definition))
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
        assert not standing.latest(conn, 1)


@pytest.mark.usefixtures("people")
def test_a_dry_run_tells_people_what_it_costs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no price for JP, US: see KNOCKTWICE_SMS_PRICES" in run(*START, "--dry-run").out
    from knocktwice_worker.services import process

    monkeypatch.setenv("KNOCKTWICE_SMS_PRICES", '{"US": 0.01, "*": 0.1}')
    process._services.clear()
    said = run(*START, "--dry-run", "--expected-fallback-share", "0.5").out
    assert "SMS parts, likely          6, costs 0.24" in said
    assert "SMS parts, at most         7, costs 0.25" in said
    assert "likely: 50% of those pushed are texted (as you said)" in said


LONG = "https://shop.example/tea/" + "assam/" * 40


def _declare(here: Services, **fields: Any) -> None:
    definition = {
        "default_locale": "en",
        "fallback": {"when": "not_clicked", "after": "1h"},
        "contents": {"en": {"push": {"title": "Tea", "body": "{{ tea }}"}}},
    }
    with here.engine.begin() as conn:
        template_store.put(conn, "tea", templates.check("tea", definition | fields))


def _preflight(run: Run, monkeypatch: pytest.MonkeyPatch, *words: str, **settings: str) -> dict[str, Any]:
    from knocktwice_worker.services import process

    for name, value in settings.items():
        monkeypatch.setenv(f"KNOCKTWICE_{name}", value)
    process._services.clear()
    found: dict[str, Any] = run(*START, "--dry-run", "--json", *words).json["preflight"]
    return found


@pytest.mark.usefixtures("people")
def test_a_tracked_link_counts_as_long_as_it_will_be(run: Run, here: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"Cheap {{{{ tea }}}}: {{{{ '{LONG}' | track }}}}"
    _declare(here, contents={"en": {"push": {"title": "Tea", "body": "Cheap"}, "sms": text}})
    # Who has agreed does not matter here, so five can be texted; without an address the link stays as it is, of two
    # parts.
    assert _preflight(run, monkeypatch)["worst_parts"] == 10
    assert _preflight(run, monkeypatch, PUBLIC_URL="https://push.example.com")["worst_parts"] == 5
    # One more letter than a part holds: the link is counted as it will be, not left out.
    link = len("https://push.example.com/l/") + short_links.TOKEN_LENGTH
    padded = "x" * (160 - link) + f"{{{{ '{LONG}' | track }}}}"
    for more, each in (("", 1), ("x", 2)):
        _declare(here, contents={"en": {"push": {"title": "Tea", "body": "Cheap"}, "sms": more + padded}})
        assert _preflight(run, monkeypatch)["worst_parts"] == 5 * each


@pytest.mark.usefixtures("people")
def test_each_step_of_a_plan_is_counted_and_has_its_price(
    run: Run, here: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    _declare(
        here,
        fallback=[
            {"channel": "whatsapp", "when": "not_delivered", "after": "5m", "content_sid": "HX" + "0" * 32},
            {"when": "not_clicked", "after": "1h", "text": "{{ tea }} " + "x" * 160},
            {"when": "not_clicked", "after": "1d"},
        ],
    )
    found = _preflight(run, monkeypatch)
    # Nobody sends the WhatsApp message, so that step is passed over.
    assert (found["worst_parts"], found["worst_whatsapp"]) == (15, 0)
    found = _preflight(run, monkeypatch, WHATSAPP_FROM="+15005550006")
    assert (found["worst_whatsapp"], found["unpriced_whatsapp"]) == (5, ["JP", "US"])
    assert "no price for JP, US: see KNOCKTWICE_WHATSAPP_PRICES" in run(*START, "--dry-run").out
    found = _preflight(
        run, monkeypatch, "--expected-fallback-share", "0", SMS_PRICES='{"*": 0.1}', WHATSAPP_PRICES='{"*": 0.01}'
    )
    # Of the five, one has a push, whom nothing follows then.
    assert (found["worst_cost"], found["worst_whatsapp_cost"]) == (1.55, 0.05)
    assert (found["expected_parts"], found["expected_whatsapp"], found["expected_cost"]) == (12, 4, 1.24)
    said = run(*START, "--dry-run").out
    assert "SMS parts, at most        15, costs 1.50" in said
    assert "WhatsApp, at most          5, costs 0.05" in said
    assert "up to 1.55; the budget is 1.54" in run(*START, "--budget-cost", "1.54").err


HX = "HX0123456789abcdef0123456789abcdef"


def _kept(here: Services, key: str = "k") -> dict[str, Any]:
    with here.engine.connect() as conn:
        return dict(conn.execute(sa.text("SELECT message FROM blasts WHERE key = :key"), {"key": key}).scalar_one())


@pytest.mark.usefixtures("people")
def test_steps_stand_in_for_the_templates_and_are_counted(
    run: Run, here: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    _declare(here)
    steps = (
        "--step",
        f"whatsapp:{HX} after=5m variables.1='{{{{ tea }}}}'",
        "--step",
        f"sms text={'x' * 161} after=2h",
    )
    prices = {"SMS_PRICES": '{"*": 0.1}', "WHATSAPP_PRICES": '{"*": 0.01}', "WHATSAPP_FROM": "+15005550006"}
    assert _preflight(run, monkeypatch)["worst_parts"] == 5
    found = _preflight(run, monkeypatch, *steps, **prices)
    assert (found["worst_parts"], found["worst_whatsapp"], found["worst_cost"]) == (10, 5, 1.05)
    assert "up to 1.05; the budget is 1" in run(*START, *steps, "--budget-cost", "1").err
    assert run(*START, *steps).out == "blast k: started\n"
    assert _kept(here)["plan"] == [
        {"channel": "whatsapp", "when": "not_delivered", "after_s": 300.0, "content_sid": HX, "variables": {"1": "{{ tea }}"}},
        {"channel": "sms", "when": "not_delivered", "after_s": 7200.0, "text": "x" * 161},
    ]  # fmt: skip


@pytest.mark.usefixtures("people")
def test_a_file_of_steps_needs_no_template(run: Run, here: Services, tmp_path: Path) -> None:
    file = tmp_path / "steps.yaml"
    file.write_text('- text: "{{ tea }} is cheaper."\n- {when: not_clicked, after: 1d, text: Still cheaper.}\n')
    words = ("blast", "start", "all", "--key", "k", "--param", "tea=Assam", "--steps", str(file))
    found = run(*words, "--dry-run", "--json").json["preflight"]
    # Nothing is pushed; all with a number who have not opted out may get both, but one has had all of the day's.
    assert (found["push"], found["sms_only"], found["worst_parts"], found["expected_parts"]) == (0, 5, 10, 10)
    assert "there is no template" in found["share_from"]
    assert run(*words).out == "blast k: started\n"
    kept = _kept(here)
    assert (kept["content"], [s.get("after_s") for s in kept["plan"]]) == ({}, [None, 86_400.0])
    (listed,) = run("blast", "list", "--json").json["blasts"]
    assert (listed["template"], listed["state"]) == (None, "running")
    assert run("blast", "list").code == run("blast", "status", "k").code == 0


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--template", "tea", "--step", "sms text=x", "--steps", "-"), 1, "steps: are told by --step and in a file"),
        (("--template", "tea", "--step", "fax"), 1, "steps[0].channel: must be sms or whatsapp"),
        (("--template", "tea", "--step", "sms when=later"), 1, "steps[0].when: must be"),
        (("--template", "tea", "--step", "sms text='{{ price }}'"), 1, "steps[0].text: 'price' is undefined"),
        (
            ("--template", "tea", "--step", "sms after=1s"),
            1,
            "steps[0].after: must be between KNOCKTWICE_MIN_AFTER_S (60)",
        ),
        (("--template", "tea", *("--step", "sms text=x") * 11), 1, "steps: has 11 items; 0 to 10 are allowed"),
        ((), 2, "nothing to say; name one"),
    ],
)
def test_a_wrong_step_of_a_blast_is_told_its_field_and_starts_nothing(
    run: Run, here: Services, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, said: str
) -> None:
    from knocktwice_worker.services import process

    monkeypatch.setenv("KNOCKTWICE_MIN_AFTER_S", "60")
    process._services.clear()
    for dry in ((), ("--dry-run",)):
        done = run("blast", "start", "all", "--key", "k", "--param", "tea=Assam", *words, *dry)
        assert (done.code, done.out) == (code, "")
        assert said in done.err
    with here.engine.connect() as conn:
        assert not standing.latest(conn, 1)


@pytest.mark.usefixtures("people")
def test_what_is_missing_in_a_step_is_told_before_anybody_is_notified(run: Run, here: Services) -> None:
    _declare(here, fallback=[{"when": "not_clicked", "after": "1h", "text": "{{ tea }} {{ price }}"}])
    for dry in ((), ("--dry-run",)):
        said = run(*START, *dry)
        assert (said.code, said.out) == (1, "")
        assert "template tea (en): plan[0].text: 'price' is undefined" in said.err


@pytest.mark.usefixtures("people")
def test_a_blast_of_nothing_but_an_sms_can_be_started_and_is_counted(working: Services) -> None:
    from knocktwice_shared.messages import parse_blast

    wire: dict[str, Any] = {"v": 1, "key": "x", "filter": {"everyone": True}, "only": "sms"}
    texted = parse_blast(wire | {"content": {"sms": {"text": "{{ tea }} " + "x" * 160}}, "params": {"tea": "Assam"}})
    with working.engine.begin() as conn:
        found = preflight.examine(conn, texted, working.settings, working.limits.limits, working.channels, share=0.0)
        assert request.start(conn, texted).new
    # There is no push to be answered, so all who can be texted are.
    assert (found.push, found.sms_only, found.worst_parts, found.expected_parts) == (0, 5, 10, 10)


@pytest.mark.usefixtures("people")
def test_a_country_that_may_not_be_texted_is_counted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from knocktwice_worker.services import process

    monkeypatch.setenv("KNOCKTWICE_SMS_COUNTRIES", '["US"]')
    process._services.clear()
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
    assert run(*START, "--json").json == {"id": str(blast_id("k")), "key": "k", "new": False, "differs": False}


@pytest.mark.usefixtures("people")
def test_what_is_expected_is_learnt_from_earlier_blasts(run: Run, working: Services) -> None:
    run(*START)
    id_ = str(blast_id("k"))

    def publish(_: object, ids: Any) -> None:
        for page in ids:
            working.expansion.send_page(page, publish)

    working.expansion.step(id_, publish)
    working.expansion.step(id_, publish)
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
    # What followed then says nothing of what is to follow now.
    found = run(*START, "--dry-run", "--json", "--step", "sms after=5m").json["preflight"]
    assert found["fallback_share"] == 1
    assert "no earlier blast with this template and these steps" in found["share_from"]
    with working.engine.begin() as conn:
        plan = '[{"channel": "sms", "when": "not_delivered", "after_s": 300}]'
        conn.execute(
            sa.text("UPDATE blasts SET message = message || jsonb_build_object('plan', CAST(:plan AS jsonb))"),
            {"plan": plan},
        )
    found = run(*START, "--dry-run", "--json", "--step", "sms after=5m").json["preflight"]
    assert "the latest blasts with tea and these steps: 1 of 3" in found["share_from"]


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
def test_a_blast_is_paused_resumed_and_aborted(run: Run, here: Services) -> None:
    run(*START)
    assert run("blast", "pause", "k", "--reason", "a typo").out == "blast k: paused\n"
    assert run("blast", "pause", "k").err == "error: blast k is not running, it is paused\n"
    assert "a typo" in run("blast", "status", "k").out
    assert run("blast", "resume", str(blast_id("k"))).out == "blast k: resumed\n"
    assert run("blast", "throttle", "k", "600", "--reason", "slower").out == "blast k: 600 people a minute\n"
    assert "throttle per min 600" in run("blast", "status", "k").out
    assert "reason: say why" in run("blast", "throttle", "k", "0").err
    assert run("blast", "abort", "k").out == "blast k: aborted\n"
    assert run("blast", "throttle", "k", "60", "--reason", "x").code == 1
    assert run("blast", "abort", "k").out == "blast k: was aborted before\n"
    said = run("blast", "status", "k", "--watch")
    assert (said.code, "blast k was aborted: aborted by hand" in said.err) == (1, True)
    (told,) = run("blast", "list", "--json").json["blasts"]
    assert (told["state"], told["template"], told["segment"]) == ("aborted", "tea", "all")
    with here.engine.connect() as conn:
        done = [(line.action, line.reason) for line in audit.lines(conn)]
    assert done == [
        ("abort blast", "aborted by hand"),
        ("throttle blast", "slower"),
        ("resume blast", "resumed by hand"),
        ("pause blast", "a typo"),
    ]


@pytest.mark.usefixtures("people")
def test_a_blast_without_a_template_takes_every_option_of_a_push(run: Run, here: Services) -> None:
    looks = {
        "link": "shop://tea",
        "image": "https://shop.example/tea.png",
        "subtitle": "Only today",
        "sound": "none",
        "badge": 3,
        "channel_id": "offers",
        "priority": "normal",
        "icon": "tea",
        "color": "#00aa55",
    }
    objects = {
        "android": {"notification": {"visibility": "PRIVATE"}},
        "apns": {"payload": {"aps": {"thread-id": "tea"}}},
        "webpush": {"headers": {"Urgency": "low"}},
    }
    options = [word for name, value in looks.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    options += [word for name, value in objects.items() for word in (f"--{name}", json.dumps(value))]
    words = ("blast", "start", "all", "--key", "k", "--title", "{{ tea }}", "--body", "New.", "--param", "tea=Assam")
    assert run(*words, *options, "--data", "id=7", "--sms", "Tea!", "--when", "not_clicked", "--after", "60").code == 0
    kept = _kept(here)
    assert kept["content"] == {
        "push": {"title": "{{ tea }}", "body": "New.", "data": {"id": "7"}} | looks | objects,
        "sms": {"text": "Tea!"},
    }
    assert [(step["when"], step["after_s"]) for step in kept["plan"]] == [("not_clicked", 60.0)]


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--template", "tea", "--sound", "bell"), 2, "give --title and --body, too"),
        (("--title", "t"), 2, "go together"),
        (("--title", "t", "--body", "b", "--priority", "urgent"), 1, "push.priority: must be"),
        (("--title", "t", "--body", "b", "--apns", "{"), 2, "must be a JSON object"),
        (("--title", "t", "--body", "b", "--sms", "x", "--step", "sms"), 2, "belongs into a step"),
        (("--title", "t", "--body", "b", "--template", "tea"), 1, "template"),
    ],
)
def test_a_wrong_push_of_a_blast_is_told_its_option_and_starts_nothing(
    run: Run, here: Services, words: tuple[str, ...], code: int, said: str
) -> None:
    done = run("blast", "start", "all", "--key", "k", *words)
    assert (done.code, said in done.err) == (code, True), done.err
    with here.engine.connect() as conn:
        assert not standing.latest(conn, 1)
