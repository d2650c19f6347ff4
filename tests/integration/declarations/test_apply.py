"""``knocktwice apply`` and ``knocktwice template``, as an operator types them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice_worker.content import template_store
from knocktwice_worker.declarations import files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from knocktwice_worker.services import Services
    from support.commands import CommandOutput

ORDER = """
templates:
  order_ready:
    default_locale: en
    fallback: {when: not_clicked, after: 10m}
    contents:
      en:
        push: {title: Your order, body: "{{ courier }} has it."}
        sms: "{{ courier }} has your order [now]."
      de:
        push: {title: Ihre Bestellung, body: "{{ courier }} hat sie."}
"""
WELCOME = """
  welcome:
    default_locale: null
    fallback: never
    contents:
      en: {push: {title: Hello, body: "Code {1}"}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.yaml"
    path.write_text(ORDER)
    return path


def test_a_file_is_applied_and_its_differences_are_shown(run: Callable[..., CommandOutput], file: Path) -> None:
    assert run("apply", str(file)) == (0, "template order_ready: created\n", "")
    assert run("apply", str(file)).out == "template order_ready: unchanged\n"
    file.write_text(
        ORDER.replace("Your order,", "'Your [red]order',").replace(", after: 10m", ", after: 600") + WELCOME
    )
    said = run("apply", str(file)).out.splitlines()
    assert [line.strip() for line in said] == [
        "template order_ready: updated",
        "contents.en.push.title",
        "- Your order",
        "+ Your [red]order",
        "template welcome: created",
    ]
    listed = run("template", "list", "--json").json
    assert [(t["name"], t["version"], t["locales"]) for t in listed] == [
        ("order_ready", 2, ["de", "en"]),
        ("welcome", 1, ["en"]),
    ]
    assert "order_ready" in run("template", "list").out


def test_a_dry_run_tells_the_same_and_changes_nothing(run: Callable[..., CommandOutput], file: Path) -> None:
    said = run("apply", str(file), "--dry-run", "--json")
    assert said.json == {
        "dry_run": True,
        "changes": [{"kind": "template", "name": "order_ready", "verb": "created", "fields": [], "next": []}],
    }
    assert run("template", "list", "--json").json == []
    run("apply", str(file))
    file.write_text(ORDER.replace("not_clicked", "not_delivered").replace("      de:", "      de-CH:"))
    change = run("apply", str(file), "--dry-run", "--json").json["changes"][0]
    assert change["fields"] == [
        {"field": "contents.de-CH.push.body", "old": None, "new": "{{ courier }} hat sie."},
        {"field": "contents.de-CH.push.title", "old": None, "new": "Ihre Bestellung"},
        {"field": "contents.de.push.body", "old": "{{ courier }} hat sie.", "new": None},
        {"field": "contents.de.push.title", "old": "Ihre Bestellung", "new": None},
        {"field": "fallback.when", "old": "not_clicked", "new": "not_delivered"},
    ]
    assert run("apply", str(file), "--dry-run").out.splitlines()[-1] == "a dry run: nothing was written"
    assert run("template", "show", "order_ready", "--json").json["version"] == 1


def test_a_file_with_a_mistake_changes_nothing(run: Callable[..., CommandOutput], file: Path) -> None:
    file.write_text(ORDER + WELCOME.replace("never", "sometimes"))
    said = run("apply", str(file))
    problem = (
        f"error: {file}:15:5: templates.welcome.fallback: "
        "must be never, or have when and after, or be a list of steps\n"
    )
    assert said == (1, "", problem)
    assert run("template", "list", "--json").json == []


def test_a_failure_half_way_changes_nothing(run: Callable[..., CommandOutput], here: Services, file: Path) -> None:
    with here.engine.begin() as conn:
        conn.execute(sa.text("ALTER TABLE templates ADD CHECK (name <> 'welcome')"))
    file.write_text(ORDER + WELCOME)
    with pytest.raises(sa.exc.IntegrityError), here.engine.begin() as conn:
        files.apply(conn, files.read(str(file)))
    assert run("template", "list", "--json").json == []


def test_two_at_once_do_not_miss_each_other(here: Services, file: Path) -> None:
    declared = files.read(str(file))

    def apply(_: int) -> str:
        with here.engine.begin() as conn:
            return files.apply(conn, declared)[0].verb

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(apply, range(8))) == ["created"] + ["unchanged"] * 7
    with here.engine.connect() as conn:
        assert template_store.names(conn)[0].version == 1


