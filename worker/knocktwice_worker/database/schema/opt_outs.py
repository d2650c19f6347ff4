"""Numbers that must not be texted, numbers that cannot be, and people who were erased."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, DateTime, Index, Integer, LargeBinary, Table, Text, Uuid, text

from knocktwice_worker.database.schema.conventions import index_by_time, metadata, moment

opt_outs = Table(
    "opt_outs",
    metadata,
    Column("number", Text, primary_key=True, comment="The number in E.164."),
    Column(
        "source",
        Text,
        nullable=False,
        comment="How we know: sms, provider, or what the application or an operator said.",
    ),
    moment("created_at", "Since when it must not be texted.", required=True),
    comment="Numbers that must not be texted.",
)

channel_opt_outs = Table(
    "channel_opt_outs",
    metadata,
    Column("number", Text, primary_key=True, comment="The number in E.164."),
    Column("channel", Text, primary_key=True, comment="The channel, like sms."),
    Column("source", Text, nullable=False, comment="Who says so."),
    moment("created_at", "Since when it must not be texted.", required=True),
    comment="Numbers that must not be texted over one channel.",
)

opt_out_changes = Table(
    "opt_out_changes",
    metadata,
    Column(
        "id",
        Uuid,
        primary_key=True,
        server_default=text("gen_random_uuid()"),
        comment="By which webhooks name it.",
    ),
    Column("number", Text, nullable=False, comment="The number in E.164. Empty: the person was erased."),
    Column(
        "opted_out", Boolean, nullable=False, comment="Whether it must not be texted from then on, or may be again."
    ),
    Column("source", Text, nullable=False, comment="Who said so: sms, provider, or what was told."),
    Column("inbound_id", Uuid, comment="The text that says so. NULL: none."),
    Column("changed", Boolean, nullable=False, comment="Whether the list changed by it; only then it is told."),
    moment("at", "When it was said; what was said before is ignored.", required=True),
    moment("noted_at", "When it was written down.", required=True),
    Column("channel", Text, comment="The only channel that it concerns. NULL: all texts."),
    # serves: whether something newer was said about a number
    Index("opt_out_changes_number_idx", "number", "at"),
    # serves: what is new since a follower looked last
    index_by_time("opt_out_changes_noted_at_idx", "noted_at"),
    comment="Who said what about a number, opting out or in.",
)

untextable = Table(
    "untextable",
    metadata,
    Column("number", Text, primary_key=True, comment="The number in E.164."),
    Column("channel", Text, primary_key=True, comment="The channel, like sms."),
    Column("reason", Text, nullable=False, comment="Why; lifecycle.Untextable."),
    Column(
        "failures",
        Integer,
        nullable=False,
        server_default=text("1"),
        comment="How many messages failed since the first.",
    ),
    moment("first_at", "When a message failed first.", required=True),
    moment("last_at", "When a message failed last.", required=True),
    comment="Numbers that messages of a channel do not reach, as providers tell it.",
)

suppressions = Table(
    "suppressions",
    metadata,
    Column(
        "number",
        LargeBinary,
        primary_key=True,
        comment="A keyed hash of the number, so that the table does not tell whose number it is.",
    ),
    moment("created_at", "Since when it must not be texted.", required=True),
    comment="Numbers of people who were erased and had opted out; they stay opted out.",
)

erasures = Table(
    "erasures",
    metadata,
    Column("person", LargeBinary, primary_key=True, comment="A keyed hash of the application's id of the person."),
    Column(
        "erased_at",
        DateTime(timezone=True),
        nullable=False,
        comment="What was said about the person until then is void.",
    ),
    moment("noted_at", "When it was written down; workers learn of new ones by it.", required=True),
    # serves: workers learning of new ones
    Index("erasures_noted_at_idx", "noted_at"),
    comment="Who was erased, so that an older message that arrives late does not bring the person back.",
)
