"""The ``knocktwice`` command. Every reading command takes ``--json``; exit codes: 0 fine, 1 not fine, 2 wrong use."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_worker.cli.lazy import Entry, every, group

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Heading in the help → the commands below it, with the first sentences of their own help.
PANELS = {
    "Send": (
        Entry("notify", "Notify one person and print the notification's id.", "notify", "notify"),
        Entry(
            "cancel",
            "Stop notifications: a push not sent yet is not sent, an SMS not sent yet never is.",
            "notify",
            "cancel",
        ),
        Entry("blast", "One notification to everybody in a segment.", "blast"),
        Entry("outbox", "Messages that an application commits with its own transaction.", "outbox"),
    ),
    "Look": (
        Entry("status", "Show where a notification and its steps stand.", "tell", "status"),
        Entry(
            "explain", "Tell the story of a notification: what happened, what was decided, and why.", "tell", "explain"
        ),
        Entry(
            "history",
            "Show the latest notifications, the newest first: id, when, who, state, steps.",
            "history",
            "history",
        ),
        Entry("stats", "Show what became of notifications, and what it cost.", "stats", "stats"),
        Entry("advise", "Show how many SMS each delay would have sent, and suggest one.", "stats", "advise"),
        Entry("inbound", "What people wrote to our senders.", "inbound"),
        Entry("receipts", "What apps report of their pushes.", "receipts"),
        Entry(
            "whatif",
            "Decide the last days' fallbacks again, by the rules as they were and by others.",
            "whatif",
            "whatif",
        ),
        Entry(
            "forecast", "Show how many SMS the next hour will bring, and what they will cost.", "forecast", "forecast"
        ),
        Entry("holdout", "Show what the SMS are worth: who answered with one, and who without.", "holdout", "holdout"),
        Entry(
            "simulate",
            "Let an invented day happen under several sets of rules, and compare them.",
            "simulate",
            "simulate",
        ),
        Entry("trial", "Show how many SMS stricter rules would have stopped that went, by rule.", "trial", "trial"),
        Entry("bill", "Compare a provider's list or invoice with what we know of its messages.", "bill", "bill"),
        Entry("doctor", "Check servers, workers, credentials and backlog.", "checkup", "doctor"),
    ),
    "What is said, and to whom": (
        Entry("apply", "Create and update what a YAML file declares.", "template", "apply"),
        Entry("lint", "Look for costly characters, delays, hours and texts that would disappoint.", "lint", "lint"),
        Entry("template", "Look at the stored templates.", "template"),
        Entry("segment", "Saved groups of people, as filters.", "segment"),
        Entry("user", "People: what is known of them.", "user"),
        Entry("erase-user", "Erase a person everywhere; what was counted stays.", "erase", "erase_user"),
        Entry("opt-out", "Numbers that asked not to be texted.", "opt_out"),
    ),
    "Steer": (
        Entry(
            "pause",
            "Let messages wait, on every worker within two seconds, until `knocktwice resume`.",
            "switches",
            "pause",
        ),
        Entry(
            "resume",
            "End a pause, named by the same options or by its number; what waits goes, through limits and quiet hours as always.",
            "switches",
            "resume",
        ),
        Entry(
            "switches",
            "List what is paused, with how many messages wait for it, and which settings are changed.",
            "switches",
            "list_all",
        ),
        Entry(
            "set",
            "Change a budget, the countries, the quiet hours or a pace on every worker within two seconds, and over restarts.",
            "switches",
            "change",
        ),
        Entry("unset", "Let a changed setting be again as the workers' environment says.", "switches", "restore"),
        Entry("audit", "Show what operators did: who, when, what and why.", "switches", "audit_lines"),
        Entry("dead", "Messages that nobody could process.", "dead"),
        Entry("brake", "Messages that are held because far more people than usual would be texted.", "brake"),
        Entry("unknown", "Messages that may or may not have gone out.", "unknown"),
        Entry("webhooks", "Tell an application what happens to notifications.", "webhooks"),
        Entry(
            "listen",
            "Show webhooks as they arrive, and hand them on to your own server, until Ctrl-C.",
            "listen",
            "listen",
        ),
        Entry("key", "Keys of the HTTP gateway.", "gateway"),
        Entry("cells", "The installations that share an application's people.", "cells"),
    ),
    "Run": (
        Entry("up", "Run the whole stack until Ctrl-C.", "local", "up"),
        Entry("env", "Print what another terminal needs beside a running `knocktwice up`.", "local", "env"),
        Entry("demo", "Send three notifications to simulated people and show what happens.", "local", "demo"),
        Entry("sandbox", "Run the stand-in for the providers until Ctrl-C.", "local", "sandbox"),
        Entry("gateway", "Run the HTTP gateway until Ctrl-C.", "gateway", "gateway"),
        Entry("exporter", "Serve the series for Prometheus at /metrics until Ctrl-C.", "exporter", "exporter"),
        Entry("migrate", "Bring the database schema up to date.", "local", "migrate"),
    ),
    "Move in": (
        Entry("import", "People, devices and numbers from other products' exports.", "importing"),
        Entry("tpns", "Push payloads of Tencent Push Notification Service.", "tpns"),
    ),
}

app = typer.Typer(
    name="knocktwice",
    cls=group(PANELS),
    help="Push first; if nobody answers in time, an SMS.",
    epilog="'knocktwice COMMAND --help' tells more and has examples. Spans of time are written like 90s, 10m, 2h or 7d.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Rich takes longer to import than everything else that the help needs.
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line; errors that a person can mend are one line, not a traceback."""
    for word in sys.argv[1:]:
        # Python hands over bytes that are no UTF-8 as halves of surrogate pairs, which no server takes.
        if not word.isascii() and any("\ud800" <= character <= "\udfff" for character in word):
            from knocktwice_worker.cli.output import complain

            complain(f"{word!a} is not UTF-8; type it in a UTF-8 terminal")
            sys.exit(2)
    try:
        app(prog_name="knocktwice")
    except KnocktwiceError as error:
        from knocktwice_worker.cli.output import complain

        complain(str(error))
        sys.exit(1)


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command with what is typed for it, for documents and tests. Imports all of them."""
    return every(typer.main.get_command(app))


def _say_version(wanted: bool) -> None:
    if wanted:
        from knocktwice import __version__

        print(f"knocktwice {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Push first; if nobody answers in time, an SMS."""
