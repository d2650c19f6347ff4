"""``knocktwice apply`` and ``knocktwice template``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from knocktwice_shared.channels import CONTENTS
from knocktwice_shared.messages import PUSH_BYTES_LIMIT
from knocktwice_worker.channels.registry import wording_of
from knocktwice_worker.cli import typed_values
from knocktwice_worker.cli.output import AsJson, clock, fail, out, print_json, reading
from knocktwice_worker.cli.tables import AsCsv, print_table
from knocktwice_worker.content import template_store, templates
from knocktwice_worker.content.links.short_links import example
from knocktwice_worker.content.preview import Preview, for_user, preview
from knocktwice_worker.declarations import files
from knocktwice_worker.notation import declared_yaml, durations
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.content.sms_parts import Encoding

app = typer.Typer(name="template", help="Look at the stored templates.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The template's name.")]

_COLOURS = {"created": "green", "updated": "yellow", "unchanged": "dim"}


def apply(
    file: Annotated[str, typer.Argument(help="YAML file; - reads the standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create and update what a YAML file declares: all of it or, if anything is wrong, nothing.

    Example: knocktwice apply templates.yaml --dry-run
    """
    declared = files.read(file)
    with reading(services()) as conn:
        changes = files.apply(conn, declared)
        if dry_run:
            conn.rollback()
        else:
            conn.commit()
    if as_json:
        print_json({"dry_run": dry_run, "changes": [dataclasses.asdict(change) for change in changes]})
        return
    for change in changes:
        _print_change(change)
    if dry_run:
        out.print("a dry run: nothing was written")


