"""A database of the release before, with later steps in every state, is migrated and goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from knocktwice_shared.ids import uuid7
from knocktwice_worker.database import migrations
from knocktwice_worker.notifications.store import provider_reports
from knocktwice_worker.reporting.story import tell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services

#: The last revision of the release before.
BEFORE = "0018"
NUMBER = "+16505550100"
HX = "HX" + "0" * 32

#: Name → a step's columns, as the release before wrote them. What it had tried by Twilio names no provider.
STEPS: dict[str, dict[str, object]] = {
    "waiting": {"state": "scheduled"},
    "reserved": {"state": "reserved", "tries": 0},
    "to be sent again": {"state": "reserved", "tries": 1, "claimed": True},
    "its sender died": {"state": "sending", "tries": 1, "claimed": True},
    "unclear": {"state": "sending", "tries": 1, "claimed": True, "reason": "time-out"},
    "reported and not recorded": {"state": "sending", "tries": 1, "claimed": True, "reason": "time-out"},
    "sent": {"state": "sent", "tries": 1, "claimed": True, "provider_id": "SM1"},
    "sent by acme": {"state": "sent", "tries": 1, "claimed": True, "provider_id": "acme:1", "provider": "acme"},
    "read": {"state": "sent", "tries": 1, "claimed": True, "provider_id": "SM2", "channel": "whatsapp"},
    "failed": {"state": "failed", "tries": 1, "claimed": True, "reason": "invalid_number"},
    "unknown": {"state": "unknown", "tries": 1, "claimed": True, "reason": "time-out"},
    "skipped": {"state": "skipped", "reason": "no_phone"},
    "cancelled": {"state": "cancelled", "reason": "cancelled"},
}
_OPEN = {"scheduled", "reserved", "sending"}

_BATCH = """
INSERT INTO batches (id, content, plan, category, ttl, reference)
VALUES (:id, '{"push": {"title": "t", "body": "b"}, "sms": null}', NULL, 'transactional', '1 hour', '{}')
"""
_NOTIFICATION = """
INSERT INTO notifications (id, batch_id, phone, params, state, reason, finished_at)
VALUES (:id, :batch, :number, '{}', :state, :reason, CASE WHEN :state <> 'active' THEN now() END)
"""
_PUSH = """
INSERT INTO deliveries (notification_id, step, channel, state, claimed_at, finished_at, steps_left)
VALUES (:id, 0, 'push', 'sent', now() - interval '2 hours', now() - interval '2 hours', 1)
"""
_STEP = """
INSERT INTO deliveries (notification_id, step, channel, state, reason, trigger, due_at, wake_at, finished_at, after_step,
  steps_left, tries, number, text, fingerprint, parts, counted_at, claimed_at, provider, provider_id)
VALUES (:id, 1, :channel, :state, :reason, 'not_clicked', now() - interval '1 hour',
  CASE WHEN :open THEN now() END, CASE WHEN NOT :open THEN now() END, 0, 0, :tries, :number, :text, 'f', 1,
  now() - interval '1 hour', CASE WHEN :claimed THEN now() - interval '1 hour' END, :provider, :provider_id)
