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
from knocktwice_worker.cli.output import AsJson, complain, err, out, print_json
from knocktwice_worker.embedded.installation import broker_url
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(name="tpns", help="Push payloads of Tencent Push Notification Service.", no_args_is_help=True)

File = Annotated[str, typer.Argument(help="File that holds the payload as JSON; - for the standard input.")]


@app.command()
def notify(
    file: File,
    sms_templates: Annotated[
        Path | None, typer.Option(help='JSON file of SMS texts: {"TEMPLATE ID": "text with {1}"}.')
    ] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key notifies nobody twice.")] = None,
    category: Annotated[str, typer.Option(help="transactional, marketing or critical.")] = "transactional",
    time_zone: Annotated[
        str | None, typer.Option(help="IANA zone of send_time; left out, Beijing's, as Tencent has it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a payload and print the notifications' ids, or for tags and all the blast's id, which "blast status" takes.

    A token of a registered device is texted to the number of the user whose device it is.

    What is wrong is named, a line each, and nothing is sent. Wrong SMS settings are only warned about: the push goes
    out.

    Example: knocktwice tpns notify payload.json --sms-templates templates.json
    """
    from knocktwice import Client, tpns

    payload = _object(_read(file), "payload")
    texts = {} if sms_templates is None else _object(_read(str(sms_templates)), "sms_templates")
    with _each_problem_in_its_line(), Client(broker_url(services().settings)) as client:
        done = tpns.notify(
            payload,
            client=client,
            sms_templates=texts,
            key=key,
            category=category,
            zone=tpns.BEIJING if time_zone is None else _zone(time_zone),
        )
    for problem in done.sms_problems:
        err.print("[yellow]no SMS:[/]", str(problem), markup=True, soft_wrap=True)
    if as_json:
        problems = [str(p) for p in done.sms_problems]
        blast = None if done.blast is None else str(done.blast)
        print_json({"ids": [str(i) for i in done.ids], "blast": blast, "sms_problems": problems})
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
