"""The acts of operators and what they must know: pauses, changed settings, their record, alarms, and keys."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Index,
    LargeBinary,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from knocktwice_worker.database.schema.conventions import metadata, moment

pauses = Table(
    "pauses",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="In the order in which they were set."),
    Column("channel", Text, comment="The channel that waits: push, sms and so on. NULL: any."),
    Column("provider", Text, comment="Whose messages wait. NULL: any provider's."),
    Column("sender", Text, comment="The sender whose messages wait. NULL: any."),
    Column("country", Text, comment="The country whose numbers wait, as ISO 3166 has it. NULL: any."),
    Column("template", Text, comment="The template whose messages wait. NULL: any."),
    Column("category", Text, comment="The category whose messages wait. NULL: any."),
    Column(
        "drains",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether messages that are already decided still go.",
    ),
    Column("reason", Text, nullable=False, comment="Why, in the operator's words."),
    moment("since", "When it was set.", required=True),
    moment("until", "When it ends by itself. NULL: it does not."),
    moment("ended_at", "When it ended. NULL: it is on."),
    Column(
        "settled",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether everything that waited for it was woken after its end.",
    ),
    CheckConstraint("NOT settled OR ended_at IS NOT NULL", name="settled"),
    # serves: what each worker asks every half second
    Index("pauses_open_idx", "id", postgresql_where=text("NOT settled")),
    comment="Pauses: what an operator lets wait, until it is resumed or its time is over.",
)

overrides = Table(
    "overrides",
    metadata,
    Column("name", Text, primary_key=True, comment="The setting's environment variable."),
    Column("value", Text, nullable=False, comment="Its value, as the variable would have it."),
    moment("since", "When it was set.", required=True),
    comment="Settings that operators have changed without a restart; each counts instead of its variable.",
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="In the order in which it was done."),
    moment("at", "When.", required=True),
    Column(
        "actor",
        Text,
        nullable=False,
        comment="Who: an account on a machine, a key of the gateway, or who had logged in to Flower.",
    ),
    Column("action", Text, nullable=False, comment="What was done, like pause or set."),
    Column("subject", JSONB, nullable=False, comment="To what it was done."),
    Column("reason", Text, nullable=False, comment="Why, in the operator's words."),
    comment="What operators did: who, when, what and why.",
)

alarms = Table(
    "alarms",
    metadata,
    Column("type", Text, primary_key=True, comment="What happened, like brake.on."),
    Column("subject", Uuid, primary_key=True, comment="About what; an alarm about the same is raised once."),
    moment("at", "When it happened first.", required=True),
    Column("data", JSONB, nullable=False, comment="What the webhook says."),
    Column("count", BigInteger, nullable=False, server_default=text("1"), comment="How often it happened."),
    # serves: webhooks and doctor, which look for new ones
    Index("alarms_at_idx", "at"),
    comment="What an operator must know and no notification tells, for webhooks and doctor.",
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True, comment="The part of a key that may be shown; it finds the row."),
    Column("name", Text, nullable=False, comment="The owner, as an operator named it."),
    Column("digest", LargeBinary, nullable=False, comment="An HMAC of the whole key; the key itself is kept nowhere."),
    Column("scopes", ARRAY(Text), nullable=False, comment="What it may do."),
    Column("project", Text, comment="The only project that it sees and acts in. NULL: it sees all."),
    moment("created_at", "When it was made.", required=True),
    moment("expires_at", "Until when it is valid. NULL: for ever."),
    moment("revoked_at", "When it was taken back. NULL: it was not."),
    moment("last_used_at", "When it was used last, roughly."),
    comment="Keys of the gateway.",
)
