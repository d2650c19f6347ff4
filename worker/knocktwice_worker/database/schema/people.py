"""People, their devices and numbers, and the segments by which they are found."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from knocktwice_worker.database.schema.conventions import metadata, moment

users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True, comment="The application's own id of the person."),
    moment("created_at", "When the system first heard of the person.", required=True),
    Column(
        "tags",
        JSONB,
        nullable=False,
        server_default=text("'{}'"),
        comment="What the application says about the person: by name, as text, number, boolean or a list of these.",
    ),
    Column(
        "locale",
        Text,
        comment="The person's language, like de-AT; a device's own language comes first. NULL: not known.",
    ),
    Column(
        "time_zone",
        Text,
        comment="The person's time zone, like Europe/Vienna; a device's own zone comes first. NULL: not known.",
    ),
    Column(
        "field_times",
        JSONB,
        nullable=False,
        server_default=text("'{}'"),
        comment="Field by field, when it was said, removed tags too: "
        "a message that arrives late changes only older fields.",
    ),
    moment("updated_at", "When tags, locale or zone changed last.", required=True),
    # serves: segments by the value of a tag (=, in) or by an item of a list (contains)
    Index("users_tags_idx", "tags", postgresql_using="gin", postgresql_ops={"tags": "jsonb_path_ops"}),
    comment="A person, by the id that the application gives them.",
)

devices = Table(
    "devices",
    metadata,
    Column(
        "registration",
        Text,
        primary_key=True,
        comment="FCM's address of the installation: a registration token or a Firebase installation id.",
    ),
    Column(
        "user_id",
        Text,
        ForeignKey("users.id", ondelete="CASCADE"),
        comment="Whose it is. NULL after a logout: the row stays, so that an older message cannot undo that.",
    ),
    Column("platform", Text, comment="android, ios or web. NULL: not known."),
    Column(
        "notifications_enabled",
        Boolean,
        nullable=False,
        server_default=text("true"),
        comment="Whether the phone shows notifications of the app.",
    ),
    Column("locale", Text, comment="The device's language, like de-AT. NULL: not known."),
    Column("time_zone", Text, comment="The device's time zone, like Europe/Vienna. NULL: not known."),
    Column("app_version", Text, comment="The version of the app. NULL: not known."),
    moment(
        "changed_at",
        "When the application said the latest that is written here; what was said before is ignored.",
        required=True,
    ),
    moment(
        "last_seen_at",
        "When it was registered or reported something last, to the day. A device not seen for long is deleted.",
        required=True,
    ),
    Column("left_user", Text, comment="Who logged out of it last. NULL: nobody by name."),
    moment("left_at", "When that was, so that an older registration of the same person, arriving late, has no effect."),
    Column(
        "field_times",
        JSONB,
        comment="Field by field, when it was said: a message that arrives late changes only older fields. NULL: not known.",
    ),
    # serves: the devices of a batch's users; segments by has_device and platform
    Index("devices_user_id_idx", "user_id"),
    # serves: segments by notifications_enabled, from the index alone
    Index("devices_enabled_idx", "user_id", postgresql_where=text("notifications_enabled")),
    # serves: segments of people seen lately; forgetting devices that have not been seen for long
    Index("devices_last_seen_at_idx", "last_seen_at", "user_id", postgresql_where=text("user_id IS NOT NULL")),
    # serves: erasing a person
    Index("devices_left_user_idx", "left_user", postgresql_where=text("left_user IS NOT NULL")),
    comment="An installation of the app that can be pushed to.",
)

phones = Table(
    "phones",
    metadata,
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, comment="The person."),
    Column(
        "number",
        Text,
        comment="The number in E.164, like +16505550100. NULL: none, or taken away, "
        "which an older message cannot undo.",
    ),
    Column(
        "region", Text, comment="The country of the number, as ISO 3166 has it. NULL: it belongs to none, like +800."
    ),
    moment("changed_at", "When the application said the number; what was said before is ignored.", required=True),
    moment("consented_at", "Since when the person agrees to marketing. NULL: not, or no longer."),
    Column("consent_source", Text, comment="Who says that the person agreed, or that they withdrew it."),
    moment("consent_changed_at", "When consent was last given or withdrawn; what was said before is ignored."),
    # serves: segments by has_phone and can_receive_sms, from the index alone
    Index("phones_bound_idx", "user_id", "number", postgresql_where=text("number IS NOT NULL")),
    # serves: whether somebody else has a number, when its owner is erased
    Index("phones_number_idx", "number", postgresql_where=text("number IS NOT NULL")),
    # serves: segments by consent, from the index alone
    Index("phones_consented_idx", "user_id", postgresql_where=text("consented_at IS NOT NULL")),
    comment="A person's phone number, and whether marketing may be texted to it.",
)

aliases = Table(
    "aliases",
    metadata,
    Column("label", Text, primary_key=True, comment="The kind of name, like onesignal_id."),
    Column("value", Text, primary_key=True, comment="The name."),
    Column("user_id", Text, nullable=False, comment="The person. No foreign key: the person's own row may come later."),
    Column("registration", Text, comment="The device that is meant. NULL: the person, or their number."),
    moment("since", "Since when it leads there.", required=True),
    # serves: what other systems call a person, and erasing the person
    Index("aliases_user_id_idx", "user_id"),
    # serves: erasing the owner of a device
    Index("aliases_registration_idx", "registration", postgresql_where=text("registration IS NOT NULL")),
    comment="Names that other systems have for people and devices.",
)

hwids = Table(
    "hwids",
    metadata,
    Column("hwid", Text, primary_key=True, comment="The name, unique among all installations."),
    Column(
        "registration",
        Text,
        nullable=False,
        comment="FCM's address of the installation. Its device may be written later, or be gone.",
    ),
    Column("user_id", Text, nullable=False, comment="Whose it is. The person may be written later, or be gone."),
    moment("changed_at", "When the app said so last.", required=True),
    # serves: erasing a person
    Index("hwids_user_id_idx", "user_id"),
    comment="Names that another product's apps give their installations: whose devices they are.",
)

segments = Table(
    "segments",
    metadata,
    Column("name", Text, primary_key=True, comment="The name that blasts use."),
    Column("filter", JSONB, nullable=False, comment="The condition, as audience/segment_filter.py has checked it."),
    Column("description", Text, nullable=False, server_default=text("''"), comment="For whoever reads the list."),
    moment("updated_at", "When it was saved last.", required=True),
    comment="Saved filters over people.",
)
