"""Roll-ups: what became of notifications, counted."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Date, DateTime, Index, Numeric, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from knocktwice_worker.database.schema.conventions import metadata, moment

followers = Table(
    "followers",
    metadata,
    Column("name", Text, primary_key=True, comment="The follower, like rollups or webhooks."),
    Column(
        "seen_until",
        DateTime(timezone=True),
        nullable=False,
        comment="It has seen everything that happened until then.",
    ),
    comment="Who follows what happens to notifications, and how far they have come; "
    "notifications/store/change_feed.py.",
)

rollup_slices = Table(
    "rollup_slices",
    metadata,
    Column("starts_at", DateTime(timezone=True), primary_key=True, comment="When the slice begins."),
    Column("dirty", Boolean, nullable=False, comment="Whether something in it has changed since it was counted."),
    moment("counted_at", "When it was counted last."),
    Column(
        "rows",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="How many notifications were counted. Fewer the next time means that old ones were deleted.",
    ),
    # serves: what is to be counted
    Index("rollup_slices_dirty_idx", "starts_at", postgresql_where=text("dirty")),
    comment="Slices of five minutes of acceptance, which are counted as a whole.",
)

#: What is counted → what that means; ``docs/numbers.md`` says it in full.
COUNTS = {
    "accepted": "Notifications, without duplicates.",
    "duplicates": "Notifications whose key had been used before.",
    "cancelled": "Notifications that the application stopped.",
    "failed": "Notifications of which nothing could be sent.",
    "pushed": "The provider took the push for at least one device.",
    "delivered": "A device reported the push as delivered or clicked.",
    "clicked": "A device reported a click.",
    "fell_back": "A step was due because the one before it was not enough, whatever then became of it.",
    "alone": "Notifications of a single message that follows nothing, such as an SMS without a push.",
    "sms_sent": "SMS that a provider took.",
    "sms_delivered": "SMS that were reported as delivered.",
    "sms_undelivered": "SMS that were reported as lost.",
    "sms_unknown": "SMS of which nobody can tell whether they went out.",
    "sms_wasted": "SMS that a later receipt showed to be needless.",
    "sms_parts": "Parts that the SMS are paid by.",
    "unpriced_parts": "Parts whose price no provider told.",
    "replied": "Somebody wrote back to a message of a later step.",
    "responded": "A device reported a click, somebody wrote back, or saw it elsewhere.",
}
#: Counts that the roll-ups had not from the first on. A worker of the release before writes lines without them.
_COUNTED_LATER = frozenset({"replied", "responded"})

rollups = Table(
    "rollups",
    metadata,
    Column("day", Date, primary_key=True, comment="The day of acceptance, in the zone of KNOCKTWICE_SMS_DAY_ZONE."),
    Column(
        "slice",
        DateTime(timezone=True),
        primary_key=True,
        comment="The slice it was counted in. 1970: slices that are closed for ever and have joined their day.",
    ),
    Column("template", Text, primary_key=True, comment="The template. Empty: none."),
    Column("blast", Text, primary_key=True, comment="The blast's key. Empty: none."),
    Column("country", Text, primary_key=True, comment="The country of the number, as ISO 3166 has it. Empty: none."),
    Column("category", Text, primary_key=True, comment="transactional, critical or marketing."),
    Column("project", Text, primary_key=True, server_default=text("''"), comment="The project. Empty: none."),
    *(
        Column(
            name,
            BigInteger,
            nullable=False,
            server_default=text("0") if name in _COUNTED_LATER else None,
            comment=meaning,
        )
        for name, meaning in COUNTS.items()
    ),
    Column("price", Numeric, nullable=False, comment="What providers asked for the SMS whose price is known."),
    Column(
        "channels",
        JSONB,
        nullable=False,
        comment="By channel, SMS apart: messages sent, delivered, read, unknown and unpriced, and the known prices.",
    ),
    Column(
        "reached",
        BigInteger,
        nullable=False,
        comment="Notifications with a receipt, an SMS that is not known to be lost, or another message that arrived.",
    ),
    Column("suppressed", JSONB, nullable=False, comment="By reason, how many were suppressed for it."),
    # serves: replacing a slice
    Index("rollups_slice_idx", "slice"),
    comment="What became of notifications, counted, for knocktwice stats; docs/numbers.md defines each figure.",
)
