"""Blasts: the blast, its pages, and the recurring ones."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from knocktwice_worker.database.schema.conventions import metadata, moment

blasts = Table(
    "blasts",
    metadata,
    Column("id", Uuid, primary_key=True, comment="Made of project and key, so a key starts once."),
    Column("key", Text, nullable=False, comment="The same key starts once in its project."),
    Column("project", Text, comment="The project to which it belongs. NULL: none."),
    Column("segment", Text, comment="The segment's name. NULL: the filter was given with the blast."),
    Column("filter", JSONB, nullable=False, comment="The segment's filter as it was when the blast was started."),
    Column(
        "message",
        JSONB,
        nullable=False,
        comment="What a send_push message has beside v, id and recipients, and the params of all recipients.",
    ),
    Column(
        "own_params",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether only people who have values in blast_params are notified.",
    ),
    Column("throttle_per_min", Integer, comment="Most people in a minute. NULL: as fast as it goes."),
    Column("schedule", Text, comment="The recurring blast that it is one of. NULL: none."),
    Column("state", Text, nullable=False, comment="running, paused, finished or aborted."),
    Column("reason", Text, comment="Why it was paused or aborted."),
    Column("cursor", Text, comment="The last person that was taken from the segment. NULL: none yet, or all."),
    Column(
        "total",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="How many people were taken from the segment.",
    ),
    Column(
        "purged",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="How many it notified of those whose pages were deleted since.",
    ),
    moment("next_at", "When the throttle lets the next page go."),
    moment(
        "wake_at", "When the dispatcher rings: there is something to do, or a lease has ended. NULL: nothing to do."
    ),
    moment("created_at", "When it was accepted.", required=True),
    moment("started_at", "When the first person was taken from the segment."),
    moment("expanded_at", "When all people were taken from the segment."),
    moment("finished_at", "When it ended."),
    CheckConstraint("state IN ('running', 'paused', 'finished', 'aborted')", name="state"),
    CheckConstraint("state <> 'running' OR wake_at IS NOT NULL", name="wake_at"),
    CheckConstraint("(state IN ('finished', 'aborted')) = (finished_at IS NOT NULL)", name="finished"),
    # serves: the dispatcher
    Index("blasts_wake_at_idx", "wake_at", postgresql_where=text("wake_at IS NOT NULL")),
    # serves: finding a blast by its key
    Index("blasts_key_idx", "key"),
    comment="One notification to everybody in a segment.",
)

blast_pages = Table(
    "blast_pages",
    metadata,
    Column(
        "id", Uuid, primary_key=True, comment="The batch's id. The ids of its notifications lie between it and last_id."
    ),
    Column("last_id", Uuid, nullable=False, comment="The last id that belongs to the page."),
    Column("blast_id", Uuid, ForeignKey("blasts.id", ondelete="CASCADE"), nullable=False, comment="The blast."),
    Column("count", Integer, nullable=False, comment="How many people it had at first."),
    Column(
        "users",
        ARRAY(Text),
        comment="The people, NULL in place of an erased one. NULL: they have their notifications, or get none.",
    ),
    moment("wake_at", "Until when a worker has it. NULL: none has had it yet, or it is done."),
    moment("released_at", "When a worker was asked to send it last."),
    moment("sent_at", "When its notifications were written."),
    moment("cancelled_at", "When its notifications were cancelled."),
    CheckConstraint("users IS NULL OR sent_at IS NULL", name="sent"),
    # serves: which pages are still to be sent
    Index("blast_pages_waiting_idx", "blast_id", "id", postgresql_where=text("users IS NOT NULL")),
    # serves: the throttle
    Index("blast_pages_released_idx", "blast_id", "released_at", postgresql_where=text("released_at IS NOT NULL")),
    # serves: counting and cancelling a blast's notifications
    Index("blast_pages_sent_idx", "blast_id", "id", postgresql_where=text("sent_at IS NOT NULL")),
    comment="Up to 500 people of a blast, who become one batch.",
)

blast_params = Table(
    "blast_params",
    metadata,
    Column("user_id", Text, primary_key=True, comment="The person."),
    Column("blast_id", Uuid, ForeignKey("blasts.id", ondelete="CASCADE"), primary_key=True, comment="The blast."),
    Column("params", JSONB, nullable=False, comment="Value by name, beside those that all have."),
    comment="Values of one person in the texts of a blast, until the person is notified.",
)

blast_numbers = Table(
    "blast_numbers",
    metadata,
    Column("blast_id", Uuid, ForeignKey("blasts.id", ondelete="CASCADE"), primary_key=True, comment="The blast."),
    Column("number", LargeBinary, primary_key=True, comment="A keyed hash of channel and number."),
    Column("notification_id", Uuid, nullable=False, comment="Which notification has it."),
    comment="The numbers that a blast texts: each of them once, whoever shares it.",
)

blast_schedules = Table(
    "blast_schedules",
    metadata,
    Column("name", Text, primary_key=True, comment="The name in the file."),
    Column("definition", JSONB, nullable=False, comment="As blasts/schedules.py has checked it."),
    moment("next_at", "When it starts next.", required=True),
    moment("last_at", "The time for which it was last started, or not."),
    Column("outcome", Text, comment="What came of that: a blast, or why there was none."),
    moment("updated_at", "When it was declared last.", required=True),
    # serves: which are due
    Index("blast_schedules_next_at_idx", "next_at"),
    comment="Recurring blasts, as declared in a file.",
)
