"""``knocktwice gateway`` and ``knocktwice key``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from knocktwice_shared.test_side import real_side
from knocktwice_worker.cli import times
from knocktwice_worker.cli.output import AsJson, clock, out, print_json, reading
from knocktwice_worker.cli.tables import AsCsv, print_table
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from knocktwice_worker.gateway.auth.keys import Key, Scope

app = typer.Typer(name="key", help="Keys of the HTTP gateway.", no_args_is_help=True)


def gateway(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    processes: Annotated[int, typer.Option(help="Processes that share the port.", min=1)] = 1,
) -> None:
    """Run the HTTP gateway until Ctrl-C. Keys for it are made by `knocktwice key create`.

    Example: knocktwice gateway --port 8080 --processes 2
    """
    from knocktwice_worker.gateway import server

    server.run(host, port, processes)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    scope: Annotated[
        list[str], typer.Option(help="notify, audience, templates, blasts, read or admin; repeat for more.")
    ],
    lasts: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="How long it works, like 90d; left out, until revoked.")
    ] = None,
    project: Annotated[
        str | None, typer.Option(help="The only project that it sees and acts in; left out, it sees all.")
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="It does everything but the provider's call, and says what would be sent.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it. It is shown this once.

    \b
    knocktwice key create shop --scope notify --scope read --for 90d
    knocktwice key create "the shop's tests" --test --scope notify --scope read
    knocktwice key create "the shop's server" --project shop --scope notify --scope read
    """
    from knocktwice_worker.gateway.auth import keys

    here = services()
    wanted = frozenset(_scope(word) for word in scope)
    lifetime = None if lasts is None else times.span(lasts, "for")
    with reading(here) as conn:
        key = keys.create(
            conn, name, wanted, secret=secret(here.settings), lifetime=lifetime, project=project, test=test
        )
        conn.commit()
    if as_json:
        told = {"id": keys.id_of(key), "key": key, "name": name, "scopes": sorted(wanted)}
        print_json(told | {"project": project, "test": test})
        return
    print(key)


@app.command("list")
def list_(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the keys, without what makes them work.

    Example: knocktwice key list --json
    """
    from knocktwice_worker.gateway.auth import keys

    with reading(services()) as conn:
        found = keys.list_all(conn)
    if as_json:
        print_json([_told(key) for key in found])
        return
    table = Table("id", "name", "scopes", "project", "test", "created", "last used", "ends", "revoked")
    for key in found:
        times = (key.created_at, key.last_used_at, key.expires_at, key.revoked_at)
        whose = (real_side(key.project), "yes" if key.test else "")
        table.add_row(key.id, key.name, ", ".join(sorted(key.scopes)), *whose, *(clock(at) for at in times))
    print_table(table, as_csv=as_csv, empty="there are no keys; 'knocktwice key create' makes one")


@app.command()
def sign(
    id_: Annotated[str, typer.Argument(metavar="ID", help="The key's id, or the whole key.")], as_json: AsJson = False
) -> None:
    """Show the secret with which requests of a key are signed: Tencent's AccessId and SecretKey.

    It follows from the key and the installation's secret, and ends with the key.

    Example: knocktwice key sign 3f9c2a71
    """
    from knocktwice_worker.gateway.auth import keys
    from knocktwice_worker.gateway.auth.signing import signing_secret

    here = services()
    wanted = keys.id_of(id_) or id_
    with reading(here) as conn:
        key = keys.working(conn).get(wanted)
    if key is None:
        raise keys.UnknownKey(f"no key {wanted!r} that works; 'knocktwice key list' shows those there are")
    hidden = signing_secret(key.digest, secret(here.settings))
    if as_json:
        print_json({"AccessId": key.id, "SecretKey": hidden})
        return
    print(f"AccessId: {key.id}\nSecretKey: {hidden}")


@app.command()
def revoke(id_: Annotated[str, typer.Argument(metavar="ID", help="The key's id, or the whole key.")]) -> None:
    """End a key for good, within seconds on every gateway. Exits 1 if there is none of that id.

    Example: knocktwice key revoke 3f9c2a71
    """
    from knocktwice_worker.gateway.auth import keys

    with reading(services()) as conn:
        ended = keys.revoke(conn, keys.id_of(id_) or id_)
        conn.commit()
    out.print("revoked" if ended else "it was revoked before")


def _told(key: Key) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "project": real_side(key.project),
        "test": key.test,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def _scope(word: str) -> Scope:
    from knocktwice_shared.errors import InvalidMessage
    from knocktwice_worker.gateway.auth.keys import Scope

    try:
        return Scope(word)
    except ValueError:
        raise InvalidMessage("scope", f"must be one of {', '.join(Scope)}") from None
