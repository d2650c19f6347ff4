"""What the judge knows of messages that kill their workers, and of a backlog that nobody works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID


@dataclass(frozen=True, slots=True)
class Poison:
    """A message that ends every worker that touches it.

    Attributes:
        at: when workers were last tried on it.
        mark: what stands in it, and in no other message.
        deaths: how many workers it ended.
    """

    at: float
    mark: str
    deaths: int


@dataclass(frozen=True, slots=True)
class Parked:
    """A message that was put aside.

    Attributes:
        reason: what is said of it.
        payload: the message.
    """

    at: float
    task: str | None
    reason: str
    payload: str


@dataclass(frozen=True, slots=True)
class Backlog:
    """What callers were told while nobody worked, what was used, and what became of it.

    Attributes:
        limit: the most messages that may wait.
        accepted: the notifications of which the caller was told that they are accepted.
        refused: how many were refused.
        stopped: notifications cancelled while the backlog was full; the cancellation was accepted.
        broker: bytes that the broker used more, at the most.
        worker: bytes that a worker used more, at the most.
        rows: notification → its state in the end.
        left: messages that remain.
        seconds: from the workers' return to the last row.
    """

    limit: int
    accepted: frozenset[UUID]
    refused: int
    stopped: frozenset[UUID]
    broker: int
    worker: int
    rows: dict[UUID, str]
    left: int
    seconds: float
