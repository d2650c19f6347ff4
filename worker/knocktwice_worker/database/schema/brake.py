"""The counts from which the brake, the pumping guard and trials judge, and the brakes that are on."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    Numeric,
    SmallInteger,
    Table,
    Text,
    text,
)

from knocktwice_worker.database.schema.conventions import metadata, moment, one_of
from knocktwice_worker.lifecycle import BrakeState, PushTrouble, TextTrouble

receipt_health = Table(
    "receipt_health",
    metadata,
    Column("hour", DateTime(timezone=True), primary_key=True, comment="The hour in which the pushes went out."),
    Column("platform", Text, primary_key=True, comment="android, ios, web or unknown."),
    Column("app_version", Text, primary_key=True, comment="The version of the app. Empty: not known."),
    Column("pushes", Integer, nullable=False, comment="Pushes that the provider took."),
    Column("delivered", Integer, nullable=False, comment="Of these, how many were reported as delivered."),
    Column("confirmed", Integer, nullable=False, comment="Of these, how many were reported as delivered or clicked."),
    comment="How many pushes the apps reported as delivered, by the hour and the kind of device.",
)

push_counts = Table(
    "push_counts",
    metadata,
    Column(
        "slot",
        DateTime(timezone=True),
        primary_key=True,
        comment="When the slot begins in which the pushes were handed over: 15 seconds, later an hour, later a day.",
    ),
    Column("template", Text, primary_key=True, comment="The template. Empty: none."),
    Column("platform", Text, primary_key=True, comment="android, ios, web or unknown."),
    Column("app_version", Text, primary_key=True, comment="The version of the app. Empty: not known."),
    Column(
        "refused",
        BigInteger,
        nullable=False,
        comment="Pushes that the provider refused for a reason that is not the device's.",
    ),
    Column("sent", BigInteger, nullable=False, comment="Pushes that the provider took."),
    Column("delivered", BigInteger, nullable=False, comment="Of these, reported as delivered within half a minute."),
    Column("clicked", BigInteger, nullable=False, comment="Of these, clicked within half a minute."),
    Column(
        "troubled",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether a brake was on, so that this says nothing of what is usual.",
    ),
    comment="What became of pushes within half a minute, for the brake, by template and kind of device.",
)

text_counts = Table(
    "text_counts",
    metadata,
    Column("template", Text, primary_key=True, comment="The template. Empty: none."),
    Column("project", Text, primary_key=True, comment="The project. Empty: none."),
    Column(
        "slot",
        DateTime(timezone=True),
        primary_key=True,
        comment="When the slot begins in which the providers took them: 5 seconds, later an hour.",
    ),
    Column("prefix", Text, primary_key=True, comment="The first seven digits of the number, behind a plus."),
    Column("messages", BigInteger, nullable=False, comment="Messages that providers took."),
    Column(
        "settled",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="Of these, those whose two minutes are over.",
    ),
    Column(
        "answered",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="Of these, those that somebody answered in time.",
    ),
    Column(
        "delivered",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="Of these, those that the provider reports as delivered by then.",
    ),
    # serves: the latest messages of all kinds
    Index("text_counts_slot_idx", "slot"),
    comment="How many single messages went to which numbers, and what became of them within two minutes, "
    "for the pumping guard.",
)

trial_counts = Table(
    "trial_counts",
    metadata,
    Column(
        "slot",
        DateTime(timezone=True),
        primary_key=True,
        comment="When the ten minutes begin in which it was decided.",
    ),
    Column(
        "rule",
        Text,
        primary_key=True,
        comment="What would have stopped them, in the words of the ledger. any: each message once.",
    ),
    Column(
        "shard",
        SmallInteger,
        primary_key=True,
        autoincrement=False,
        comment="One of several rows for the same, so that workers do not wait for each other.",
    ),
    Column("messages", BigInteger, nullable=False, comment="How many messages."),
    comment="How many messages went that rules which are only watched would have stopped, for knocktwice trial.",
)

brakes = Table(
    "brakes",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="In the order in which they tripped."),
    Column(
        "kind", Text, nullable=False, comment="What is wrong: refused, undelivered or unclicked pushes, or pumping."
    ),
    Column("template", Text, comment="The template whose SMS it holds. NULL: any; empty: none."),
    Column("platform", Text, comment="The platform. NULL: any."),
    Column("app_version", Text, comment="The version of the app. NULL: any; empty: not known."),
    Column(
        "state",
        Text,
        nullable=False,
        server_default=text("'on'"),
        comment="on; over: the share is usual again; released: by an operator.",
    ),
    moment("since", "When it tripped.", required=True),
    Column(
        "counted_from",
        DateTime(timezone=True),
        nullable=False,
        comment="From when on the pushes that it covers say nothing of what is usual.",
    ),
    moment("ended_at", "Since when it holds nothing new. NULL: it is on."),
    moment("grace_until", "Until when nothing that it covered is held again. NULL: no operator released it."),
    Column("pushes", BigInteger, nullable=False, comment="The pushes, or messages, by which it tripped."),
    Column("share", Numeric, nullable=False, comment="The share of these that nobody answers or nobody can."),
    Column("usual", Numeric, nullable=False, comment="The usual share."),
    Column("why", Text, nullable=False, comment="The same in words."),
    Column(
        "passed",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="SMS that went although it was on, because the settings only watch their kind.",
    ),
    Column("prefix", Text, comment="The first digits of the numbers whose SMS it holds. NULL: any."),
    Column("project", Text, comment="The project whose SMS it holds. NULL: any; empty: none."),
    moment("next_turn_at", "Where it only slows down: when the next message may go. NULL: none has gone so."),
    CheckConstraint(one_of("kind", [*PushTrouble, *TextTrouble]), name="kind"),
    CheckConstraint(one_of("state", BrakeState), name="state"),
    CheckConstraint("(state = 'on') = (ended_at IS NULL)", name="ended"),
    # serves: the decision about a step; empty while no brake is on
    Index("brakes_on_idx", "id", postgresql_where=text("state = 'on'")),
    comment="Brakes: each holds the SMS of one kind of people whose share that falls back has jumped.",
)
