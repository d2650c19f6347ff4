"""What providers report of the messages that they took, in the words of the story and of the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knocktwice_worker.database.test_rows import STAND_IN

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import Row


def taken_by(step: int, provider: str | None, provider_id: str | None) -> str | None:
    """Return the provider that accepted a delivery's message; ``None`` for a push, for a test, and if none has."""
    return None if step == 0 or provider_id is None or provider == STAND_IN else provider


def given_up(provider: str | None, reported_at: datetime | None) -> bool:
    """Return whether a provider has told its last of a message. Of a test nobody has waited for it."""
    return reported_at is not None and provider != STAND_IN


def status(provider_status: str | None, *, given_up: bool) -> str | None:
    """Return what the provider reported; ``unknown`` if nobody waits any longer for more than that it was sent."""
    return "unknown" if given_up and provider_status in (None, "sent") else provider_status


def last_report(steps: Iterable[tuple[int, str, str | None]]) -> str | None:
    """Return what a provider reported of the last message that it took.

    Args:
        steps: number, state and provider's status of each, in order.
    """
    return next((status for step, state, status in reversed(list(steps)) if step > 0 and state == "sent"), None)


def error_code(row: Row[Any]) -> int | str | None:
    """Return the provider's code of an error: a word, or else a number."""
    code: int | str | None = row.provider_error_text or row.provider_error
    return code
