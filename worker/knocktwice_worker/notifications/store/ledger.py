"""The ledger: one line for every decision and for each event after it. ``knocktwice explain`` reads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from knocktwice_shared.records import record
from knocktwice_worker.database.bulk import rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knocktwice_worker.lifecycle import Entry


@record
class Decision:
    """A line of the ledger.

    Attributes:
        notification_id: the notification that it belongs to.
        verdict: the decision or the event.
        inputs: the facts behind it, without personal data.
        step: the step that it is about.
        answered: a person has answered, so no later step is needed, either.
        read: a message was read, so no later step is needed but those that wait for more.
        problem: what is wrong, for people, where the verdict alone does not say it.
    """

    notification_id: str
    verdict: Entry
    inputs: Mapping[str, Any]
    step: int = 1
    answered: bool = False
    read: bool = False
    problem: str | None = None

    @property
    def reason(self) -> str:
        """The verdict with what is wrong, as the step and its notification name it."""
        return f"{self.verdict}: {self.problem}" if self.problem else str(self.verdict)


#: One encoder for all calls, because ``json.dumps`` makes a new one for each call that has options.
_encode = json.JSONEncoder(default=str).encode

# Lines are only added, never changed.
_WRITE = text(f"""
INSERT INTO decisions (
  notification_id,
  step,
  verdict,
  inputs
)
SELECT * FROM {rows("r", id="uuid", step="smallint", verdict="text", inputs="jsonb")}
""")


def write_ledger(conn: Connection, decisions: Sequence[Decision]) -> None:
    """Add lines to the ledger."""
    if decisions:
        conn.execute(
            _WRITE,
            {
                "id": [d.notification_id for d in decisions],
                "step": [d.step for d in decisions],
                "verdict": [str(d.verdict) for d in decisions],
                "inputs": [_encode(dict(d.inputs)) for d in decisions],
            },
        )
