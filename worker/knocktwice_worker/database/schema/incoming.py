"""Messages from outside: providers' reports, texts that people write, and messages that nobody could process."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)

from knocktwice_worker.database.schema.conventions import index_by_time, metadata, moment

provider_reports = Table(
    "provider_reports",
    metadata,
    Column("provider", Text, nullable=False, comment="The provider that reports."),
    Column("provider_id", Text, primary_key=True, comment="The provider's id of the message."),
    Column("status", Text, primary_key=True, comment="What is reported; lifecycle.ProviderState."),
    Column("notification_id", Uuid, comment="The notification, where the callback's address names it."),
    Column("step", SmallInteger, comment="The step, where the callback's address names it."),
    Column("error", Integer, comment="The provider's error code, if it is a number."),
    Column(
        "error_text",
        Text,
        comment="The provider's error code if it is a word, or if the number beside it does not tell it.",
    ),
    Column("price", Numeric, comment="What the provider asks for the message. NULL: not told."),
    Column("price_unit", Text, comment="The currency of the price, as ISO 4217 has it."),
    Column(
        "untextable",
        Text,
        comment="Why the number cannot be texted, where the report says so; lifecycle.Untextable.",
    ),
    Column("operators", Text, comment="What the operator must mend, where the report says so."),
    Column("at", DateTime(timezone=True), nullable=False, comment="When the report was made."),
    moment("received_at", "When it was written down.", required=True),
    comment="Reports of providers that are not written to their deliveries yet; a repeat is the same row.",
)

inbound_texts = Table(
    "inbound_texts",
    metadata,
    Column("provider_id", Text, primary_key=True, comment="The provider's id of the text, by which a repeat is known."),
    Column(
        "number", Text, nullable=False, comment="Who wrote: in E.164, a short code or a name. Empty: they were erased."
    ),
    Column("wish", Text, comment="STOP, START or HELP. NULL: something else."),
    moment("received_at", "When it was written down.", required=True),
    Column(
        "id",
        Uuid,
        comment="A UUIDv7 by which lists and webhooks name it. NULL: it came before texts were kept.",
    ),
    Column("words", Text, comment="The text. NULL: not kept, or no longer."),
    Column("characters", Integer, comment="The length of the text. NULL: not known."),
    Column("provider", Text, comment="The provider that brought it. NULL: not known."),
    Column("channel", Text, comment="The channel by which it came, like sms. NULL: not known."),
    Column("sender", Text, comment="Our sender to which it was written. NULL: not told."),
    Column("project", Text, comment="The project whose own sender it was written to. NULL: none."),
    Column("answers", Uuid, comment="The notification that it answers. NULL: none that is known."),
    # serves: whether somebody has asked for texts again since; a number's texts
    Index("inbound_texts_of_number_idx", "number", "received_at"),
    # serves: the list, newest first; who an event is about
    Index("inbound_texts_id_idx", "id", unique=True),
    # serves: a project's list; empty without projects that have senders
    Index("inbound_texts_project_idx", "project", "id", postgresql_where=text("project IS NOT NULL")),
    # serves: what is new since a follower looked last
    index_by_time("inbound_texts_received_at_idx", "received_at"),
    comment="What people wrote to one of our senders.",
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column(
        "id", BigInteger, Identity(always=True), primary_key=True, comment="In the order in which they were parked."
    ),
    Column("message_id", Text, comment="The message's id in the queue, if it had one."),
    Column("task", Text, comment="The task that it was for, if it named one."),
    Column("reason", Text, nullable=False, comment="Why it could not be processed."),
    Column("payload", Text, nullable=False, comment="The message as it came, without people who were erased since."),
    moment("at", "When it was parked.", required=True),
    comment="Parked messages: what nobody could process.",
)
