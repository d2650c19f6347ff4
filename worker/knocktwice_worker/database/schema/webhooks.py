"""Webhooks: endpoints, events, and which event goes to which endpoint."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from knocktwice_worker.database.schema.conventions import metadata, moment

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Text, primary_key=True, comment="The name that it was given, like ep_0123456789abcdef."),
    Column("url", Text, nullable=False, unique=True, comment="The address."),
    Column(
        "events",
        ARRAY(Text),
        nullable=False,
        server_default=text("'{}'"),
        comment="Which types of events it is told. Empty: all.",
    ),
    Column(
        "personal",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether it is told who the person is.",
    ),
    Column("project", Text, comment="The only project of which it is told. NULL: it is told of all."),
    moment("since", "What happened before is told only when it is replayed.", required=True),
    Column(
        "failures",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="How often in a row it did not take an event.",
    ),
    moment("failing_since", "Since when it has taken nothing. NULL: it works."),
    moment("resume_at", "When it is tried again after a failure. NULL: at once."),
    Column("last_error", Text, comment="What went wrong last."),
    moment("disabled_at", "Since when it is told nothing. NULL: it is told."),
    Column("disabled_reason", Text, comment="Why it is told nothing."),
    comment="Addresses of the application that are told what happens.",
)

webhook_events = Table(
    "webhook_events",
    metadata,
    Column(
        "id",
        BigInteger,
        Identity(always=True),
        primary_key=True,
        comment="In the order in which they happened to a notification.",
    ),
    Column("notification_id", Uuid, nullable=False, comment="The notification."),
    Column("step", SmallInteger, nullable=False, comment="The step; 0 also for the notification as a whole."),
    Column("type", Text, nullable=False, comment="What happened, like push.clicked."),
    Column("at", DateTime(timezone=True), nullable=False, comment="When it happened."),
    Column("data", JSONB, nullable=False, comment="What the webhook says, without the person."),
    Column("project", Text, comment="The project that it concerns. NULL: none."),
    # Everything happens to a step once: what is found a second time is not told a second time.
    UniqueConstraint("notification_id", "step", "type"),
    # serves: replaying, and forgetting old ones
    Index("webhook_events_at_idx", "at"),
    comment="What happened to notifications, for webhooks; each once.",
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column(
        "endpoint_id",
        Text,
        ForeignKey("webhook_endpoints.id", ondelete="CASCADE"),
        primary_key=True,
        comment="The endpoint.",
    ),
    Column(
        "event_id",
        BigInteger,
        ForeignKey("webhook_events.id", ondelete="CASCADE"),
        primary_key=True,
        comment="The event.",
    ),
    Column(
        "notification_id",
        Uuid,
        nullable=False,
        comment="The notification of the event; events of one notification go out one after another.",
    ),
    Column("tries", SmallInteger, nullable=False, server_default=text("0"), comment="How often it was sent."),
    moment("next_at", "When it is to be sent, or when its sender's lease ends. NULL: delivered, or given up."),
    moment("delivered_at", "When the endpoint took it."),
    Column("error", Text, comment="What went wrong last."),
    # serves: forgetting old events
    Index("webhook_deliveries_event_id_idx", "event_id"),
    # serves: what is to be sent
    Index("webhook_deliveries_next_at_idx", "endpoint_id", "next_at", postgresql_where=text("next_at IS NOT NULL")),
    # serves: what is to be sent before
    Index(
        "webhook_deliveries_open_idx",
        "endpoint_id",
        "notification_id",
        "event_id",
        postgresql_where=text("next_at IS NOT NULL"),
    ),
    comment="An event on its way to an endpoint.",
)
