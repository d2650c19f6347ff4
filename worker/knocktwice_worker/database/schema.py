"""The tables, as SQLAlchemy knows them. ``migrations/`` builds the same; a test proves that they agree.

The ``comment`` of each table and column says what it means, in the database, too: ``\\d+ deliveries`` in psql shows it.
Children are keyed first by the notification's id, which is a UUIDv7: rows of one time lie together and old ones can be
dropped by range. Each index says which query it serves.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from knocktwice_worker.lifecycle import (
    OPEN,
    BrakeState,
    DeliveryState,
    NotificationState,
    ProviderState,
    PushTrouble,
    TextTrouble,
)

#: The database's clock, as a function of our own so that tests can move it. Every time the system compares with is from
#: here, never from a worker's clock.
CLOCK = """
CREATE FUNCTION knocktwice_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT now()'
"""

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)


def _one_of(column: str, values: object) -> str:
    return f"{column} IN ({', '.join(repr(str(v)) for v in values)})"  # type: ignore[attr-defined]


def _time(name: str, comment: str, *, required: bool = False) -> Column[object]:
    default = text("knocktwice_now()") if required else None
    return Column(name, DateTime(timezone=True), nullable=not required, server_default=default, comment=comment)


def _when(name: str, *columns: str) -> Index:
    """Return an index by time that costs its table next to nothing: it keeps the span of each 32 pages, not each row."""
    summary = {"pages_per_range": 32, "autosummarize": "on"}
    return Index(name, *columns, postgresql_using="brin", postgresql_with=summary)


users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True, comment="The application's own id of the person."),
    _time("created_at", "When the system first heard of the person.", required=True),
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
    _time("updated_at", "When tags, locale or zone changed last.", required=True),
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
    _time(
        "changed_at",
        "When the application said the latest that is written here; what was said before is ignored.",
        required=True,
    ),
    _time(
        "last_seen_at",
        "When it was registered or reported something last, to the day. A device not seen for long is deleted.",
        required=True,
    ),
    Column("left_user", Text, comment="Who logged out of it last. NULL: nobody by name."),
    _time("left_at", "When that was, so that an older registration of the same person, arriving late, has no effect."),
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
    _time("changed_at", "When the application said the number; what was said before is ignored.", required=True),
    _time("consented_at", "Since when the person agrees to marketing. NULL: not, or no longer."),
    Column("consent_source", Text, comment="Who says that the person agreed, or that they withdrew it."),
    _time("consent_changed_at", "When consent was last given or withdrawn; what was said before is ignored."),
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
    _time("since", "Since when it leads there.", required=True),
    # serves: what other systems call a person, and erasing the person
    Index("aliases_user_id_idx", "user_id"),
    # serves: erasing the owner of a device
    Index("aliases_registration_idx", "registration", postgresql_where=text("registration IS NOT NULL")),
    comment="Names that other systems have for people and devices.",
)

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
    _time("created_at", "Since when it must not be texted.", required=True),
    comment="Numbers that must not be texted.",
)

channel_opt_outs = Table(
    "channel_opt_outs",
    metadata,
    Column("number", Text, primary_key=True, comment="The number in E.164."),
    Column("channel", Text, primary_key=True, comment="The channel, like sms."),
    Column("source", Text, nullable=False, comment="Who says so."),
    _time("created_at", "Since when it must not be texted.", required=True),
    comment="Numbers that must not be texted over one channel.",
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
    _time("changed_at", "When the app said so last.", required=True),
    # serves: erasing a person
    Index("hwids_user_id_idx", "user_id"),
    comment="Names that another product's apps give their installations: whose devices they are.",
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
    _time("first_at", "When a message failed first.", required=True),
    _time("last_at", "When a message failed last.", required=True),
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
    _time("created_at", "Since when it must not be texted.", required=True),
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
    _time("noted_at", "When it was written down; workers learn of new ones by it.", required=True),
    # serves: workers learning of new ones
    Index("erasures_noted_at_idx", "noted_at"),
    comment="Who was erased, so that an older message that arrives late does not bring the person back.",
)

segments = Table(
    "segments",
    metadata,
    Column("name", Text, primary_key=True, comment="The name that blasts use."),
    Column("filter", JSONB, nullable=False, comment="The condition, as audience/segment_filter.py has checked it."),
    Column("description", Text, nullable=False, server_default=text("''"), comment="For whoever reads the list."),
    _time("updated_at", "When it was saved last.", required=True),
    comment="Saved filters over people.",
)

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
    _time("updated_at", "When it was changed last.", required=True),
    comment="What can be said, in every language.",
)

batches = Table(
    "batches",
    metadata,
    Column("id", Uuid, primary_key=True, comment="The id of the message; the page's in a blast."),
    Column(
        "content",
        JSONB,
        nullable=False,
        comment="The push and the SMS, or the template with its contents as they were.",
    ),
    Column("plan", JSONB, comment="The later steps, where they are more than one SMS that says what the content says."),
    Column("category", Text, nullable=False, comment="transactional, critical or marketing."),
    Column("ttl", Interval, nullable=False, comment="How long the provider may hold the push."),
    Column(
        "valid_for",
        Interval,
        comment="How long after it was due a push or a message is of use. NULL: the category's setting.",
    ),
    Column(
        "reference",
        JSONB,
        nullable=False,
        comment="The application's own ids, handed back in webhooks and the history.",
    ),
    _time("created_at", "When it was accepted.", required=True),
    comment="What the notifications of one message have in common.",
)

#: Rows that change once, a moment after they were written: with room on the page their indexes need not be touched.
_ROOM = {"fillfactor": 50}

notifications = Table(
    "notifications",
    metadata,
    Column(
        "id",
        Uuid,
        primary_key=True,
        comment="A UUIDv7 that the producer made, so that a message that comes twice is inserted once.",
    ),
    # No foreign key here, nor in deliveries and attempts: one function writes and one deletes them all together, and looking
    # for the parent of each row took a fifth of the database's time.
    Column("batch_id", Uuid, nullable=False, comment="The batch that it came with."),
    Column(
        "user_id",
        Text,
        comment="The person. NULL: the application gave devices and number with the call, or this is a duplicate.",
    ),
    Column("phone", Text, comment="The recipient's number in E.164, where the application gave it with the call."),
    Column("params", JSONB, nullable=False, comment="What is filled into the texts."),
    Column("key", Text, comment="The application's key; the same key never notifies twice. NULL: none."),
    Column(
        "project",
        Text,
        comment="The application to which it belongs, where one installation serves several. NULL: none.",
    ),
    Column("locale", Text, comment="Which of the template's contents. NULL: the batch has one for all."),
    Column("state", Text, nullable=False, comment="active, or how it ended; lifecycle.NotificationState."),
    Column("reason", Text, comment="Why it ended so. NULL while it is active."),
    _time("created_at", "When it was accepted.", required=True),
    _time("finished_at", "When it ended. NULL while it is active."),
    CheckConstraint(_one_of("state", NotificationState), name="state"),
    CheckConstraint("(state = 'active') = (finished_at IS NULL)", name="finished"),
    CheckConstraint("state = 'active' OR reason IS NOT NULL", name="reason"),
    # serves: a key notifies once in its project
    Index(
        "notifications_project_key_idx",
        "key",
        "project",
        unique=True,
        postgresql_where=text("key IS NOT NULL"),
        postgresql_nulls_not_distinct=True,
    ),
    # serves: a project's history; empty without projects
    Index("notifications_project_idx", "project", "id", postgresql_where=text("project IS NOT NULL")),
    # serves: erasing a person, by user or by a number given inline; a notification has one of them at most. With the id, so that
    # a page of the history of somebody with very many ends after its own rows
    Index(
        "notifications_of_person_idx",
        text("coalesce(user_id, phone)"),
        "id",
        postgresql_where=text("coalesce(user_id, phone) IS NOT NULL"),
    ),
    # serves: whether anything still refers to a batch, when old ones are deleted or a person is erased
    Index("notifications_batch_id_idx", "batch_id"),
    # serves: what is new since a follower looked last; counting a slice of time
    _when("notifications_times_idx", "created_at", "finished_at"),
    postgresql_with=_ROOM,
    comment="One message to one person, from acceptance to its end.",
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("notification_id", Uuid, primary_key=True, comment="The notification."),
    Column("step", SmallInteger, primary_key=True, comment="0: the push; 1, 2, and so on: the steps of the plan."),
    Column("channel", Text, nullable=False, comment="push, or what the plan names, like sms."),
    Column("state", Text, nullable=False, comment="Where the step stands; lifecycle.DeliveryState."),
    Column("reason", Text, comment="Why it ended so, or why it waits."),
    Column(
        "trigger",
        Text,
        comment="The condition under which the step is due. NULL: the push, or a first step, which has none.",
    ),
    _time("due_at", "When the countdown ends; of a push, when it is to go out. NULL: a push that went out at once."),
    Column(
        "after_step",
        SmallInteger,
        nullable=False,
        server_default=text("0"),
        comment="The step whose outcome and receipts the trigger looks at.",
    ),
    Column(
        "steps_left",
        SmallInteger,
        nullable=False,
        server_default=text("0"),
        comment="How many steps of the plan may follow this one.",
    ),
    _time(
        "wake_at",
        "When the dispatcher rings: the end of the countdown, of a wait or of a lease. NULL: the step has ended.",
    ),
    Column(
        "tries",
        SmallInteger,
        nullable=False,
        server_default=text("0"),
        comment="How often it was tried again; of a later step, how often a sender has claimed it.",
    ),
    Column(
        "number",
        Text,
        comment="The recipient's number in E.164, or what else the channel has. NULL: not reserved, a push, or erased.",
    ),
    Column("sender", Text, comment="The sending number, name or Messaging Service. NULL: that of the settings."),
    Column("text", Text, comment="The text, or what else the channel says, as its wording wrote it."),
    Column(
        "fingerprint",
        LargeBinary,
        comment="A hash of the text, case and spaces apart, by which repeats to one number are limited.",
    ),
    Column(
        "parts",
        SmallInteger,
        comment="How many SMS parts it is paid by; 0: its channel has no parts. NULL: not reserved yet.",
    ),
    _time("counted_at", "When it counted against the number's limits."),
    _time("claimed_at", "When a sender claimed it last."),
    _time(
        "missed_at",
        "When the provider's list first answered without the message, since it was claimed. NULL: it has not.",
    ),
    Column(
        "limited_repeats",
        SmallInteger,
        nullable=False,
        server_default=text("0"),
        comment="How often it was sent again after its sender had died, or without anybody who could say what became of it.",
    ),
    Column("provider", Text, comment="Which provider has it. NULL: no sender has claimed it yet."),
    Column("provider_id", Text, comment="The provider's id of the message."),
    Column(
        "lost_ids",
        ARRAY(Text),
        comment="The provider's ids of earlier messages of this step, which it had taken and then failed. NULL: none.",
    ),
    Column(
        "provider_status",
        Text,
        comment="The strongest report of the provider since it took the message; lifecycle.ProviderState.",
    ),
    Column("provider_error", Integer, comment="The provider's error code, if it is a number."),
    Column(
        "provider_error_text",
        Text,
        comment="The provider's error code if it is a word, or if the number beside it does not tell it.",
    ),
    _time("provider_status_at", "When that report was made."),
    _time("finished_at", "When the step ended. NULL while it is open."),
    Column("price", Numeric, comment="What the provider asks for the message. NULL: not told."),
    Column("price_unit", Text, comment="The currency of the price, as ISO 4217 has it."),
    _time(
        "reported_at",
        "When the provider's last report came, or when we stopped waiting for it. NULL: it may still come.",
    ),
    _time("heard_at", "When a report or a price was written here last."),
    Column("brake", BigInteger, comment="The brake that held it last. NULL: none has."),
    Column(
        "brake_waived",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether it was released from a brake, so that no brake holds it again.",
    ),
    Column("paused", BigInteger, comment="The pause for which it waits. NULL: none."),
    CheckConstraint(_one_of("state", DeliveryState), name="state"),
    CheckConstraint(_one_of("provider_status", ProviderState), name="provider_status"),
    CheckConstraint(f"({_one_of('state', sorted(OPEN))}) = (wake_at IS NOT NULL)", name="wake_at"),
    CheckConstraint("(wake_at IS NULL) = (finished_at IS NOT NULL)", name="finished"),
    # serves: the dispatcher
    Index("deliveries_wake_at_idx", "wake_at", postgresql_where=text("wake_at IS NOT NULL")),
    # serves: counting a number's SMS when Redis cannot say
    Index("deliveries_number_idx", "number", "counted_at", postgresql_where=text("number IS NOT NULL")),
    # serves: telling Redis what is spent of the day's budget; small, and nearly free to keep
    Index(
        "deliveries_counted_at_idx", "counted_at", postgresql_using="brin", postgresql_where=text("parts IS NOT NULL")
    ),
    # serves: finding the delivery a provider talks about; one message is one delivery
    Index(
        "deliveries_provider_id_idx",
        "provider_id",
        unique=True,
        postgresql_where=text("step > 0 AND provider_id IS NOT NULL"),
    ),
    # serves: knowing a failed message whose step was sent again; nearly empty
    Index(
        "deliveries_lost_ids_idx",
        "lost_ids",
        postgresql_using="gin",
        postgresql_where=text("lost_ids IS NOT NULL"),
    ),
    # serves: what is new since a follower looked last
    _when("deliveries_finished_at_idx", "finished_at"),
    _when("deliveries_heard_at_idx", "heard_at"),
    # serves: SMS whose provider has not had its last word
    Index(
        "deliveries_unreported_idx",
        "finished_at",
        postgresql_where=text("step > 0 AND state = 'sent' AND reported_at IS NULL"),
    ),
    # serves: the messages of unknown outcome; nearly empty
    Index(
        "deliveries_unknown_idx",
        "notification_id",
        "step",
        postgresql_where=text("step > 0 AND state = 'unknown'"),
    ),
    # serves: what a brake holds; empty while none is on
    Index(
        "deliveries_brake_idx",
        "brake",
        "notification_id",
        postgresql_where=text("brake IS NOT NULL AND wake_at IS NOT NULL AND NOT brake_waived"),
    ),
    # serves: what waits for a pause; empty while none is on
    Index(
        "deliveries_paused_idx",
        "paused",
        "notification_id",
        postgresql_where=text("paused IS NOT NULL AND wake_at IS NOT NULL"),
    ),
    comment="One step of a notification, written when the step before it ends: "
    "0 is the push, 1, 2 and so on follow it.",
)

attempts = Table(
    "attempts",
    metadata,
    Column("notification_id", Uuid, primary_key=True, comment="The notification."),
    Column(
        "registration",
        Text,
        primary_key=True,
        comment="The device; erased- after the person was erased.",
    ),
    Column(
        "state",
        Text,
        nullable=False,
        comment="open: to be tried, or to be tried again; sent: the provider took it; rejected: it will not.",
    ),
    Column("reason", Text, comment="Why it was rejected, or is tried again."),
    Column("provider_id", Text, comment="The provider's id of the push."),
    Column(
        "place",
        SmallInteger,
        comment="Its place among the registrations that the application gave, from 0. "
        "NULL: it is one of the person's devices.",
    ),
    CheckConstraint("state IN ('open', 'sent', 'rejected')", name="state"),
    postgresql_with=_ROOM,
    comment="A push to one device.",
)

events = Table(
    "events",
    metadata,
    # No foreign key: a receipt may arrive before its notification's rows are committed.
    Column("notification_id", Uuid, primary_key=True, comment="The notification; its own row may come later."),
    Column("kind", Text, primary_key=True, comment="delivered, clicked, seen, replied or cancelled."),
    Column(
        "registration",
        Text,
        primary_key=True,
        comment="The device that reported it; of a later step, the provider's message; of a reply, its id. Empty: not told.",
    ),
    Column("step", SmallInteger, nullable=False, server_default=text("0"), comment="The step that was answered."),
    Column("at", DateTime(timezone=True), nullable=False, comment="When it happened, by the clock of who reported it."),
    _time("received_at", "When it was written down.", required=True),
    CheckConstraint("kind IN ('delivered', 'clicked', 'seen', 'replied', 'cancelled')", name="kind"),
    # serves: what is new since a follower looked last
    _when("events_received_at_idx", "received_at"),
    comment="Receipts and cancellations, each once.",
)

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
    _time("received_at", "When it was written down.", required=True),
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
    _time("received_at", "When it was written down.", required=True),
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
    _when("inbound_texts_received_at_idx", "received_at"),
    comment="What people wrote to one of our senders.",
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
    _time("at", "When it was said; what was said before is ignored.", required=True),
    _time("noted_at", "When it was written down.", required=True),
    Column("channel", Text, comment="The only channel that it concerns. NULL: all texts."),
    # serves: whether something newer was said about a number
    Index("opt_out_changes_number_idx", "number", "at"),
    # serves: what is new since a follower looked last
    _when("opt_out_changes_noted_at_idx", "noted_at"),
    comment="Who said what about a number, opting out or in.",
)

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
    _time("since", "When it tripped.", required=True),
    Column(
        "counted_from",
        DateTime(timezone=True),
        nullable=False,
        comment="From when on the pushes that it covers say nothing of what is usual.",
    ),
    _time("ended_at", "Since when it holds nothing new. NULL: it is on."),
    _time("grace_until", "Until when nothing that it covered is held again. NULL: no operator released it."),
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
    _time("next_turn_at", "Where it only slows down: when the next message may go. NULL: none has gone so."),
    CheckConstraint(_one_of("kind", [*PushTrouble, *TextTrouble]), name="kind"),
    CheckConstraint(_one_of("state", BrakeState), name="state"),
    CheckConstraint("(state = 'on') = (ended_at IS NULL)", name="ended"),
    # serves: the decision about a step; empty while no brake is on
    Index("brakes_on_idx", "id", postgresql_where=text("state = 'on'")),
    comment="Brakes: each holds the SMS of one kind of people whose share that falls back has jumped.",
)

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
    _time("since", "When it was set.", required=True),
    _time("until", "When it ends by itself. NULL: it does not."),
    _time("ended_at", "When it ended. NULL: it is on."),
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
    _time("since", "When it was set.", required=True),
    comment="Settings that operators have changed without a restart; each counts instead of its variable.",
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="In the order in which it was done."),
    _time("at", "When.", required=True),
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
    _time("at", "When it happened first.", required=True),
    Column("data", JSONB, nullable=False, comment="What the webhook says."),
    Column("count", BigInteger, nullable=False, server_default=text("1"), comment="How often it happened."),
    # serves: webhooks and doctor, which look for new ones
    Index("alarms_at_idx", "at"),
    comment="What an operator must know and no notification tells, for webhooks and doctor.",
)

decisions = Table(
    "decisions",
    metadata,
    Column("notification_id", Uuid, primary_key=True, comment="The notification that was decided about."),
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="In the order in which they were taken."),
    Column("step", SmallInteger, nullable=False, comment="The step that was decided about."),
    Column("verdict", Text, nullable=False, comment="Verdict, Refusal, Delay or Note of lifecycle.py."),
    Column("inputs", JSONB, nullable=False, comment="What the decision was based on: receipts, limits, times."),
    _time("at", "When it was taken.", required=True),
    # serves: what the SMS are worth; empty without an experiment
    Index("decisions_experiment_idx", "at", postgresql_where=text("inputs ? 'experiment'")),
    comment="The ledger: every decision with what was known when it was taken, for knocktwice explain.",
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
    _time("created_at", "When it was made.", required=True),
    # serves: deleting those of old notifications and of erased people
    Index("links_notification_id_idx", "notification_id"),
    comment="Short links in messages.",
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
    _time("at", "When it was parked.", required=True),
    comment="Parked messages: what nobody could process.",
)

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
    _time("counted_at", "When it was counted last."),
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
    _time("since", "What happened before is told only when it is replayed.", required=True),
    Column(
        "failures",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="How often in a row it did not take an event.",
    ),
    _time("failing_since", "Since when it has taken nothing. NULL: it works."),
    _time("resume_at", "When it is tried again after a failure. NULL: at once."),
    Column("last_error", Text, comment="What went wrong last."),
    _time("disabled_at", "Since when it is told nothing. NULL: it is told."),
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
    _time("next_at", "When it is to be sent, or when its sender's lease ends. NULL: delivered, or given up."),
    _time("delivered_at", "When the endpoint took it."),
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

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True, comment="The part of a key that may be shown; it finds the row."),
    Column("name", Text, nullable=False, comment="The owner, as an operator named it."),
    Column("digest", LargeBinary, nullable=False, comment="An HMAC of the whole key; the key itself is kept nowhere."),
    Column("scopes", ARRAY(Text), nullable=False, comment="What it may do."),
    Column("project", Text, comment="The only project that it sees and acts in. NULL: it sees all."),
    _time("created_at", "When it was made.", required=True),
    _time("expires_at", "Until when it is valid. NULL: for ever."),
    _time("revoked_at", "When it was taken back. NULL: it was not."),
    _time("last_used_at", "When it was used last, roughly."),
    comment="Keys of the gateway.",
)

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
    _time("next_at", "When the throttle lets the next page go."),
    _time("wake_at", "When the dispatcher rings: there is something to do, or a lease has ended. NULL: nothing to do."),
    _time("created_at", "When it was accepted.", required=True),
    _time("started_at", "When the first person was taken from the segment."),
    _time("expanded_at", "When all people were taken from the segment."),
    _time("finished_at", "When it ended."),
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
    _time("wake_at", "Until when a worker has it. NULL: none has had it yet, or it is done."),
    _time("released_at", "When a worker was asked to send it last."),
    _time("sent_at", "When its notifications were written."),
    _time("cancelled_at", "When its notifications were cancelled."),
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
    _time("next_at", "When it starts next.", required=True),
    _time("last_at", "The time for which it was last started, or not."),
    Column("outcome", Text, comment="What came of that: a blast, or why there was none."),
    _time("updated_at", "When it was declared last.", required=True),
    # serves: which are due
    Index("blast_schedules_next_at_idx", "next_at"),
    comment="Recurring blasts, as declared in a file.",
)
