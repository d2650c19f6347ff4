"""``knocktwice user``: who a person is, who has a number, logging out everywhere, and erasing."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from knocktwice_worker.audience import profile
from knocktwice_worker.cli import send_options
from knocktwice_worker.cli.erase import erase_user
from knocktwice_worker.cli.output import AsJson, clock, fail, out, print_json, reading
from knocktwice_worker.cli.tables import print_table
from knocktwice_worker.notation.phone_numbers import UnusableNumber, canonical
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(name="user", help="People: what is known of them.", no_args_is_help=True)

User = Annotated[str, typer.Argument(help="Your own id of the person; behind -- if it begins with a dash.")]
Unmasked = Annotated[bool, typer.Option("--unmasked", help="With the whole number, registrations and consent source.")]


@app.command()
def show(user: User, unmasked: Unmasked = False, as_json: AsJson = False) -> None:
    """Show a person's devices, number, consent, opt-out, tags, language and zone. Exits 1 if there is nobody.

    Example: knocktwice user show u-17
    """
    found = _found(user, unmasked=unmasked)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    consent = "given" if found.consent.granted else "not given"
    source = f" ({found.consent.source})" if found.consent.source else ""
    facts = {
        "number": f"{found.phone or 'none'}{f' ({found.country})' if found.country else ''}",
        "opted out": "yes: not texted" if found.opted_out else _only(found.opted_out_of),
        "marketing": f"consent {consent}{source} {clock(found.consent.at)}".rstrip(),
        "locale": found.locale or "that of the devices",
        "time zone": found.time_zone or "that of the devices, or of the number",
        "tags": ", ".join(f"{name}={value}" for name, value in sorted(found.tags.items())) or "none",
        "known since": clock(found.created_at),
    }
    for name, fact in facts.items():
        out.print(f"{name:12} {fact}", markup=False, soft_wrap=True)
    _print_devices(found.devices)


def _only(channels: Sequence[str]) -> str:
    return f"of {', '.join(channels)} only" if channels else "no"


@app.command()
def devices(user: User, unmasked: Unmasked = False, as_json: AsJson = False) -> None:
    """List a person's devices, the last used first. Exits 1 if there is nobody of this id.

    Example: knocktwice user devices u-17
    """
    found = _found(user, unmasked=unmasked)
    if as_json:
        print_json([dataclasses.asdict(one) for one in found.devices])
    else:
        _print_devices(found.devices)


@app.command()
def find(
    phone: Annotated[str, typer.Argument(help="With its country code; quote one that holds blanks.")],
    as_json: AsJson = False,
) -> None:
    """Tell who has a phone number. Exits 1 if nobody has it.

    Example: knocktwice user find "+1 650 555 0100"
    """
    try:
        number = canonical(phone, services().settings.phone_rules)
    except UnusableNumber as error:
        fail(f"phone: {error}")
    with reading(services()) as conn:
        found = profile.with_number(conn, number)
    if as_json:
        print_json(found)
    else:
        for user in found:
            out.print(user, markup=False, soft_wrap=True)
    if not found:
        raise typer.Exit(1)


@app.command()
def logout(user: User, as_json: AsJson = False) -> None:
    """Log a person out everywhere: no device is theirs any more until they log in on it again.

    Example: knocktwice user logout u-17
    """
    with send_options.client() as client:
        client.log_out_everywhere(user)
    if as_json:
        print_json({"accepted": True})
    else:
        out.print("accepted; no device is pushed to for this person any more")


app.command("erase", help=(erase_user.__doc__ or "").replace("erase-user", "user erase"))(erase_user)


def _found(user: str, *, unmasked: bool) -> profile.Profile:
    with reading(services()) as conn:
        found = profile.find(conn, user)
    if found is None:
        fail("nobody of this id is known; what was accepted a moment ago may not be written yet")
    return found if unmasked else found.masked


def _print_devices(listed: Sequence[profile.Device]) -> None:
    if not listed:
        out.print("no devices")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("device", "platform", "shows", "locale", "zone", "seen"):
        table.add_column(name, overflow="fold")
    for one in listed:
        shows = "yes" if one.notifications_enabled else "off"
        seen = one.last_seen_at.astimezone().strftime("%Y-%m-%d")
        table.add_row(one.registration, one.platform or "", shows, one.locale or "", one.time_zone or "", seen)
    print_table(table)
