"""The countdown, what happens when somebody dies or a server is away, and when a message is too late."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from knocktwice_shared.durability import Durability
from knocktwice_shared.messages import AFTER_LIMIT, Category
from knocktwice_shared.names import BACKLOG_BYTES, BACKLOG_MESSAGES
from knocktwice_worker.config import by_category
from knocktwice_worker.config.values import Days, Group, Seconds, Span


class CountdownSettings(Group):
    """Countdown and recovery."""

    min_after_s: Seconds = Field(0, description="Shortest fallback delay accepted.")
    max_after_s: Seconds = Field(AFTER_LIMIT.total_seconds(), description="Longest fallback delay accepted.")
    max_ahead_days: Days = Field(90, ge=0, le=3650, description="How far ahead send_at may lie.")
    tick_s: Span = Field(0.5, gt=0, le=60, description="How often each worker looks for rows that are due.")
    lease_s: Span = Field(60, gt=0, description="After this long without an answer a step is taken up again.")
    inbox_grace_s: Span = Field(30, gt=0, description="An accepted message not in Postgres by then is published again.")
    stop_grace_s: Span = Field(
        25, gt=0, description="After SIGTERM a worker finishes its tasks for so long; then it leaves them to others."
    )
    backlog_messages: int = Field(
        BACKLOG_MESSAGES,
        ge=1,
        description="Accepted messages not in Postgres yet; beyond that notifications are refused, and receipts, "
        "cancellations and changes of people half as many later.",
    )
    backlog_bytes: int = Field(
        BACKLOG_BYTES, ge=1, description="The same in bytes; Redis needs two to five times that."
    )
    durability: Durability = Field(
        Durability.MEMORY,
        description="What accepted means of a message, for the gateway and the command line: memory, disk or replica.",
    )
    durability_replicas: int = Field(1, ge=1, description="How many replicas must have it, with replica.")
    outbox_database_url: str | None = Field(
        None, description="An application's PostgreSQL, whose outbox `knocktwice outbox relay` publishes."
    )
    await_accepted_s: Seconds = Field(
        180,
        description="How long a decision waits for a receipt, cancellation or change that was accepted before it and cannot be carried out.",
    )
    ttl_grace_s: Seconds = Field(30, description="Push time-to-live beyond the fallback delay.")
    push_retry_s: Seconds = Field(
        3600, description="How long a push is retried that no device has yet; until then its fallback waits for it."
    )
    sms_retry_s: Seconds = Field(14_400, description="How long an SMS is retried while its provider asks for patience.")

    # When it is too late
    useless_after_critical_s: Span = Field(
        1_800, gt=0, description="So long after it was due a critical push or message is not sent any more."
    )
    useless_after_transactional_s: Span = Field(86_400, gt=0, description="The same of transactional ones.")
    useless_after_marketing_s: Span = Field(86_400, gt=0, description="The same of marketing, nights included.")

    @property
    def useless_after(self) -> dict[Category, timedelta]:
        """How long after it was due a push or message may still go out, by category."""
        return by_category.useless_after(self)

    @property
    def lease(self) -> timedelta:
        """The time for which a claim is valid."""
        return timedelta(seconds=self.lease_s)