def test_what_is_shown_can_be_applied_again(run: Callable[..., CommandOutput], file: Path) -> None:
    file.write_text(ORDER + WELCOME)
    run("apply", str(file))
    for name in ("order_ready", "welcome"):
        shown = run("template", "show", name).out
        file.write_text(shown)
        assert run("apply", str(file)).out == f"template {name}: unchanged\n"
    assert shown.splitlines()[0].endswith("; parameters: 1")
    told = run("template", "show", "order_ready", "--json").json
    assert (told["parameters"], told["definition"]["fallback"]) == (
        ["courier"],
        {"when": "not_clicked", "after": "10m"},
    )


def test_a_preview_shows_what_somebody_would_get_and_what_it_costs(
    run: Callable[..., CommandOutput], file: Path
) -> None:
    run("apply", str(file))
    said = run("template", "preview", "order_ready", "--param", "courier=Zoë", "--locale", "de-AT")
    assert said.code == 0
    lines = {line[:11].strip(): line[12:] for line in said.out.splitlines()}
    assert lines["language"] == "de"
    assert lines["push title"] == "Ihre Bestellung"
    assert lines["push size"].startswith("50 of 3900 bytes")
    assert lines["sms"] == "Zoë hat sie."
    assert lines["sms size"] == "UCS-2, 1 part"
    told = run("template", "preview", "order_ready", "--params", '{"courier": "' + "A" * 160 + '"}', "--json").json
    assert (told["locale"], told["encoding"], told["sms_parts"], told["push_bytes_limit"]) == ("en", "GSM-7", 2, 3900)
    assert told["sms"] == "A" * 160 + " has your order [now]."


PLANNED = """
templates:
  table:
    default_locale: en
    signature: Bistro
    sender: "+15005550006"
    fallback:
      - {channel: whatsapp, when: not_delivered, after: 5m, content_sid: HX0123456789abcdef0123456789abcdef, variables: {"1": "{{ time }}"}}
      - {when: not_clicked, after: 2h, text: {en: "Free at {{ time }}, “Ana”"}, sender: Bistro}
      - {when: not_clicked, after: 1d}
    contents:
      en: {push: {title: Table, body: "We keep it until {{ time }}."}}
  quiet:
    default_locale: en
    fallback: never
    contents:
      en: {push: {title: Table, body: Free}}
"""


def test_a_preview_shows_each_step_of_the_plan(run: Callable[..., CommandOutput], file: Path) -> None:
    file.write_text(PLANNED)
    words = ("template", "preview", "table", "--file", str(file), "--param", "time=19:45")
    assert [line.rstrip() for line in run(*words).out.splitlines()[4:]] == [
        "step 1      whatsapp, not_delivered, after 5m",
        "content     HX0123456789abcdef0123456789abcdef",
        "variable 1  19:45",
        "step 2      sms, not_clicked, after 2h",
        "from        Bistro",
        "sms         Bistro Free at 19:45, “Ana”",
        "sms size    UCS-2, 1 part",
        "step 3      sms, not_clicked, after 1d",
        "from        +15005550006",
        "sms         Bistro We keep it until 19:45.",
        "sms size    GSM-7, 1 part",
    ]
    whatsapp, own, usual = run(*words, "--json").json["steps"]
    assert whatsapp == {
        "step": 1, "channel": "whatsapp", "when": "not_delivered", "after_s": 300.0,
        "content_sid": "HX0123456789abcdef0123456789abcdef", "variables": {"1": "19:45"},
    }  # fmt: skip
    assert (own["sender"], own["encoding"], own["sms_parts"]) == ("Bistro", "UCS-2", 1)
    assert (usual["text"], usual["sender"]) == ("Bistro We keep it until 19:45.", "+15005550006")
    missing = run("template", "preview", "table", "--file", str(file), "--param", "x=1")
    assert (missing.code, "'time' is undefined" in missing.err) == (1, True)
    quiet = run("template", "preview", "quiet", "--file", str(file)).out
    assert quiet.splitlines()[-1] == "then        nothing; the template forbids it"


