"""``knocktwice erase-user``."""

from __future__ import annotations

from typing import Annotated

import typer

from knocktwice_worker.cli import send_options
from knocktwice_worker.cli.output import AsJson, out, print_json, reading
from knocktwice_worker.privacy import erasure
from knocktwice_worker.services import services


def erase_user(
    user: Annotated[str, typer.Argument(help="Your own id of the person.")],
    check: Annotated[
        bool, typer.Option("--check", help="Erase nothing; say what is left. Exits 1 if anything is.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a person everywhere; what was counted stays. Workers do it, and once more when all of them know.

    Example: knocktwice erase-user u-17 --check
    """
    if check:
        with reading(services()) as conn:
            left = erasure.left(conn, user)
        if as_json:
            print_json(left)
        else:
            out.print(", ".join(f"{count} {name}" for name, count in left.items() if count) or "nothing is left")
        raise typer.Exit(1 if any(left.values()) else 0)
    with send_options.client() as client:
        client.erase_user(user)
    if as_json:
        print_json({"accepted": True})
    else:
        out.print("accepted; workers erase the person within a minute (--check says what is left)")
