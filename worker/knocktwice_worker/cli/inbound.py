"""``knocktwice inbound``: what people wrote to our senders."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.audience import inbound_texts
from knocktwice_worker.cli import phone_options, times
from knocktwice_worker.cli.output import AsJson, OfProject, clock, out, print_json, reading
from knocktwice_worker.notation.masking import mask
from knocktwice_worker.services import services

app = typer.Typer(name="inbound", help="What people wrote to our senders.", no_args_is_help=True)


class Keyword(StrEnum):
    """What a text asks for."""

    STOP = "STOP"
    START = "START"
    HELP = "HELP"
    NONE = "none"


@app.callback()
def _inbound() -> None:
    """Read what people wrote to our senders: STOP, questions, thanks."""


@app.command("list")
def list_all(
    number: Annotated[str | None, typer.Option(help="Of this number, in E.164.")] = None,
    user: Annotated[str | None, typer.Option(help="Of the number that this person has now.")] = None,
    keyword: Annotated[
        Keyword | None, typer.Option(help="Only these; none: what is no keyword.", case_sensitive=False)
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Since then: like 2h, 7d or 2026-11-21T09:30+01:00.", show_default="ever")
    ] = None,
    before: Annotated[str | None, typer.Option(help="Older than this text; the last id of the page before.")] = None,
    project: OfProject = None,
    limit: Annotated[int, typer.Option(help="So many at most.", min=1, max=inbound_texts.PAGE_LIMIT)] = 100,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show numbers and words in full.")] = False,
    as_json: AsJson = False,
) -> None:
    """List texts, newest first. Numbers are masked and words left out unless you ask for them with --reveal.

    Example: knocktwice inbound list --keyword none --since 2d --reveal
    """
    here = services()
    rules = here.settings.phone_rules.of_anyone
    wanted = inbound_texts.Wanted(
        None if number is None else phone_options.textable(number, "number", rules),
        user,
        keyword,
        None if since is None else times.moment(since, "since"),
        None if before is None else _id(before),
        limit,
        project,
    )
    with reading(here) as conn:
        found = inbound_texts.page(conn, wanted)
    texts, more = found[:limit], len(found) > limit
    if as_json:
        print_json([text.shown(reveal=reveal) for text in texts])
        return
    for text in texts:
        who = text.number if reveal else mask(text.number)
        words = f"({text.characters or 0} characters)" if text.words is None or not reveal else text.words
        keyword_ = text.keyword or ""
        line = f"{clock(text.received_at)}  {who or 'erased':14} {keyword_:5} {' '.join(words.split())}"
        out.print(line, markup=False, soft_wrap=True)
    if more:
        out.print(f"there are older ones: --before {texts[-1].id}")
    elif not texts:
        out.print("nobody wrote anything")


def _id(before: str) -> UUID:
    try:
        return UUID(before)
    except ValueError:
        raise InvalidMessage("before", "must be a text's id, as the list shows it with --json") from None
