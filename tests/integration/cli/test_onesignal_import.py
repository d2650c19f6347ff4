"""``knocktwice import onesignal``: every row of an export is accounted for, and the same file again changes nothing."""

from __future__ import annotations

import csv
import gzip
import io
import json
import resource
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.messages import DeviceRegistered, TagsSet
from knocktwice_worker.audience import aliases, people, profile
from knocktwice_worker.database.schema import metadata
from knocktwice_worker.gateway.faces.onesignal import names
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from support.commands import CommandOutput

    Run = Callable[..., CommandOutput]

COLUMNS = [
    *("id", "identifier", "session_count", "language", "timezone", "game_version", "device_os", "device_type"),
    *("device_model", "ad_id", "tags", "last_active", "playtime", "amount_spent", "created_at", "invalid_identifier"),
    *("badge_count", "external_user_id", "notification_types"),
]
TABLES = tuple(metadata.tables[name] for name in ("users", "devices", "phones", "opt_outs", "aliases"))
#: What a row says if a test says nothing else.
USUAL = {
    "language": "de",
    "timezone": "3600",
    "game_version": "1.2",
    "device_type": "1",
    "last_active": "2026-05-03 12:00:00 UTC",
    "created_at": "2025-01-01 00:00:00 UTC",
    "invalid_identifier": "f",
    "notification_types": "1",
}
#: Tags of a row, of which a person can have no six times as many.
LARGE = 50
#: Rows of a large file.
ROWS_READ = 10_000
APPLE = "ab" * 32


