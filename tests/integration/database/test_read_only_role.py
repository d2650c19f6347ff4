"""The role that the document makes reads every page of Flower's tab, and can write nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_worker.flower import figures, finding, lanes, listings
from support.documents import ROOT

if TYPE_CHECKING:
    from knocktwice_worker.services import Services

ID = str(uuid7())


def test_a_role_that_can_only_read_is_enough_for_every_page(working: Services) -> None:
    (script,) = re.findall(r"```sql\n(CREATE ROLE.*?)```", (ROOT / "docs/flower.md").read_text(), re.DOTALL)
    message = {"v": 1, "id": str(uuid7()), "content": {"sms": {"text": "Hello"}}, "only": "sms"}
    working.pushes.send(parse_batch({**message, "recipients": [{"id": ID, "phone": "+16505550100"}]}))
    with working.engine.connect() as conn:
        # All of it is undone in the end: a role belongs to the whole server.
        conn.exec_driver_sql(script)
        conn.execute(sa.text("SET LOCAL ROLE knocktwice_reads"))
        # First, because some pages make their transaction read-only themselves.
        for refused in (
            "UPDATE deliveries SET tries = 0",
            "DELETE FROM notifications",
            "INSERT INTO users VALUES ('u')",
        ):
            with pytest.raises(sa.exc.ProgrammingError, match="permission denied"), conn.begin_nested():
                conn.execute(sa.text(refused))
        figures.now(conn, working)
        figures.blasts(conn)
        figures.standing(conn, working)
        assert finding.find(conn, "+16505550100", "", working.settings.phone_rules).messages
        assert lanes.draw(conn, ID) is not None
        for _, read in listings.PAGES.values():
            read(conn, working)
        conn.rollback()
