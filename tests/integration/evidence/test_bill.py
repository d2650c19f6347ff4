"""The bill check finds each planted error of a long list, and invents none."""

from __future__ import annotations

import csv
import io
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.evidence import bill
from knocktwice_worker.evidence.bill import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from knocktwice_worker.services import Services
    from support.commands import CommandOutput

#: Lines of the list, and errors of each kind that are planted in it.
LINES, EACH = 20_000, 25
HEADING = ["Sid", "Status", "Num Segments", "Price", "Price Unit"]

#: Fault → the cell of a line that is changed, and how.
_CHANGES: dict[Fault, tuple[int, Callable[[str], str]]] = {
    Fault.PRICE: (3, lambda price: f"{float(price) - 0.0001:.4f}"),
    Fault.CURRENCY: (4, lambda _: "EUR"),
    Fault.PARTS: (2, lambda parts: str(int(parts) + 1)),
    Fault.NOT_OURS: (0, lambda id_: f"XX{id_}"),
    Fault.UNREADABLE: (3, lambda _: "free"),
}

_FILL = """
WITH batch AS (
  INSERT INTO batches (id, content, category, ttl, reference)
  VALUES (gen_random_uuid(), '{}', 'transactional', interval '1 hour', '{}') RETURNING id
), people AS (
  INSERT INTO notifications (id, batch_id, params, state, reason, finished_at, user_id)
  SELECT gen_random_uuid(), batch.id, '{}', 'texted', 'x', now(), CAST(g AS text)
  FROM batch, generate_series(0, :count - 1) g RETURNING id, CAST(user_id AS integer) AS n
)
INSERT INTO deliveries
  (notification_id, step, channel, state, trigger, due_at, finished_at, number, text, parts, counted_at, provider,
   provider_id, price, price_unit)
SELECT id, 1, 'sms', 'sent', 'not_clicked', now(), now(), '+436601234567', 'x', 1 + n % 3, now(), 'twilio',
  'SM' || n, 0.0075 * (1 + n % 3), 'USD'
FROM people
"""


def _list(count: int) -> list[list[str]]:
    return [[f"SM{n}", "delivered", str(1 + n % 3), f"-{0.0075 * (1 + n % 3):.4f}", "USD"] for n in range(count)]


def _written(rows: list[list[str]]) -> io.StringIO:
    text = io.StringIO()
    csv.writer(text).writerows([HEADING, *rows])
    text.seek(0)
    return text


def _fill(here: Services, count: int) -> None:
    with here.engine.begin() as conn:
        conn.execute(sa.text(_FILL), {"count": count})


def test_each_planted_error_is_found_at_its_line_and_no_other(here: Services) -> None:
    _fill(here, LINES)
    rows, dice = _list(LINES), random.Random(7)
    places = iter(dice.sample(range(LINES), 8 * EACH))
    planted: set[tuple[Fault, str]] = set()
    for _ in range(EACH):
        for fault, (cell, change) in _CHANGES.items():
            row = rows[next(places)]
            row[cell] = change(row[cell])
            planted.add((fault, row[0]))
    twice = [rows[next(places)] for _ in range(EACH)]
    planted |= {(Fault.TWICE, row[0]) for row in twice}
    refused = [rows[next(places)][0] for _ in range(EACH)]
    planted |= {(Fault.NEVER_SENT, id_) for id_ in refused}
    lacking = [rows[next(places)] for _ in range(EACH)]
    planted |= {(Fault.MISSING, row[0]) for row in lacking}
    gone = {id(row) for row in lacking}
    now = datetime.now(UTC)
    with here.engine.begin() as conn:
        conn.execute(sa.text("UPDATE deliveries SET state = 'failed' WHERE provider_id = ANY(:ids)"), {"ids": refused})
        listed = [row for row in rows if id(row) not in gone] + twice
        found, seen = bill.check(conn, _written(listed))
        absent = bill.missing(conn, "twilio", now - timedelta(days=1), now + timedelta(days=1), seen)
        other = bill.missing(conn, "acme", now - timedelta(days=1), now + timedelta(days=1), seen)
    assert other == []
    # A line with another id, or that cannot be read, is also missing under its own.
    hidden = {row[0] for row in rows if row[3] == "free"} | {row[0][2:] for row in rows if row[0].startswith("XX")}
    told = {
        (f.fault, f.id.split(",")[0])
        for f in (*found.findings, *absent)
        if f.fault is not Fault.MISSING or f.id not in hidden
    }
    assert told == planted
    assert Counter(f.fault for f in found.findings) == dict.fromkeys(set(Fault) - {Fault.MISSING}, EACH)
    assert found.lines == LINES
    assert all(listed[f.line - 2][0] == f.id for f in found.findings if f.fault is Fault.PRICE)


def test_sums_are_exact(here: Services) -> None:
    _fill(here, 3_000)
    with here.engine.begin() as conn:
        found, _ = bill.check(conn, _written(_list(3_000)))
    assert (found.agreeing, found.findings) == (3_000, [])
    assert str(found.billed["USD"]) == str(found.ours["USD"]) == "45.0000"


@pytest.mark.parametrize("heading", ["", "number,price", "sid,number"])
def test_a_list_without_ids_or_without_anything_to_compare_is_refused(here: Services, heading: str) -> None:
    with here.engine.begin() as conn, pytest.raises(InvalidMessage, match="list"):
        bill.check(conn, [heading])


def test_the_command_shows_what_does_not_agree(
    run: Callable[..., CommandOutput], here: Services, tmp_path: Path
) -> None:
    _fill(here, 3)
    rows = _list(3)
    file = tmp_path / "bill.csv"
    file.write_text(_written(rows).getvalue())
    done = run("bill", str(file))
    assert (done.code, done.out) == (
        0,
        "USD: billed 0.0450, reported for the same messages 0.0450\n3 of 3 lines agree\n",
    )
    rows[1][3] = "-9"
    file.write_text(_written(rows).getvalue())
    done = run("bill", str(file), "--json")
    assert done.code == 1
    (finding,) = done.json["findings"]
    assert finding == {"fault": "price", "line": 3, "id": "SM1", "billed": "9", "ours": "0.0150"}
    assert run("bill", str(file), "--provider", "twilio").code == 1
    assert run("bill", str(tmp_path / "nowhere.csv")).code == 1


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ("sid,price\nSM1,1\n".encode("utf-16"), "is not text in UTF-8; save it as CSV in UTF-8"),
        (b"sid,price\nSM1,1\xa0\n", "is not text in UTF-8"),
        (b"sid,price\nSM1," + b"1" * 200_000 + b"\n", "cannot be read as CSV: field larger than field limit"),
    ],
)
def test_a_file_that_is_no_list_is_refused_with_its_remedy(
    run: Callable[..., CommandOutput], tmp_path: Path, held: bytes, said: str
) -> None:
    (tmp_path / "bill.csv").write_bytes(held)
    done = run("bill", str(tmp_path / "bill.csv"))
    assert (done.code, done.out) == (1, "")
    assert f"bill.csv: {said}" in done.err


def test_a_message_that_failed_and_was_sent_again_is_ours_on_a_list(here: Services) -> None:
    _fill(here, 1)
    with here.engine.begin() as conn:
        conn.exec_driver_sql("UPDATE deliveries SET lost_ids = '{SMlost}' WHERE step = 1")
        found, _ = bill.check(conn, ["sid,price", "SMlost,"])
    assert (found.agreeing, found.findings) == (1, [])