def _file(path: Path, rows: Sequence[dict[str, str] | list[str]]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(row if isinstance(row, list) else [{**USUAL, **row}.get(name, "") for name in COLUMNS])
    path.write_bytes(gzip.compress(text.getvalue().encode()) if path.suffix == ".gz" else text.getvalue().encode())
    return path


ROWS: list[dict[str, str] | list[str]] = [
    {
        "id": "p-1",
        "identifier": "token-ada",
        "external_user_id": "ada",
        "tags": json.dumps({"plan": "gold", "cups": "3"}),
    },
    {"id": "p-2", "identifier": "+1 650 555 0100", "device_type": "14", "external_user_id": "ada", "language": "cn"},
    {
        "id": "p-3",
        "identifier": "+16505550101",
        "device_type": "14",
        "external_user_id": "ben",
        "notification_types": "-2",
    },
    {"id": "p-4", "identifier": "token-of-nobody", "notification_types": "-2"},
    # The same token again, older, and with somebody else.
    {"id": "p-5", "identifier": "token-ada", "external_user_id": "eve", "last_active": "2026-01-01 00:00:00 UTC"},
    # Apple's token: the tags are taken, the device is not.
    {"id": "p-6", "identifier": APPLE, "device_type": "0", "external_user_id": "cem", "tags": '{"vip": "true"}'},
    {"id": "p-7", "identifier": APPLE, "device_type": "0"},
    {"id": "p-8", "identifier": "+16505550102", "device_type": "14", "external_user_id": "ada"},
    {"id": "p-9", "identifier": "12", "device_type": "14", "external_user_id": "dan"},
    {"id": "p-10", "identifier": "dan@example.com", "device_type": "11"},
    {"id": "p-11", "identifier": "token-x", "tags": '{"broken'},
    {"id": "p-12", "identifier": "token-y", "invalid_identifier": "t"},
    {"id": "p-13", "identifier": "token-z", "last_active": "yesterday"},
    ["p-14", "too few"],
    {"id": "p-15", "identifier": "null"},
    {"id": "p-16", "identifier": "token-erased", "external_user_id": "gone"},
]


def _state() -> list[Any]:
    ordered = {table: ", ".join(column.name for column in table.primary_key) for table in TABLES}
    with services().engine.connect() as conn:
        return [
            [tuple(map(str, row)) for row in conn.execute(sa.select(*_kept(table)).order_by(sa.text(order)))]
            for table, order in ordered.items()
        ]


def _kept(table: sa.Table) -> list[sa.Column[Any]]:
    return [column for column in table.columns if column.name != "updated_at"]


REFUSED = {
    7: "identifier: is a token of Apple's",
    8: "identifier: is a token of Apple's",
    9: "identifier: is a second number",
    10: "phone: ",
    11: "device_type: is an e-mail address",
    12: "tags: is no JSON",
    13: "invalid_identifier: ",
    14: "last_active: ",
    15: "has 2 fields",
    16: "registration: ",
    17: "external_user_id: the person was erased",
}


def test_every_row_is_accounted_for_twice_with_the_same_result(run: Run, tmp_path: Path) -> None:
    path, refused = _file(tmp_path / "users.csv.gz", ROWS), tmp_path / "refused.csv"
    with services().engine.begin() as conn:
        services().erased.note(conn, "gone", datetime.now(UTC), timedelta())
    tried = run("import", "onesignal", str(path), "--dry-run", "--json")
    assert _state() == [[], [], [], [], []]
    done = run("import", "onesignal", str(path), "--json", "--refused", str(refused))
    assert (tried.code, done.code) == (1, 1)
    assert {**tried.json, "dry_run": False} == done.json
    counted = {name: done.json[name] for name in ("rows", "taken", "person_only", "merged", "refused")}
    assert counted == {"rows": 16, "taken": 4, "person_only": 1, "merged": 1, "refused": 10}
    assert sum(counted.values()) == 2 * counted["rows"]
    named = {one["line"]: one["problem"] for one in done.json["named"]}
    assert named.keys() == REFUSED.keys()
    assert all(named[line].startswith(problem) for line, problem in REFUSED.items()), named
    with refused.open(newline="") as file:
        assert {int(row["line"]): row["problem"] for row in csv.DictReader(file)} == named
    # Nothing of a row is quoted.
    assert not any(said in done.out for said in ("ada", "token-ada", "0102", "dan@", "broken", "yesterday"))
    before = _state()
    again = run("import", "onesignal", str(path), "--json")
    assert (again.json, _state()) == (done.json, before)


def test_what_was_taken_is_where_it_belongs(run: Run, tmp_path: Path) -> None:
    assert (
        "4 taken, 1 only with their tags, 1 merged"
        in run("import", "onesignal", str(_file(tmp_path / "u.csv", ROWS[:6]))).out
    )
    with services().engine.connect() as conn:
        ada, ben, cem = (profile.find(conn, user) for user in ("ada", "ben", "cem"))
        nobody = profile.find(conn, names.stranger_with("token-of-nobody", sms=False))
        old = aliases.find(conn, names.SUBSCRIPTION, ["p-1", "p-2", "p-6"])
    assert ada
    assert ben
    assert cem
    assert nobody
    # The older row about the same token does not take the device from her, and Chinese is the person's.
    assert [(one.registration, one.locale, one.time_zone) for one in ada.devices] == [("token-ada", "de", "Etc/GMT-1")]
    assert (ada.phone, ada.tags, ada.locale) == ("+16505550100", {"plan": "gold", "cups": 3}, "zh-Hans")
    assert (ben.phone, ben.opted_out) == ("+16505550101", True)
    assert (cem.devices, cem.tags) == ([], {"vip": True})
    assert [one.notifications_enabled for one in nobody.devices] == [False]
    # Ids that were stored at OneSignal lead there.
    assert {value: (one.user, one.registration) for value, one in old.items()} == {
        "p-1": ("ada", "token-ada"),
        "p-2": ("ada", None),
    }


def test_what_the_application_has_said_since_stays(run: Run, tmp_path: Path) -> None:
    since = datetime(2026, 6, 1, tzinfo=UTC)
    with services().engine.begin() as conn:
        people.apply(
            conn,
            [
                DeviceRegistered("eve", "token-ada", since, notifications_enabled=False),
                TagsSet("ada", {"plan": "silver"}, since),
            ],
        )
    run("import", "onesignal", str(_file(tmp_path / "users.csv", ROWS[:1])))
    with services().engine.connect() as conn:
        ada, eve = profile.find(conn, "ada"), profile.find(conn, "eve")
    assert ada
    assert eve
    assert (ada.devices, ada.tags) == ([], {"plan": "silver", "cups": 3})
    assert [(one.registration, one.notifications_enabled) for one in eve.devices] == [("token-ada", False)]


def test_a_row_that_the_tables_refuse_spoils_no_other(run: Run, tmp_path: Path) -> None:
    many = [
        {
            "identifier": f"token-{n}",
            "external_user_id": "ada",
            "tags": json.dumps({f"{n}-{m}": "x" for m in range(LARGE)}),
        }
        for n in range(6)
    ]
    rows = [*many, {"identifier": "token-ben", "external_user_id": "ben"}]
    done = run("import", "onesignal", str(_file(tmp_path / "users.csv", rows)), "--json")
    assert (done.json["taken"], done.json["refused"]) == (6, 1)
    assert "tags of one user" in done.json["named"][0]["problem"]
    with services().engine.connect() as conn:
        assert profile.find(conn, "ben")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name,phone\n", "it has no column id"),
        (b"", "it has no column id"),
        (None, "cannot be read"),
        (b"\x1f\x8b\x08", "cannot be read"),
    ],
    ids=["another file", "empty", "none", "not packed"],
)
def test_a_file_that_is_no_export_says_so(run: Run, tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "users.csv.gz" if content and content[0] == 0x1F else tmp_path / "users.csv"
    if content is not None:
        path.write_bytes(content)
    done = run("import", "onesignal", str(path))
    assert (done.code, said in done.err) == (1, True)


def test_many_dirty_rows_need_little_memory(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for n in range(ROWS_READ):
            row = dict(ROWS[n % 3], identifier=f"token-{n}", device_type="1", external_user_id=f"u-{n}")  # type: ignore[arg-type]
            if n % 10 == 9:
                row["device_type"], row["tags"] = "99", "x" * 1_000
            writer.writerow([{**USUAL, **row}.get(name, "") for name in COLUMNS])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = run("import", "onesignal", str(path), "--dry-run", "--json")
    assert {name: done.json[name] for name in ("rows", "taken", "refused")} == {
        "rows": ROWS_READ,
        "taken": ROWS_READ * 9 // 10,
        "refused": ROWS_READ // 10,
    }
    # In kilobytes. A hundred thousand rows need no more.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000
