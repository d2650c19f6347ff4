"""``knocktwice tpns``: push payloads as Tencent documents them."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.cli import send_options
from knocktwice_worker.cli.output import AsJson, complain, err, out, print_json, reading
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice import tpns

app = typer.Typer(name="tpns", help="Push payloads of Tencent Push Notification Service.", no_args_is_help=True)

File = Annotated[str, typer.Argument(help="File that holds the payload as JSON; - for the standard input.")]


@app.command()
def notify(
    file: File,
    sms_templates: Annotated[
        Path | None, typer.Option(help='JSON file of SMS texts: {"TEMPLATE ID": "text with {1}"}.')
    ] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key notifies nobody twice.")] = None,
    category: Annotated[
        str | None, typer.Option(help="transactional, marketing or critical; left out, the saved SMS template's.")
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(help="IANA zone of send_time; left out, Beijing's, as Tencent has it.")
    ] = None,
    strict: Annotated[
        bool | None,
        typer.Option(
            "--strict/--no-strict", help="Refuse what cannot be met in full; left out, KNOCKTWICE_TPNS_STRICT."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a payload and print the notifications' ids, or for tags and all the blast's id, which "blast status" takes.

    An SMS template that is not in --sms-templates is the saved template of that name.

    A token of a registered device is texted to the number of the user whose device it is.

    What is wrong is named, a line each, and nothing is sent. Wrong SMS settings are only warned about: the push goes
    out.

    Example: knocktwice tpns notify payload.json --sms-templates templates.json
    """
    from knocktwice import tpns

    payload = _object(_read(file), "payload")
    texts = {} if sms_templates is None else _object(_read(str(sms_templates)), "sms_templates")
    here = services()
    saved = _saved(payload, texts)
    with _each_problem_in_its_line(), send_options.client() as client:
        done = tpns.notify(
            payload,
            client=client,
            sms_templates=texts | saved,
            key=key,
            category=category,
            zone=tpns.BEIJING if time_zone is None else _zone(time_zone),
            strict=here.settings.tpns_strict if strict is None else strict,
            signature=here.settings.tpns_signature,
        )
    for one in done.ignored:
        err.print("[yellow]ignored:[/]", str(one), markup=True, soft_wrap=True)
    for problem in done.sms_problems:
        err.print("[yellow]no SMS:[/]", str(problem), markup=True, soft_wrap=True)
    if as_json:
        problems = [str(p) for p in done.sms_problems]
        ignored = [str(p) for p in done.ignored]
        blast = None if done.blast is None else str(done.blast)
        print_json({"ids": [str(i) for i in done.ids], "blast": blast, "ignored": ignored, "sms_problems": problems})
    else:
        for id_ in done.ids if done.blast is None else (done.blast,):
            out.print(str(id_))


@app.command()
def segment(file: File) -> None:
    """Print the segment's filter that a payload for tags, or for all, means.

    Example: knocktwice segment put vips --filter "$(knocktwice tpns segment payload.json)"
    """
    from knocktwice import tpns

    with _each_problem_in_its_line():
        print(json.dumps(tpns.segment_filter(_object(_read(file), "payload")), ensure_ascii=False))


def _saved(payload: dict[str, Any], given: dict[str, Any]) -> dict[str, tpns.SmsTemplate]:
    """Return the saved template that the payload names, if its text is not given."""
    from knocktwice import tpns
    from knocktwice_worker.content import numbered_texts

    id_ = tpns.wanted_sms_template(payload)
    if id_ is None or id_ in given:
        return {}
    signed = not payload["sms_info"].get("sms_sign_name")
    with reading(services()) as conn:
        try:
            found = numbered_texts.find(conn, id_, signed=signed)
        except InvalidMessage as error:
            return {id_: tpns.SmsTemplate(problem=error.problem)}
    return {} if found is None else {id_: tpns.SmsTemplate(found.text, found.sender, found.category)}


@contextmanager
def _each_problem_in_its_line() -> Iterator[None]:
    from knocktwice import tpns

    try:
        yield
    except tpns.InvalidPayload as error:
        for problem in error.problems:
            complain(str(problem))
        raise typer.Exit(1) from None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidMessage("time_zone", "must be an IANA name like Europe/Vienna") from None


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidMessage("file", f"{file} cannot be read") from error


def _object(raw: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise InvalidMessage(what, "is not JSON") from None
    if not isinstance(value, dict):
        raise InvalidMessage(what, "must be a JSON object")
    return value
