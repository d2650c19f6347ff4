"""Notifications, from the batch to the ledger. ``notifications/store/`` alone writes them.

Rows that many people's messages write in one transaction have no foreign keys to each other: one function writes them
and one deletes them together.
"""

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
    Interval,
    LargeBinary,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from knocktwice_worker.database import by_time
from knocktwice_worker.database.schema.conventions import index_by_time, metadata, moment, one_of
from knocktwice_worker.lifecycle import OPEN, DeliveryState, NotificationState, ProviderState

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
    moment("created_at", "When it was accepted.", required=True),
    comment="What the notifications of one message have in common.",
)

#: Rows that change within seconds: with room on their page the next version of a notification touches no index, and
#: that of a delivery is written to the log without what did not change, and without a lock while a page for it is
#: looked for.
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
    # No foreign key here, nor in deliveries and attempts: one function writes and one deletes them all together, and
    # looking for the parent of each row took a fifth of the database's time.
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
    moment("created_at", "When it was accepted.", required=True),
    moment("finished_at", "When it ended. NULL while it is active."),
    CheckConstraint(one_of("state", NotificationState), name="state"),
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
    # serves: erasing a person, by user or by a number given inline; a notification has one of them at most. With the
    # time first, so that new entries lie together, and with the id, so that a page of the history of somebody with very
    # many ends after its own rows
    Index(
        "notifications_person_by_time_idx",
        text(by_time.span("id")),
        text("coalesce(user_id, phone)"),
        "id",
        postgresql_where=text("coalesce(user_id, phone) IS NOT NULL"),
    ),
    # serves: whether anything still refers to a batch, when old ones are deleted or a person is erased
    Index("notifications_batch_id_idx", "batch_id"),
    # serves: what is new since a follower looked last; counting a slice of time
    index_by_time("notifications_times_idx", "created_at", "finished_at"),
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
    moment("due_at", "When the countdown ends; of a push, when it is to go out. NULL: a push that went out at once."),
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
    moment(
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
    moment("counted_at", "When it counted against the number's limits."),
    moment("claimed_at", "When a sender claimed it last."),
    moment(
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
    moment("provider_status_at", "When that report was made."),
    moment("finished_at", "When the step ended. NULL while it is open."),
    Column("price", Numeric, comment="What the provider asks for the message. NULL: not told."),
    Column("price_unit", Text, comment="The currency of the price, as ISO 4217 has it."),
    moment(
        "reported_at",
        "When the provider's last report came, or when we stopped waiting for it. NULL: it may still come.",
    ),
    moment("heard_at", "When a report or a price was written here last."),
    Column("brake", BigInteger, comment="The brake that held it last. NULL: none has."),
    Column(
        "brake_waived",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether it was released from a brake, so that no brake holds it again.",
    ),
    Column("paused", BigInteger, comment="The pause for which it waits. NULL: none."),
    CheckConstraint(one_of("state", DeliveryState), name="state"),
    CheckConstraint(one_of("provider_status", ProviderState), name="provider_status"),
    CheckConstraint(f"({one_of('state', sorted(OPEN))}) = (wake_at IS NOT NULL)", name="wake_at"),
    CheckConstraint("(wake_at IS NULL) = (finished_at IS NOT NULL)", name="finished"),
    # serves: the dispatcher
    Index("deliveries_wake_at_idx", "wake_at", postgresql_where=text("wake_at IS NOT NULL")),
    # serves: counting a number's SMS, and what is spent of the day's budget, when Redis cannot say; finding what a reply
    # answers. With the day first, so that new entries lie together
    Index(
        "deliveries_number_by_day_idx",
        text(f"({by_time.day('counted_at')})"),
        "number",
        "counted_at",
        postgresql_where=text("counted_at IS NOT NULL"),
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
    # serves: what is new since a follower looked last, and the brake. Every few seconds somebody asks for a moment, also
    # one that is long over: an index that keeps the span of many pages would have them read all on which old and new
    # rows lie side by side. With the number, so that the pumping guard finds a range without the rows of all others
    Index("deliveries_finished_idx", "finished_at", "number", postgresql_where=text("finished_at IS NOT NULL")),
    # serves: what is new since a follower looked last
    Index("deliveries_reports_idx", "heard_at", postgresql_where=text("heard_at IS NOT NULL")),
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
    postgresql_with=_ROOM,
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
    # serves: what the brake counts of pushes that are refused; empty while all goes well
    Index(
        "attempts_tried_again_idx", "notification_id", postgresql_where=text("state = 'open' AND reason IS NOT NULL")
    ),
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
    moment("received_at", "When it was written down.", required=True),
    CheckConstraint("kind IN ('delivered', 'clicked', 'seen', 'replied', 'cancelled')", name="kind"),
    # serves: what is new since a follower looked last
    index_by_time("events_received_at_idx", "received_at"),
    comment="Receipts and cancellations, each once.",
)

decisions = Table(
    "decisions",
    metadata,
    Column("notification_id", Uuid, primary_key=True, comment="The notification that was decided about."),
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="In the order in which they were taken."),
    Column("step", SmallInteger, nullable=False, comment="The step that was decided about."),
    Column("verdict", Text, nullable=False, comment="Verdict, Refusal, Delay or Note of lifecycle.py."),
    Column("inputs", JSONB, nullable=False, comment="What the decision was based on: receipts, limits, times."),
    moment("at", "When it was taken.", required=True),
    # serves: what the SMS are worth; empty without an experiment
    Index("decisions_experiment_idx", "at", postgresql_where=text("inputs ? 'experiment'")),
    comment="The ledger: every decision with what was known when it was taken, for knocktwice explain.",
)
