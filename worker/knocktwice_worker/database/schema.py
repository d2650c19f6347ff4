"""The tables, as SQLAlchemy knows them. ``migrations/`` builds the same; a test proves that they agree.

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

from knocktwice_worker.lifecycle import OPEN, DeliveryState, NotificationState, ProviderState

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


def _time(name: str, *, required: bool = False) -> Column[object]:
    default = text("knocktwice_now()") if required else None
    return Column(name, DateTime(timezone=True), nullable=not required, server_default=default)


def _when(name: str, *columns: str) -> Index:
    """Return an index by time that costs its table next to nothing: it keeps the span of each 32 pages, not each row."""
    summary = {"pages_per_range": 32, "autosummarize": "on"}
    return Index(name, *columns, postgresql_using="brin", postgresql_with=summary)


users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    _time("created_at", required=True),
    # What the application says about the person: name → text, number, boolean or a list of these.
    Column("tags", JSONB, nullable=False, server_default=text("'{}'")),
    Column("locale", Text),
    Column("time_zone", Text),
    # When each tag ("tags.NAME"), the locale and the zone were said, removed tags included: an older message that arrives
    # late changes only what no newer one has said.
    Column("field_times", JSONB, nullable=False, server_default=text("'{}'")),
    _time("updated_at", required=True),
    # serves: segments by the value of a tag (=, in) or by an item of a list (contains)
    Index("users_tags_idx", "tags", postgresql_using="gin", postgresql_ops={"tags": "jsonb_path_ops"}),
)

devices = Table(
    "devices",
    metadata,
    Column("registration", Text, primary_key=True),
    # NULL after a logout: the row stays so that an older "register" arriving late cannot undo it.
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE")),
    Column("platform", Text),
    Column("notifications_enabled", Boolean, nullable=False, server_default=text("true")),
    Column("locale", Text),
    Column("time_zone", Text),
    Column("app_version", Text),
    _time("changed_at", required=True),
    _time("last_seen_at", required=True),
    # serves: the devices of a batch's users; segments by has_device and platform
    Index("devices_user_id_idx", "user_id"),
    # serves: segments by notifications_enabled, from the index alone
    Index("devices_enabled_idx", "user_id", postgresql_where=text("notifications_enabled")),
    # serves: segments of people seen lately; forgetting devices that have not been seen for long
    Index("devices_last_seen_at_idx", "last_seen_at", "user_id", postgresql_where=text("user_id IS NOT NULL")),
)

phones = Table(
    "phones",
    metadata,
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    # NULL after unbinding, for the same reason as above.
    Column("number", Text),
    # The country that the number belongs to, as ISO 3166 has it; NULL if it belongs to none, like +800.
    Column("region", Text),
    _time("changed_at", required=True),
    # Marketing consent: since when, and who says so. Without a time there is none, and the source is who withdrew it.
    _time("consented_at"),
    Column("consent_source", Text),
    # When consent was last given or withdrawn, so that an older message arriving late cannot undo it.
    _time("consent_changed_at"),
    # serves: segments by has_phone and can_receive_sms, from the index alone
    Index("phones_bound_idx", "user_id", "number", postgresql_where=text("number IS NOT NULL")),
    # serves: whether somebody else has a number, when its owner is erased
    Index("phones_number_idx", "number", postgresql_where=text("number IS NOT NULL")),
    # serves: segments by consent, from the index alone
    Index("phones_consented_idx", "user_id", postgresql_where=text("consented_at IS NOT NULL")),
)

opt_outs = Table(
    "opt_outs",
    metadata,
    Column("number", Text, primary_key=True),
    Column("source", Text, nullable=False),
    _time("created_at", required=True),
)

# Numbers of people who were erased and had opted out. A keyed hash, so that nobody can read whom; see ``privacy/erasure.py``.
suppressions = Table(
    "suppressions",
    metadata,
    Column("number", LargeBinary, primary_key=True),
    _time("created_at", required=True),
)

# Who was erased, as a keyed hash, so that an older message arriving late does not bring the person back.
erasures = Table(
    "erasures",
    metadata,
    Column("person", LargeBinary, primary_key=True),
    # What was said until then is void.
    Column("erased_at", DateTime(timezone=True), nullable=False),
    _time("noted_at", required=True),
    # serves: workers learning of new ones
    Index("erasures_noted_at_idx", "noted_at"),
)

segments = Table(
    "segments",
    metadata,
    Column("name", Text, primary_key=True),
    # As ``audience/segment_filter.py`` has checked it.
    Column("filter", JSONB, nullable=False),
    Column("description", Text, nullable=False, server_default=text("''")),
    _time("updated_at", required=True),
)

templates = Table(
    "templates",
    metadata,
    Column("name", Text, primary_key=True),
    Column("definition", JSONB, nullable=False),
    # Counts the changes, so that one can tell by which wording somebody was notified.
    Column("version", Integer, nullable=False),
    _time("updated_at", required=True),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("content", JSONB, nullable=False),
    # The steps, where they are more than one SMS that says what the content says.
    Column("plan", JSONB),
    Column("category", Text, nullable=False),
    Column("ttl", Interval, nullable=False),
    Column("reference", JSONB, nullable=False),
    _time("created_at", required=True),
)

#: Rows that change once, a moment after they were written: with room on the page their indexes need not be touched.
_ROOM = {"fillfactor": 50}

notifications = Table(
    "notifications",
    metadata,
    Column("id", Uuid, primary_key=True),
    # No foreign key here, nor in deliveries and attempts: one function writes and one deletes them all together, and looking
    # for the parent of each row took a fifth of the database's time.
    Column("batch_id", Uuid, nullable=False),
    Column("user_id", Text),
    # The recipient's number where the application gave it inline.
    Column("phone", Text),
    Column("params", JSONB, nullable=False),
    Column("key", Text),
    # Which of a template's contents; NULL where the batch has one for all.
    Column("locale", Text),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    _time("created_at", required=True),
    _time("finished_at"),
    CheckConstraint(_one_of("state", NotificationState), name="state"),
    CheckConstraint("(state = 'active') = (finished_at IS NULL)", name="finished"),
    CheckConstraint("state = 'active' OR reason IS NOT NULL", name="reason"),
    # serves: a key notifies once
    Index("notifications_key_idx", "key", unique=True, postgresql_where=text("key IS NOT NULL")),
    # serves: erasing a person, by user or by a number given inline; a notification has one of them at most
    Index(
        "notifications_person_idx",
        text("coalesce(user_id, phone)"),
        postgresql_where=text("coalesce(user_id, phone) IS NOT NULL"),
    ),
    # serves: whether anything still refers to a batch, when old ones are deleted or a person is erased
    Index("notifications_batch_id_idx", "batch_id"),
    # serves: what is new since a follower looked last; counting a slice of time
    _when("notifications_times_idx", "created_at", "finished_at"),
    postgresql_with=_ROOM,
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("notification_id", Uuid, primary_key=True),
    Column("step", SmallInteger, primary_key=True),
    Column("channel", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    # The trigger and the countdown; NULL for the push.
    Column("trigger", Text),
    _time("due_at"),
    # The step whose outcome and receipts the trigger looks at, and how many steps may follow this one.
    Column("after_step", SmallInteger, nullable=False, server_default=text("0")),
    Column("steps_left", SmallInteger, nullable=False, server_default=text("0")),
    # When somebody must look at this row again: the countdown, a retry, or the end of a lease.
    _time("wake_at"),
    Column("tries", SmallInteger, nullable=False, server_default=text("0")),
    # What was reserved and is sent: number, sender and text as they were decided on. What the text holds is the
    # channel's own affair: its wording writes and reads it. The number may be an address of another kind.
    Column("number", Text),
    Column("sender", Text),
    Column("text", Text),
    Column("fingerprint", LargeBinary),
    # What an SMS is paid by; 0 where a channel has no parts.
    Column("parts", SmallInteger),
    # When it counted against the number's limits, and when a sender claimed it.
    _time("counted_at"),
    _time("claimed_at"),
    # Which provider has it; NULL until the first claim.
    Column("provider", Text),
    Column("provider_id", Text),
    # What the provider reported since it took the message: the strongest report, its error code and its time. A code that
    # is a word, or that the number beside it does not tell, is a text.
    Column("provider_status", Text),
    Column("provider_error", Integer),
    Column("provider_error_text", Text),
    _time("provider_status_at"),
    _time("finished_at"),
    Column("price", Numeric),
    Column("price_unit", Text),
    # When the provider's last word came, or nobody waited for it any longer; the status then tells which.
    _time("reported_at"),
    # When something of this was written down last.
    _time("heard_at"),
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
    # serves: what is new since a follower looked last
    _when("deliveries_finished_at_idx", "finished_at"),
    _when("deliveries_heard_at_idx", "heard_at"),
    # serves: SMS whose provider has not had its last word
    Index(
        "deliveries_unreported_idx",
        "finished_at",
        postgresql_where=text("step > 0 AND state = 'sent' AND reported_at IS NULL"),
    ),
)

attempts = Table(
    "attempts",
    metadata,
    Column("notification_id", Uuid, primary_key=True),
    Column("registration", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("provider_id", Text),
    CheckConstraint("state IN ('open', 'sent', 'rejected')", name="state"),
    postgresql_with=_ROOM,
)

events = Table(
    "events",
    metadata,
    # No foreign key: a receipt may arrive before its notification's rows are committed.
    Column("notification_id", Uuid, primary_key=True),
    Column("kind", Text, primary_key=True),
    # The device; for what a provider reports of a later step, the provider's id of the message.
    Column("registration", Text, primary_key=True),
    # Which step was answered.
    Column("step", SmallInteger, nullable=False, server_default=text("0")),
    Column("at", DateTime(timezone=True), nullable=False),
    _time("received_at", required=True),
    CheckConstraint("kind IN ('delivered', 'clicked', 'cancelled')", name="kind"),
    # serves: what is new since a follower looked last
    _when("events_received_at_idx", "received_at"),
)

provider_reports = Table(
    "provider_reports",
    metadata,
    # Reports that came in and are not written to their deliveries yet; a repeat is the same row.
    Column("provider", Text, nullable=False),
    Column("provider_id", Text, primary_key=True),
    Column("status", Text, primary_key=True),
    Column("notification_id", Uuid),
    Column("step", SmallInteger),
    Column("error", Integer),
    Column("error_text", Text),
    Column("price", Numeric),
    Column("price_unit", Text),
    Column("at", DateTime(timezone=True), nullable=False),
    _time("received_at", required=True),
)

inbound_texts = Table(
    "inbound_texts",
    metadata,
    Column("provider_id", Text, primary_key=True),
    Column("number", Text, nullable=False),
    # STOP, START or HELP; what else people write is not kept.
    Column("wish", Text),
    _time("received_at", required=True),
    # serves: whether somebody has asked for texts again since
    Index("inbound_texts_number_idx", "number", "received_at", postgresql_where=text("wish IS NOT NULL")),
)

receipt_health = Table(
    "receipt_health",
    metadata,
    Column("hour", DateTime(timezone=True), primary_key=True),
    Column("platform", Text, primary_key=True),
    Column("app_version", Text, primary_key=True),
    Column("pushes", Integer, nullable=False),
    # Of them: reported as delivered; reported as delivered or clicked.
    Column("delivered", Integer, nullable=False),
    Column("confirmed", Integer, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("notification_id", Uuid, primary_key=True),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("step", SmallInteger, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("inputs", JSONB, nullable=False),
    _time("at", required=True),
)

links = Table(
    "links",
    metadata,
    # What ``content/links/short_links.py`` made of notification, step and target.
    Column("token", Text, primary_key=True),
    Column("notification_id", Uuid, nullable=False),
    Column("step", SmallInteger, nullable=False),
    # NULL: it leads nowhere.
    Column("target", Text),
    _time("created_at", required=True),
    # serves: deleting those of old notifications and of erased people
    Index("links_notification_id_idx", "notification_id"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("message_id", Text),
    Column("task", Text),
    Column("reason", Text, nullable=False),
    Column("payload", Text, nullable=False),
    _time("at", required=True),
)

followers = Table(
    "followers",
    metadata,
    # Who follows what happens to notifications (``store/change_feed.py``), and until when it has seen everything.
    Column("name", Text, primary_key=True),
    Column("seen_until", DateTime(timezone=True), nullable=False),
)

rollup_slices = Table(
    "rollup_slices",
    metadata,
    Column("starts_at", DateTime(timezone=True), primary_key=True),
    # Something in it has changed since it was counted.
    Column("dirty", Boolean, nullable=False),
    _time("counted_at"),
    # How many notifications were counted: fewer the next time means that old ones were deleted.
    Column("rows", BigInteger, nullable=False, server_default=text("0")),
    # serves: what is to be counted
    Index("rollup_slices_dirty_idx", "starts_at", postgresql_where=text("dirty")),
)

#: What is counted; ``docs/numbers.md`` says what each means.
COUNTS = (
    "accepted",
    "duplicates",
    "cancelled",
    "failed",
    "pushed",
    "delivered",
    "clicked",
    "fell_back",
    "sms_sent",
    "sms_delivered",
    "sms_undelivered",
    "sms_unknown",
    "sms_wasted",
    "sms_parts",
    "unpriced_parts",
)

rollups = Table(
    "rollups",
    metadata,
    Column("day", Date, primary_key=True),
    # The slice it was counted in; the epoch once that is closed for ever and its counts have joined their day's.
    Column("slice", DateTime(timezone=True), primary_key=True),
    # Empty where there is none.
    Column("template", Text, primary_key=True),
    Column("blast", Text, primary_key=True),
    Column("country", Text, primary_key=True),
    Column("category", Text, primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in COUNTS),
    # What providers asked for the SMS whose price is known.
    Column("price", Numeric, nullable=False),
    # Channel → what became of its messages, of all channels but SMS: sent, delivered, read, unknown, unpriced, price.
    Column("channels", JSONB, nullable=False),
    Column("reached", BigInteger, nullable=False),
    # Reason → how many.
    Column("suppressed", JSONB, nullable=False),
    # serves: replacing a slice
    Index("rollups_slice_idx", "slice"),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column("url", Text, nullable=False, unique=True),
    # Which types of events it is told; none: all.
    Column("events", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    # Whether it is told who the person is.
    Column("personal", Boolean, nullable=False, server_default=text("false")),
    # What happened before is not told unless it is replayed.
    _time("since", required=True),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    _time("failing_since"),
    _time("resume_at"),
    Column("last_error", Text),
    _time("disabled_at"),
    Column("disabled_reason", Text),
)

webhook_events = Table(
    "webhook_events",
    metadata,
    # In the order in which it happened to a notification.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("notification_id", Uuid, nullable=False),
    Column("step", SmallInteger, nullable=False),
    Column("type", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("data", JSONB, nullable=False),
    # Everything happens to a step once: what is found a second time is not told a second time.
    UniqueConstraint("notification_id", "step", "type"),
    # serves: replaying, and forgetting old ones
    Index("webhook_events_at_idx", "at"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("endpoint_id", Text, ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), primary_key=True),
    Column("event_id", BigInteger, ForeignKey("webhook_events.id", ondelete="CASCADE"), primary_key=True),
    Column("notification_id", Uuid, nullable=False),
    Column("tries", SmallInteger, nullable=False, server_default=text("0")),
    # When it is to be sent, or when its sender's lease ends; NULL when it was delivered or given up.
    _time("next_at"),
    _time("delivered_at"),
    Column("error", Text),
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
)

api_keys = Table(
    "api_keys",
    metadata,
    # The part of a key that may be shown; it finds the row.
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    # HMAC of the whole key; the key itself is nowhere.
    Column("digest", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    _time("created_at", required=True),
    _time("expires_at"),
    _time("revoked_at"),
    _time("last_used_at"),
)

blasts = Table(
    "blasts",
    metadata,
    # Made of the key, so that whoever knows one knows the other.
    Column("id", Uuid, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    # The segment's name, and its filter as it was when the blast was started.
    Column("segment", Text),
    Column("filter", JSONB, nullable=False),
    # What a send_push message has beside v, id and recipients, and the params of all recipients.
    Column("message", JSONB, nullable=False),
    Column("throttle_per_min", Integer),
    # The recurring blast that it is one of.
    Column("schedule", Text),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    # The last user that was taken from the segment, NULL when that is done, and how many were.
    Column("cursor", Text),
    Column("total", Integer, nullable=False, server_default=text("0")),
    # How many it notified of those whose pages were deleted since.
    Column("purged", Integer, nullable=False, server_default=text("0")),
    # When the throttle lets the next page go.
    _time("next_at"),
    # When somebody must look at this row again; the end of a lease, too.
    _time("wake_at"),
    _time("created_at", required=True),
    _time("started_at"),
    # When all of the segment was taken.
    _time("expanded_at"),
    _time("finished_at"),
    CheckConstraint("state IN ('running', 'paused', 'finished', 'aborted')", name="state"),
    CheckConstraint("state <> 'running' OR wake_at IS NOT NULL", name="wake_at"),
    CheckConstraint("(state IN ('finished', 'aborted')) = (finished_at IS NOT NULL)", name="finished"),
    # serves: the dispatcher
    Index("blasts_wake_at_idx", "wake_at", postgresql_where=text("wake_at IS NOT NULL")),
)

blast_pages = Table(
    "blast_pages",
    metadata,
    # The batch's id. Those of its notifications lie between it and last_id, so that they need no index of their own.
    Column("id", Uuid, primary_key=True),
    Column("last_id", Uuid, nullable=False),
    Column("blast_id", Uuid, ForeignKey("blasts.id", ondelete="CASCADE"), nullable=False),
    Column("count", Integer, nullable=False),
    # Who, with NULL in the place of somebody who was erased; NULL once they have their notifications, or will have none.
    Column("users", ARRAY(Text)),
    # Until when a worker has it; NULL if none has had it yet.
    _time("wake_at"),
    # When a worker was last told to send it.
    _time("released_at"),
    _time("sent_at"),
    _time("cancelled_at"),
    CheckConstraint("users IS NULL OR sent_at IS NULL", name="sent"),
    # serves: which pages are still to be sent
    Index("blast_pages_waiting_idx", "blast_id", "id", postgresql_where=text("users IS NOT NULL")),
    # serves: the throttle
    Index("blast_pages_released_idx", "blast_id", "released_at", postgresql_where=text("released_at IS NOT NULL")),
    # serves: counting and cancelling a blast's notifications
    Index("blast_pages_sent_idx", "blast_id", "id", postgresql_where=text("sent_at IS NOT NULL")),
)

blast_schedules = Table(
    "blast_schedules",
    metadata,
    Column("name", Text, primary_key=True),
    # As ``blasts/schedules.py`` has checked it.
    Column("definition", JSONB, nullable=False),
    _time("next_at", required=True),
    # What became of the last time: a blast, or why there was none.
    _time("last_at"),
    Column("outcome", Text),
    _time("updated_at", required=True),
    # serves: which are due
    Index("blast_schedules_next_at_idx", "next_at"),
)
