"""The migration that gives each phone one spelling keeps every opt-out, and loses no number."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from knocktwice_shared.ids import uuid7
from knocktwice_worker.database import migrations
from knocktwice_worker.notation.phone_numbers import spelled

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The last revision before.
BEFORE = "0022"
#: As kept → as it is called now.
NUMBERS = {
    "+4407400123456": "+447400123456",
    "+447400123457": "+447400123457",
    "+5215512345678": "+525512345678",
    "+541123456789": "+5491123456789",
    "+551187654321": "+5511987654321",
    "+22990011234": "+2290190011234",
    "+116502530000": "+16502530000",
    "+390655512345": "+390655512345",
    # Valid nowhere, and kept.
    "+440000": "+440000",
    "+10000000000": "+10000000000",
}


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """A database of the release before."""
    made = sa.create_engine(database_url, poolclass=sa.NullPool)
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    with made.begin() as conn:
        conn.execute(sa.text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
    with made.connect() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, BEFORE)
    yield made
    made.dispose()


def _rows(engine: sa.Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as conn:
        return [tuple(row) for row in conn.execute(sa.text(query))]


def test_numbers_of_people_are_respelled_and_none_is_lost(engine: sa.Engine) -> None:
    with engine.begin() as conn:
        for number in NUMBERS:
            conn.execute(sa.text("INSERT INTO users (id) VALUES (:n)"), {"n": number})
            conn.execute(sa.text("INSERT INTO phones (user_id, number) VALUES (:n, :n)"), {"n": number})
        conn.execute(
            sa.text("INSERT INTO inbound_texts (provider_id, number, wish) VALUES ('SM1', '+5215512345678', 'STOP')")
        )
    migrations.upgrade(engine)
    assert dict(_rows(engine, "SELECT user_id, number FROM phones")) == NUMBERS
    assert _rows(engine, "SELECT region FROM phones WHERE user_id = '+5215512345678'") == [("MX",)]
    assert _rows(engine, "SELECT number FROM inbound_texts") == [("+525512345678",)]
    # What the migration has frozen agrees with what every door does.
    assert {number: spelled(number) for number in NUMBERS} == NUMBERS


def test_every_opt_out_is_kept_and_of_two_spellings_the_older_row(engine: sa.Engine) -> None:
    with engine.begin() as conn:
        for number in NUMBERS:
            conn.execute(sa.text("INSERT INTO opt_outs VALUES (:n, 'sms', now())"), {"n": number})
        conn.execute(sa.text("INSERT INTO opt_outs VALUES ('+525512345678', 'operator', now() - interval '1 year')"))
        conn.execute(sa.text("INSERT INTO opt_outs VALUES ('+5491123456789', 'operator', now() + interval '1 year')"))
    migrations.upgrade(engine)
    found: dict[str, str] = dict(_rows(engine, "SELECT number, source FROM opt_outs"))
    assert set(found) == set(NUMBERS.values())
    assert (found["+525512345678"], found["+5491123456789"]) == ("operator", "sms")


def test_what_is_under_way_is_respelled_and_what_is_over_stays(engine: sa.Engine) -> None:
    ids = {state: str(uuid7()) for state in ("scheduled", "reserved", "sent")}
    with engine.begin() as conn:
        for state, id_ in ids.items():
            is_open = state != "sent"
            conn.execute(
                sa.text("""
                INSERT INTO notifications (id, batch_id, phone, params, state, reason, finished_at)
                VALUES (:id, :id, '+4407400123456', '{}', :state, :reason, CASE WHEN :open THEN NULL ELSE now() END)
                """),
                {
                    "id": id_,
                    "state": "active" if is_open else "texted",
                    "reason": None if is_open else "x",
                    "open": is_open,
                },
            )
            conn.execute(
                sa.text("""
                INSERT INTO deliveries (notification_id, step, channel, state, number, due_at, wake_at, finished_at)
                VALUES (:id, 1, 'sms', :state, :number, now(), CASE WHEN :open THEN now() END,
                  CASE WHEN NOT :open THEN now() END)
                """),
                {
                    "id": id_,
                    "state": state,
                    "number": None if state == "scheduled" else "+4407400123456",
                    "open": is_open,
                },
            )
    migrations.upgrade(engine)
    told: dict[str, str] = dict(_rows(engine, "SELECT CAST(id AS text), phone FROM notifications"))
    assert {state: told[id_] for state, id_ in ids.items()} == {
        "scheduled": "+447400123456",
        "reserved": "+447400123456",
        "sent": "+4407400123456",
    }
    assert _rows(engine, "SELECT number FROM deliveries WHERE state = 'reserved'") == [("+447400123456",)]