@app.command("list")
def list_(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the templates.

    Example: knocktwice template list
    """
    with reading(services()) as conn:
        listed = template_store.names(conn)
    if as_json:
        print_json([template._asdict() for template in listed])
        return
    table = Table("name", "version", "languages", "changed")
    for template in listed:
        table.add_row(template.name, str(template.version), ", ".join(template.locales), clock(template.updated_at))
    print_table(table, as_csv=as_csv, empty="no template is stored; 'knocktwice apply' stores them")


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show a template as a file would declare it.

    Example: knocktwice template show order_ready
    """
    found = _stored(name)
    if as_json:
        told = found._asdict() | {
            "definition": found.definition.as_json(),
            "parameters": found.definition.parameters,
        }
        print_json(told)
        return
    taken = ", ".join(found.definition.parameters) or "none"
    print(f"# version {found.version} of {clock(found.updated_at)}; parameters: {taken}")
    print(declared_yaml.dump({"templates": {name: found.definition.as_json()}}), end="")


@app.command("preview")
def preview_(
    name: Name,
    param: Annotated[list[str] | None, typer.Option(help="A value as NAME=VALUE; 1=VALUE is for {1}. Repeat.")] = None,
    params: Annotated[str | None, typer.Option(help="All values as JSON, an object or a list.")] = None,
    user: Annotated[str | None, typer.Option(help="The person whose tags, language and zone fill it in.")] = None,
    locale: Annotated[
        str | None, typer.Option(help="The recipient's language, like de-AT.", show_default="that of --user")
    ] = None,
    file: Annotated[str | None, typer.Option(help="Take the template from this file, before it is applied.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what somebody would get, step by step, and what that costs: bytes of the push, encoding and parts of each SMS.

    Example: knocktwice template preview order_ready --param courier=Ana --locale de-AT
    """
    definition = _declared(file, name) if file else _stored(name).definition
    values = given_values(params, param or [])
    if user is not None:
        with reading(services()) as conn:
            values, locale = for_user(conn, definition, user, values, locale)
    shown = preview(
        definition,
        values,
        locale,
        example(services().settings.link_address),
        wording_of=wording_of,
    )
    if as_json:
        print_json({"name": name, **shown.as_json()})
    else:
        _print_preview(shown)


@app.command()
def delete(name: Name) -> None:
    """Delete a template. What was accepted with it is not affected; whoever names it from now on is not notified.

    Example: knocktwice template delete order_ready
    """
    with reading(services()) as conn:
        found = template_store.delete(conn, name)
        conn.commit()
    if not found:
        fail(_unknown(name))
    out.print(f"template {name}: deleted", markup=False)


def _stored(name: str) -> template_store.Stored:
    with reading(services()) as conn:
        found = template_store.get(conn, name)
    return found or fail(_unknown(name))


def _unknown(name: str) -> str:
    return f"there is no template called {name}; 'knocktwice template list' lists them"


def _declared(file: str, name: str) -> templates.Definition:
    declared = files.read(file).get("templates", {})
    if name not in declared:
        fail(f"{file}: declares no template called {name}; there are {', '.join(declared) or 'none'}")
    return templates.check(name, declared[name])


def given_values(params: str | None, param: list[str]) -> dict[str, Any]:
    """Return the values given as JSON and those given one by one, by name."""
    given = typed_values.json_value(params, "--params", "a JSON object or list") if params else {}
    if isinstance(given, list):
        given = {str(place): value for place, value in enumerate(given, 1)}
    if not isinstance(given, dict):
        raise typer.BadParameter("must be a JSON object or list", param_hint="--params")
    return given | typed_values.pairs(param, "--param")


def _print_change(change: files.Change) -> None:
    out.print(f"{change.kind} {change.name}: [{_COLOURS[change.verb]}]{change.verb}[/]")
    for difference in change.fields:
        out.print(f"  {difference.field}", markup=False)
        for sign, value in (("-", difference.old), ("+", difference.new)):
            if value is not None:
                out.print(f"    {sign} {value}", markup=False, soft_wrap=True)
    for time in change.next:
        out.print(f"  next: {time}", markup=False, soft_wrap=True)


def _print_preview(shown: Preview) -> None:
    lines = [("language", shown.locale), *_push(shown), *_steps(shown)]
    for name, value in lines:
        out.print(f"{name:11} {value}", markup=False, soft_wrap=True)


def _push(shown: Preview) -> Iterator[tuple[str, str]]:
    push = shown.push
    if push is None:
        return
    yield "push title", str(push.title)
    yield "push body", str(push.body)
    yield from (
        (f"push {name}", _shown(v)) for name, v in push.fields().items() if name not in ("title", "body", "data")
    )
    yield from ((f"data {name}", value) for name, value in push.data.items())
    size = f"{shown.push_bytes} of {PUSH_BYTES_LIMIT} bytes (FCM takes 4096, the rest is knocktwice's own)"
    yield "push size", size


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def _steps(shown: Preview) -> Iterator[tuple[str, str]]:
    if not shown.fallback:
        yield "then", "nothing; the template forbids it"
    elif not shown.steps:
        yield from _sms(shown.sms, shown.encoding, shown.sms_parts)
    for step in shown.steps:
        yield (
            f"step {step.step}",
            f"{step.channel}, {step.when}, after {durations.written(timedelta(seconds=step.after_s))}"
            if step.when
            else f"{step.channel}, at once",
        )
        if step.sender:
            yield "from", step.sender
        shown_fields = dict(step.content)
        if {"text", "encoding", "sms_parts"} <= shown_fields.keys():
            yield from _sms(shown_fields.pop("text"), shown_fields.pop("encoding"), shown_fields.pop("sms_parts"))
        fields = CONTENTS[step.channel].fields
        for name, value in shown_fields.items():
            label = fields[name].label if name in fields and fields[name].label else name
            texts = value.items() if isinstance(value, Mapping) else [("", one) for one in _each(value)]
            yield from ((f"{label} {key}".strip(), str(text)) for key, text in texts)


def _each(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _sms(text: str, encoding: Encoding, count: int) -> Iterator[tuple[str, str]]:
    yield "sms", text
    yield "sms size", f"{encoding}, {count} {'part' if count == 1 else 'parts'}"