"""


@pytest.fixture
def ids(database_url: str) -> Iterator[dict[str, str]]:
    """Rows of the release before, by what they stand for; the database is migrated."""
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    made = {name: str(uuid7()) for name in STEPS}
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    with engine.begin() as conn:
        conn.execute(sa.text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
    with engine.connect() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, BEFORE)
    with engine.begin() as conn:
        for n, (name, step) in enumerate(STEPS.items()):
            _write(conn, made[name], f"+1650555{n:04}", step)
        for sid, id_ in (("SM3", made["reported and not recorded"]), ("SM1", None), ("acme:1", None)):
            report = "INSERT INTO provider_reports (provider_id, status, notification_id, step, at) "
            report += "VALUES (:sid, 'delivered', :id, :step, now())"
            conn.execute(sa.text(report), {"sid": sid, "id": id_, "step": id_ and 1})
    migrations.upgrade(engine)
    yield made
    engine.dispose()


def _write(conn: sa.Connection, id_: str, number: str, step: dict[str, object]) -> None:
    open_ = step["state"] in _OPEN
    conn.execute(sa.text(_BATCH), {"id": id_})
    state, reason = ("active", None) if open_ else ("texted", "as told")
    conn.execute(sa.text(_NOTIFICATION), {"id": id_, "batch": id_, "number": number, "state": state, "reason": reason})
    conn.execute(sa.text(_PUSH), {"id": id_})
    usual = {"reason": None, "tries": 0, "claimed": False, "provider": None, "provider_id": None, "channel": "sms"}
    words = f'["{HX}", {{}}]' if step.get("channel") == "whatsapp" else "b"
    reserved = step["state"] not in ("scheduled", "skipped")
    known = {"number": number if reserved else None, "text": words if reserved else None}
    conn.execute(sa.text(_STEP), {**usual, **known, **step, "id": id_, "open": open_})


def _rows(here: Services, ids: dict[str, str]) -> dict[str, tuple[str, str | None]]:
    names = {id_: name for name, id_ in ids.items()}
    with here.engine.connect() as conn:
        query = sa.text("SELECT notification_id, state, provider FROM deliveries WHERE step = 1")
        return {names[str(row.notification_id)]: (row.state, row.provider) for row in conn.execute(query)}


def test_what_was_tried_has_a_provider_and_nothing_else(ids: dict[str, str], working: Services) -> None:
    untried = {"waiting", "reserved", "skipped", "cancelled"}
    for name, (state, provider) in _rows(working, ids).items():
        assert state == STEPS[name]["state"]
        assert provider == (None if name in untried else STEPS[name].get("provider", "twilio")), name


def test_the_pipeline_goes_on_with_them(ids: dict[str, str], working: Services, sandbox: Sandbox) -> None:
    with working.engine.begin() as conn:
        assert provider_reports.bring(conn) == 0
    due = working.fallback.check(list(ids.values()))
    assert due == [ids["waiting"]]
    sent = working.later_steps.send(list(ids.values()))
    assert sorted(sent) == sorted(ids[name] for name in ("waiting", "reserved", "to be sent again"))
    lost = [ids["its sender died"], ids["unclear"]]
    working.reconcile.resolve(lost)
    with working.engine.begin() as conn:
        conn.execute(
            sa.text("UPDATE deliveries SET missed_at = missed_at - interval '1 hour' WHERE missed_at IS NOT NULL")
        )
    working.reconcile.resolve(lost)
    rows = _rows(working, ids)
    assert {rows[name] for name in ("waiting", "reserved", "to be sent again")} == {("sent", "twilio")}
    assert rows["reported and not recorded"] == ("sent", "twilio")
    # The sandbox lists neither, twice: they are sent again.
    assert (rows["its sender died"], rows["unclear"]) == (("reserved", "twilio"), ("reserved", "twilio"))
    assert sorted(working.later_steps.send(lost)) == sorted(lost)
    assert len(sandbox.texts()) == 5
    with working.engine.connect() as conn:
        stories = {name: tell(conn, id_) for name, id_ in ids.items()}
    assert [s.steps[1].provider for n in ("sent", "sent by acme") if (s := stories[n])] == ["twilio", "acme"]
    assert all(stories.values())


def test_counts_of_whatsapp_messages_are_kept(database_url: str) -> None:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    with engine.begin() as conn:
        conn.execute(sa.text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
    with engine.connect() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, BEFORE)
    with engine.begin() as conn:
        columns = sa.inspect(conn).get_columns("rollups")
        wanted = {"whatsapp_sent": "5", "whatsapp_read": "2", "unpriced_whatsapp": "1", "whatsapp_price": "0.25"}
        kinds = {"DATE": "'2026-11-01'", "TIMESTAMP": "'1970-01-01'", "TEXT": "''", "JSONB": "'{}'"}
        values = [wanted.get(c["name"]) or kinds.get(type(c["type"]).__name__, "0") for c in columns]
        conn.execute(sa.text(f"INSERT INTO rollups VALUES ({', '.join(values)})"))  # noqa: S608 - our own values
    migrations.upgrade(engine)
    with engine.connect() as conn:
        (channels,) = conn.execute(sa.text("SELECT channels FROM rollups")).scalars()
    counted = {"sent": 5, "delivered": 0, "read": 2, "unknown": 0, "unpriced": 1, "price": 0.25}
    assert channels == {"whatsapp": counted}
    engine.dispose()
