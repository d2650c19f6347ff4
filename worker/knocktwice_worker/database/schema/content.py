"""Templates, and the links in messages."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, SmallInteger, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from knocktwice_worker.database.schema.conventions import metadata, moment

templates = Table(
    "templates",
    metadata,
    Column("name", Text, primary_key=True, comment="The name that notifications use."),
    Column(
        "definition",
        JSONB,
        nullable=False,
        comment="The contents and what follows the push, as content/templates.py has checked them.",
    ),
    Column(
        "version",
        Integer,
        nullable=False,
        comment="Counts the changes, so that one can tell by which wording somebody was notified.",
    ),
    moment("updated_at", "When it was changed last.", required=True),
    comment="What can be said, in every language.",
)

links = Table(
    "links",
    metadata,
    Column(
        "token",
        Text,
        primary_key=True,
        comment="The last part of the link's address: a signature over notification, step and target.",
    ),
    Column("notification_id", Uuid, nullable=False, comment="The notification whose message has the link."),
    Column("step", SmallInteger, nullable=False, comment="The step whose message has the link."),
    Column("target", Text, comment="Where it leads. NULL: nowhere any more."),
    moment("created_at", "When it was made.", required=True),
    # serves: deleting those of old notifications and of erased people
    Index("links_notification_id_idx", "notification_id"),
    comment="Short links in messages.",
)
