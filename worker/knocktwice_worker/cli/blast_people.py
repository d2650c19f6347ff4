"""The people of ``--params people.csv``: how many they are of which kind, and what one of them would get."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from knocktwice_shared.counted import many
from knocktwice_shared.messages.values import PERSON
from knocktwice_worker.audience import segments
from knocktwice_worker.blasts import own_params, request
from knocktwice_worker.cli import params_file
from knocktwice_worker.cli.output import complain, fail, out
from knocktwice_worker.content import personal
from knocktwice_worker.content.links.short_links import example
from knocktwice_worker.database.schema.people import users
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from knocktwice_shared.messages import Blast
    from knocktwice_worker.cli.params_file import ParamsFile


def gathered(
    conn: Connection, given: ParamsFile, blast: Blast, *, quiet: bool
) -> tuple[Mapping[str, str], dict[str, int]]:
    """Read the values of each person; return those of one of them, and how many people there are of which kind."""
    found = params_file.gather(conn, given, blast, services().settings)
    if found.wrong:
        for line, problem in found.problems:
            complain(f"{given.name}, line {line}: {problem}")
        if found.wrong > len(found.problems):
            complain(f"and {found.wrong - len(found.problems)} more")
        fail(f"{given.name}: {found.wrong} of {many(found.rows, 'row')} cannot be used; nothing was started")
    counts = own_params.counts(conn, request.audience(conn, blast))
    if not quiet:
        out.print(
            f"{given.name}: {many(counts.rows, 'person', 'people')}, {counts.matched} of them in the segment, "
            f"{counts.outside} outside, {counts.unknown} unknown; {counts.without} of the segment without a row get "
            "nothing",
            markup=False,
            soft_wrap=True,
        )
    if not counts.matched:
        fail(f"{given.name}: nobody of the file is in the segment; nothing was started")
    return found.sample, asdict(counts)


def preview(conn: Connection, blast: Blast, user: str, *, own: bool, quiet: bool) -> dict[str, Any]:
    """Show what one person would get."""
    told: dict[str, Any] = {"user": user}
    one = select(users.c.id).where(users.c.id == user)
    given = own_params.given_of(conn, user) if own else {}
    if not segments.count(conn, request.audience(conn, blast), only=one):
        told["problem"] = "is not in the segment"
    elif given is None:
        told["problem"] = "has no row in the file"
    else:
        said = request.content_of(conn, request.filled(blast, given))
        person = personal.of_user(conn, user, personal.EVERYTHING)
        locale = said.choose(person.get("locale"))
        if locale is None:
            told["problem"] = "there is nothing in the person's language"
        else:
            values = {PERSON: person, **said.params}
            told |= said.shown(locale, values, example(services().settings.link_address))
    if not quiet:
        out.print(json.dumps(told, ensure_ascii=False, indent=2, default=str), markup=False, soft_wrap=True)
    return told