def test_a_preview_of_a_file_needs_no_apply(run: Callable[..., CommandOutput], file: Path) -> None:
    file.write_text(ORDER + WELCOME)
    words = ("template", "preview", "welcome", "--file", str(file), "--locale", "en", "--json")
    assert run(*words, "--param", "1=4711").json["push"]["body"] == "Code 4711"
    assert run(*words, "--params", "[4711]").json["push"]["body"] == "Code 4711"


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        ("preview order_ready", 1, "content.push.body: 'courier' is undefined"),
        ("preview welcome", 1, "there is no template called welcome"),
        ("preview welcome --file FILE", 1, "declares no template called welcome; there are order_ready"),
        ("preview order_ready --param courier", 2, "must be NAME=VALUE"),
        ("preview order_ready --params 7", 2, "must be a JSON object or list"),
        ("preview order_ready --params {", 2, "must be a JSON object or list"),
        ("delete nothing", 1, "there is no template called nothing"),
        ("show nothing", 1, "there is no template called nothing"),
    ],
)
def test_a_wrong_use_is_explained(
    run: Callable[..., CommandOutput], file: Path, words: str, code: int, problem: str
) -> None:
    run("apply", str(file))
    said = run("template", *words.replace("FILE", str(file)).split())
    assert said.code == code
    assert problem in " ".join(said.err.split())
    assert "Traceback" not in said.err


def test_a_template_is_deleted_by_name(run: Callable[..., CommandOutput], file: Path) -> None:
    run("apply", str(file))
    assert run("template", "delete", "order_ready") == (0, "template order_ready: deleted\n", "")
    assert run("template", "list", "--json").json == []


def test_a_preview_without_a_default_asks_for_the_language(run: Callable[..., CommandOutput], file: Path) -> None:
    file.write_text("templates:" + WELCOME)
    run("apply", str(file))
    said = run("template", "preview", "welcome", "--param", "1=x")
    assert said.err == "error: locale: is missing, as there is no default_locale; there are contents for en\n"
    said = run("template", "preview", "welcome", "--param", "1=x", "--locale", "fr")
    assert said.err == "error: locale: there is nothing for fr; there are contents for en\n"


SEGMENTS = """
segments:
  vienna:
    description: Lives there
    filter: {field: tags.city, op: "=", value: Vienna}
"""


def test_a_file_declares_segments_beside_templates(run: Callable[..., CommandOutput], file: Path) -> None:
    file.write_text(ORDER + SEGMENTS)
    assert run("apply", str(file)).out == "template order_ready: created\nsegment vienna: created\n"
    assert run("apply", str(file)).out == "template order_ready: unchanged\nsegment vienna: unchanged\n"
    assert run("segment", "show", "vienna", "--json").json["description"] == "Lives there"
    file.write_text(SEGMENTS.replace("Vienna", "Graz"))
    said = [line.strip() for line in run("apply", str(file)).out.splitlines()]
    assert said == ["segment vienna: updated", "filter.value", "- Vienna", "+ Graz"]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('op: "="', "op: like", "segments.vienna.filter.op: "),
        ("tags.city", "city", "segments.vienna.filter.field: "),
        (
            "description: Lives there",
            "note: Lives there",
            "segments.vienna.note: is not a field of a segment; it has a filter, and may have a description",
        ),
        ("description: Lives there", "description: 7", "segments.vienna.description: must be text"),
    ],
)
def test_a_wrong_segment_is_named_by_its_place_and_nothing_is_applied(
    run: Callable[..., CommandOutput], file: Path, old: str, new: str, complaint: str
) -> None:
    file.write_text(ORDER + SEGMENTS.replace(old, new))
    said = run("apply", str(file))
    assert said.code == 1
    assert complaint in said.err
    assert run("template", "list", "--json").json == []
