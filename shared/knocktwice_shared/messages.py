"""The messages that producers send, and the one validator both sides run on them.

``shared/CONTRACT.md`` documents every field. A message is plain JSON on the wire; ``parse_*`` turns it into the frozen
types below or raises :class:`InvalidMessage` with the path of the first wrong field. Unknown fields are refused: a
misspelt ``catgeory`` that is silently ignored sends the wrong message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

from knocktwice_shared.channels import CONTENTS, SMS, Kind, sms
from knocktwice_shared.channels.step_content import TEXT
from knocktwice_shared.errors import InvalidMessage, UnsupportedVersion
from knocktwice_shared.names import BATCH_LIMIT, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from knocktwice_shared.channels import Field, StepContent

#: FCM refuses a payload above 4,096 bytes; our own ids and tags take the rest.
PUSH_BYTES_LIMIT = 3_900
#: Providers refuse a body above so many characters.
SMS_CHARS_LIMIT = sms.CHARS_LIMIT
#: FCM keeps an undelivered push for four weeks at most.
TTL_LIMIT = timedelta(days=28)
#: Longest fallback delay.
AFTER_LIMIT = timedelta(days=30)
#: Steps of a plan.
STEPS_LIMIT = 10
#: A template's name.
TEMPLATE_NAME_LIMIT = 100
#: A segment's name.
SEGMENT_NAME_LIMIT = 100
#: Most people a minute that a throttle can allow; without one there is no limit.
THROTTLE_LIMIT = 10_000_000
#: One recipient's ``params``, a batch's ``reference``, and the tags of one change, as JSON.
JSON_BYTES_LIMIT = 4_096
#: A tag's name, in characters.
TAG_NAME_LIMIT = 64

#: ASCII digits only: ``\d`` would let other scripts' digits through to the provider.
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
#: What people and address books put around digits, among it the invisible direction marks of right-to-left text.
_PHONE_DECORATION = re.compile(r"[\s().\-\u2010-\u2015\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
#: What :func:`_plainly_storable` knows: types, how many values, and how large a number.
_PLAIN, _FEW, _PLAIN_INT = frozenset({str, int, bool, type(None)}), 20, 2**63
#: NUL (PostgreSQL refuses it) and lone surrogates (UTF-8 cannot carry them).
_UNCARRIABLE = re.compile("[\x00\ud800-\udfff]")
#: The same NUL after ``json.dumps``: an even number of backslashes before it, so that the text ``\\u0000`` passes.
_ENCODED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
#: Celery's JSON decoder turns an object with this name into something else, or fails on it.
_KOMBU_MARKER = "__type__"
_PLACEHOLDER = re.compile(r"\{\{-?\s*(\w+)([^}]*)\}\}")
#: Words that a template takes for values, not for names.
_LITERALS = frozenset({"true", "false", "nil", "null", "empty", "blank"})
#: A language tag (RFC 5646), roughly; phones also write it with underscores.
#: Also as Java writes it, "zh_CN_#Hans", and iOS and POSIX: "en_US@calendar=buddhist", "de_AT.UTF-8".
_LOCALE = re.compile(r"[A-Za-z]{2,8}(?:[-_]{1,2}#?[A-Za-z0-9]{1,8})*(?:[.@][A-Za-z0-9=;.-]+)?")
_NOTHING_SAID = (
    "is missing; give what to say, or the name of a template, or begin the plan with a step that goes at once, "
    "without when and after_s"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: Local times a day away from the ends of the calendar: any zone can tell which moment they are.
_EARLIEST, _LATEST = datetime(1, 1, 3), datetime(9999, 12, 29)  # noqa: DTZ001 - local times have no zone
_RECIPIENT = {"id", "user", "registrations", "phone", "params", "key", "locale"}
_RECEIPT = {"notification", "kind", "at", "registration", "step"}

_T = TypeVar("_T")
_E = TypeVar("_E", bound=StrEnum)


class When(StrEnum):
    """The condition under which the next knock is due."""

    NOTIFICATIONS_DISABLED = "notifications_disabled"
    NOT_DELIVERED = "not_delivered"
    NOT_CLICKED = "not_clicked"


#: Tencent's ``trigger_condition`` numbers, accepted wherever ``when`` is.
TENCENT_CONDITIONS = (When.NOTIFICATIONS_DISABLED, When.NOT_DELIVERED, When.NOT_CLICKED)


class Category(StrEnum):
    """Why a message is sent. It decides consent, quiet hours and what happens when an outcome is unknown."""

    TRANSACTIONAL = "transactional"
    MARKETING = "marketing"
    CRITICAL = "critical"


class Receipt(StrEnum):
    """What a device reports."""

    DELIVERED = "delivered"
    CLICKED = "clicked"


class Platform(StrEnum):
    """Where a registration lives."""

    ANDROID = "android"
    IOS = "ios"
    WEB = "web"


@dataclass(frozen=True, slots=True)
class Push:
    """What the first knock shows. ``title`` and ``body`` may hold ``{{ name }}`` placeholders, filled from ``params``.

    Args:
        title: first line.
        body: the text.
        data: handed to the app, invisible to the person.
        link: address that a click opens.
        image: address of a picture.
    """

    title: str
    body: str
    data: Mapping[str, str] = field(default_factory=dict)
    link: str | None = None
    image: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A later knock: over ``channel``, if ``when`` still holds ``after`` the step before it.

    Attributes:
        channel: a word of :data:`~knocktwice_shared.channels.CONTENTS`.
        when: ``None`` for a first step, which has nothing to wait for.
        text: its own, where its channel has texts; ``None`` says what the content says. In a template's step by locale, or
            one for all.
        sender: another than the setting's.
        content: what its channel asks for beside a text, field by field.
    """

    channel: str
    when: When | None
    after: timedelta
    text: str | Mapping[str, str] | None = None
    sender: str | None = None
    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether it is an SMS that says what the content says, from the usual sender."""
        return self.channel == SMS and self.text is None and self.sender is None

    @property
    def speaks(self) -> bool:
        """Whether it says a text: its own, or what the content says."""
        return CONTENTS[self.channel].speaks

    def filled(self) -> Iterator[tuple[str, str]]:
        """Yield where its texts with placeholders stand, and the texts; those by locale are left out."""
        if isinstance(self.text, str):
            yield TEXT, self.text
        for name, value in self.content.items():
            if not CONTENTS[self.channel].fields[name].filled:
                continue
            if isinstance(value, str):
                yield name, value
            elif CONTENTS[self.channel].fields[name].kind is Kind.TEXTS:
                yield from ((f"{name}.{key}", text) for key, text in value.items())


#: The SMS that goes at once, because there is no push.
AT_ONCE = Step(SMS, None, timedelta())


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who is knocked for: a stored ``user``, or ``registrations`` and ``phone`` of somebody who is not stored.

    Args:
        user: the application's own id of a person. What stands beside it is remembered of that person before anything is sent,
            as ``register_device``, ``bind_phone`` and ``tag_user`` do.
        registrations: FCM registration tokens or FIDs; without ``user``, for this notification only.
        phone: number for the SMS in E.164; spaces, dashes, dots and parentheses are dropped. Without ``user``, for this
            notification only.
        params: values for the placeholders of the texts, by name; for a template also a list, whose first item is for
            ``{1}``.
        key: idempotency key; the same key never notifies twice.
        id: the notification's id; made by the producer when left out.
        locale: like ``de-AT``, for a template; left out, what is known of the user's devices. It is remembered of the
            ``registrations`` beside it.
        tags: what segments can ask for; only beside ``user``.
    """

    user: str | None = None
    registrations: Sequence[str] = ()
    phone: str | None = None
    params: Mapping[str, Any] | Sequence[Any] = field(default_factory=dict)
    key: str | None = None
    id: UUID | None = None
    locale: str | None = None
    tags: Mapping[str, Any] | None = None

    @property
    def values(self) -> Mapping[str, Any]:
        """The params by name; those of a list are named ``1``, ``2``, …"""
        if type(self.params) is dict or isinstance(self.params, Mapping):
            return self.params
        return {str(place): value for place, value in enumerate(self.params, 1)}


@dataclass(frozen=True, slots=True)
class LocalTime:
    """A time by the clock on the recipient's wall, wherever they live: "at nine in the morning".

    Args:
        at: date and time without a zone. One that the clocks skip in spring is as long after the change as it would have
            been; of one that comes twice in autumn the first counts (as RFC 5545, 3.3.5, has it).

    Raises:
        InvalidMessage: it is no such time.
    """

    at: datetime

    def __post_init__(self) -> None:
        if not isinstance(self.at, datetime):
            raise InvalidMessage("send_at", f"LocalTime takes a datetime, not {type(self.at).__name__}")
        if self.at.tzinfo is not None:
            raise InvalidMessage("send_at", "LocalTime takes a datetime without a zone; one with a zone stands alone")


@dataclass(frozen=True, slots=True)
class Batch:
    """One ``send_push`` message: shared content and plan, 1 to 500 recipients (each with its ``id`` set).

    Attributes:
        push, sms_text: the content; no push where a template has it, or where the plan starts with another channel.
        plan, category: ``None`` is the template's own.
        template: the name of a template that workers know.
        send_at: when it goes out; ``None`` and times past: now.
        sms_only: nothing of the template is pushed, and its SMS goes at once.
    """

    id: UUID
    push: Push | None
    sms_text: str | None
    plan: tuple[Step, ...] | None
    category: Category | None
    ttl: timedelta | None
    reference: Mapping[str, Any]
    recipients: tuple[Recipient, ...]
    template: str | None = None
    send_at: datetime | LocalTime | None = None
    sms_only: bool = False


@dataclass(frozen=True, slots=True)
class ReceiptEvent:
    """A device's word about a notification.

    Attributes:
        registration: which device; may be left out by apps that do not know it.
        step: which step was answered: 0 is the push, 1 what follows it first.
    """

    notification: UUID
    kind: Receipt
    at: datetime
    registration: str | None = None
    step: int = 0


@dataclass(frozen=True, slots=True)
class Blast:
    """One notification for everybody in a segment.

    Attributes:
        key: the same key never fires twice.
        segment, filter: who: the name of a saved segment, or a filter as one has it. One of the two is set.
        message: what a ``send_push`` message has beside ``v``, ``id`` and ``recipients``, as it came.
        params: everybody's.
        throttle_per_min: most people in a minute; ``None`` is as fast as it goes.
        template: the name of the template that says it, if one does.
    """

    key: str
    segment: str | None
    filter: Mapping[str, Any] | None
    message: Mapping[str, Any]
    params: Mapping[str, Any] | Sequence[Any]
    throttle_per_min: int | None
    template: str | None


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Notifications to stop, by id, by idempotency key, or all of a blast by the blast's key."""

    ids: tuple[UUID, ...] = ()
    keys: tuple[str, ...] = ()
    blasts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceRegistered:
    """A registration belongs to this user from ``at`` on, and to nobody else.

    A field that is ``None`` was not said: it stays as it was. A new device has its notifications on unless something else is said.
    """

    user: str
    registration: str
    at: datetime
    platform: Platform | None = None
    notifications_enabled: bool | None = None
    locale: str | None = None
    time_zone: str | None = None
    app_version: str | None = None


@dataclass(frozen=True, slots=True)
class DeviceUnregistered:
    """A registration belongs to nobody from ``at`` on (logout)."""

    registration: str
    at: datetime


@dataclass(frozen=True, slots=True)
class PhoneBound:
    """A user's number from ``at`` on; ``None`` unbinds it."""

    user: str
    phone: str | None
    at: datetime


#: One item of a tag.
TagItem = str | int | float | bool
#: What a tag may hold; ``None`` removes it.
TagValue = TagItem | tuple[TagItem, ...] | None


@dataclass(frozen=True, slots=True)
class TagsSet:
    """What the application says about a user from ``at`` on. Tags that are not named stay as they are."""

    user: str
    tags: Mapping[str, TagValue]
    at: datetime
    locale: str | None = None
    time_zone: str | None = None


@dataclass(frozen=True, slots=True)
class ConsentSet:
    """Whether a user agrees to marketing from ``at`` on, and where they said so."""

    user: str
    marketing: bool
    source: str
    at: datetime


@dataclass(frozen=True, slots=True)
class UserErased:
    """All that was said about a user until ``at`` is void, and what is kept of it goes."""

    user: str
    at: datetime


AudienceChange = DeviceRegistered | DeviceUnregistered | PhoneBound | TagsSet | ConsentSet | UserErased


def parse_batch(wire: object) -> Batch:
    """Validate a ``send_push`` message.

    Args:
        wire: the decoded JSON.

    Raises:
        UnsupportedVersion: the message's ``v`` is not ours.
        InvalidMessage: a field is wrong; the first one is named.
    """
    known = {"v", "id", "content", "plan", "category", "ttl_s", "reference", "recipients", "send_at", "only"}
    message = _versioned(wire, known)
    sms_only = _sms_only(message)
    push, sms_text, template = _content(message.get("content"), sms_only=sms_only)
    batch = Batch(
        id=_uuid(message.get("id"), "id"),
        push=push,
        sms_text=sms_text,
        plan=_steps_of(message, alone=push is None and template is None, sms_only=sms_only),
        category=None
        if template and "category" not in message
        else _choice(Category, message.get("category", Category.TRANSACTIONAL), "category"),
        ttl=_seconds(message["ttl_s"], "ttl_s", TTL_LIMIT) if "ttl_s" in message else None,
        reference=_json_object(message.get("reference", {}), "reference"),
        recipients=_each(
            partial(_recipient, positional=template is not None),
            _list(message.get("recipients"), "recipients", 1, BATCH_LIMIT),
            "recipients",
        ),
        template=template,
        send_at=_send_at(message["send_at"]) if "send_at" in message else None,
        sms_only=sms_only and template is not None,
    )
    if template is None:
        _require_words(batch)
        _require_params(batch)
    return batch


def parse_receipts(wire: object) -> tuple[ReceiptEvent, ...]:
    """Validate a ``record_events`` message: 1 to 500 receipts. Raises like :func:`parse_batch`."""
    message = _versioned(wire, {"v", "receipts"})
    return _each(_receipt, _list(message.get("receipts"), "receipts", 1, BATCH_LIMIT), "receipts")


def parse_cancellation(wire: object) -> Cancellation:
    """Validate a ``cancel`` message. Raises like :func:`parse_batch`."""
    message = _versioned(wire, {"v", "ids", "keys", "blasts"})
    ids = _list(message.get("ids", []), "ids", 0, BATCH_LIMIT)
    keys = _list(message.get("keys", []), "keys", 0, BATCH_LIMIT)
    blasts = _list(message.get("blasts", []), "blasts", 0, BATCH_LIMIT)
    if not ids and not keys and not blasts:
        raise InvalidMessage("ids", "is empty and so is keys; name at least one notification")
    return Cancellation(
        ids=tuple(_uuid(v, f"ids[{i}]") for i, v in enumerate(ids)),
        keys=tuple(_text(v, f"keys[{i}]", 200) for i, v in enumerate(keys)),
        blasts=tuple(_text(v, f"blasts[{i}]", 200) for i, v in enumerate(blasts)),
    )


def parse_blast(wire: object) -> Blast:
    """Validate a ``blast`` message. Raises like :func:`parse_batch`.

    Whether there is such a segment or template, and whether the filter is one, only a worker knows.
    """
    own = {"v", "key", "segment", "filter", "params", "throttle_per_min"}
    message = _versioned(wire, own | {"content", "plan", "category", "ttl_s", "reference", "send_at", "only"})
    if ("segment" in message) == ("filter" in message):
        raise InvalidMessage("segment", "or filter must be there, and not both: who is it for?")
    shared = {name: value for name, value in message.items() if name not in own}
    params = message.get("params", {})
    # What all have in common is checked as for one of them.
    try:
        batch = parse_batch(blast_batch(shared, params, str(UUID(int=0)), {str(UUID(int=0)): "somebody"}))
    except InvalidMessage as error:
        raise InvalidMessage(error.field.removeprefix("recipients[0]."), error.problem) from None
    per_min = message.get("throttle_per_min")
    if per_min is not None and (type(per_min) is not int or not 1 <= per_min <= THROTTLE_LIMIT):
        raise InvalidMessage("throttle_per_min", f"must be a whole number of people, 1 to {THROTTLE_LIMIT}")
    return Blast(
        key=_text(message.get("key"), "key", 200),
        segment=_text(message["segment"], "segment", SEGMENT_NAME_LIMIT) if "segment" in message else None,
        filter=_json_object(message["filter"], "filter") if "filter" in message else None,
        message=shared,
        params=params,
        throttle_per_min=per_min,
        template=batch.template,
    )


def blast_batch(shared: Mapping[str, Any], params: object, id_: str, people: Mapping[str, str]) -> dict[str, Any]:
    """Return the ``send_push`` message for some people of a blast.

    Args:
        shared: the blast's ``message``.
        params: everybody's.
        id_: the batch's id.
        people: notification id → user.
    """
    recipients = [{"id": id_, "user": user, "params": params} for id_, user in people.items()]
    return {**shared, "v": VERSION, "id": id_, "recipients": recipients}


def parse_audience(wire: object) -> tuple[AudienceChange, ...]:
    """Validate an ``update_audience`` message: 1 to 500 changes. Raises like :func:`parse_batch`."""
    message = _versioned(wire, {"v", "changes"})
    changes = _list(message.get("changes"), "changes", 1, BATCH_LIMIT)
    return tuple(_change(c, f"changes[{i}]") for i, c in enumerate(changes))


def normalise_phone(value: object, path: str = "phone") -> str:
    """Return a number in E.164 without decoration: ``"+1 (650) 555-0100"`` becomes ``"+16505550100"``.

    Raises:
        InvalidMessage: it is not a plausible E.164 number. The value is not quoted, so that it stays out of logs.
    """
    if isinstance(value, str):
        number = _PHONE_DECORATION.sub("", value)
        if _E164.fullmatch(number):
            return number
    raise InvalidMessage(
        path, "must be a phone number in E.164, like +16505550100 (a plus, country code, 7 to 15 digits)"
    )


# -- parts ---------------------------------------------------------------------------------------------------------


def parse_content(value: object, path: str = "content") -> tuple[Push, str | None]:
    """Validate a push and the text of its SMS, as they stand in a message and in a template.

    Args:
        value: an object of ``push`` and ``sms``.
        path: what the error calls it.

    Raises:
        InvalidMessage: a field is wrong; the first one is named.
    """
    raw = _object(value, path, {"push", "sms"})
    return _push(raw.get("push"), f"{path}.push"), _sms(raw.get("sms"), f"{path}.sms")


def _content(value: object, *, sms_only: bool) -> tuple[Push | None, str | None, str | None]:
    raw = _object(value, "content", {"push", "sms", "template"})
    if not raw and sms_only:
        raise InvalidMessage("content.sms", "is missing; give what to say, or the name of a template")
    if "template" not in raw and "push" not in raw and not sms_only:
        return None, _sms(raw.get("sms"), "content.sms"), None
    if "template" not in raw:
        return (None, _only_sms(raw), None) if sms_only else (*parse_content(raw), None)
    for name in ("push", "sms"):
        if name in raw:
            raise InvalidMessage("content.template", f"stands beside content.{name}; give one or the other")
    return None, None, _text(raw["template"], "content.template", TEMPLATE_NAME_LIMIT)


def _sms_only(message: Mapping[str, Any]) -> bool:
    if "only" not in message:
        return False
    if message["only"] != "sms":
        raise InvalidMessage("only", 'must be "sms", or left out for a push and what follows it')
    for name in ("plan", "ttl_s"):
        if name in message:
            raise InvalidMessage(name, 'is about a push, and with only "sms" there is none; leave it out')
    return True


def _only_sms(content: Mapping[str, Any]) -> str:
    if "push" in content:
        raise InvalidMessage("content.push", 'is not sent with only "sms"; leave one of the two out')
    text = _sms(content.get("sms"), "content.sms")
    if text is None:
        raise InvalidMessage("content.sms.text", "is missing; without a push it is all there is to say")
    return text


def _send_at(value: object) -> datetime | LocalTime:
    if not isinstance(value, dict):
        return _time(value, "send_at")
    local = _object(value, "send_at", {"local"}).get("local")
    try:
        moment = datetime.fromisoformat(local) if isinstance(local, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is not None or not _EARLIEST < moment < _LATEST:
        raise InvalidMessage("send_at.local", "must be an ISO 8601 time without an offset, like 2026-11-21T09:30:00")
    return LocalTime(moment)


def _steps_of(message: Mapping[str, Any], *, alone: bool, sms_only: bool) -> tuple[Step, ...] | None:
    if "plan" in message:
        return _plan(message["plan"], alone=alone)
    if not alone:
        return None if "template" in message["content"] else ()
    return (AT_ONCE,) if sms_only else ()


def _plan(value: object, *, alone: bool) -> tuple[Step, ...]:
    steps = _list(value, "plan", 0, STEPS_LIMIT)
    return tuple(parse_step(s, f"plan[{i}]", first=i == 0, alone=alone) for i, s in enumerate(steps))


def _push(value: object, path: str) -> Push:
    raw = _object(value, path, {"title", "body", "data", "link", "image"})
    push = Push(
        title=_text(raw.get("title"), f"{path}.title", PUSH_BYTES_LIMIT),
        body=_text(raw.get("body"), f"{path}.body", PUSH_BYTES_LIMIT),
        data=_data(raw.get("data", {}), f"{path}.data"),
        link=_url(raw.get("link"), f"{path}.link"),
        image=_url(raw.get("image"), f"{path}.image"),
    )
    # Last, because only now is everything inside known to be text.
    size = len(json.dumps(raw, ensure_ascii=False, separators=(",", ":")).encode())
    if size > PUSH_BYTES_LIMIT:
        raise InvalidMessage(path, f"is {size} bytes; a push carries {PUSH_BYTES_LIMIT} at most (FCM's limit is 4 KB)")
    return push


def _data(value: object, path: str) -> dict[str, str]:
    data = _object(value, path, None)
    for key, item in data.items():
        _text(key, f"{path}.{key}", PUSH_BYTES_LIMIT)
        _text(item, f"{path}.{key}", PUSH_BYTES_LIMIT, empty=True)
        reserved = {"from", "message_type", "knocktwice_id", "knocktwice_receipt", "knocktwice_withdraw", _KOMBU_MARKER}
        if key in reserved or key.startswith(("google.", "gcm.")):
            raise InvalidMessage(
                f"{path}.{key}", "is a name FCM, Celery or knocktwice keeps for itself; choose another"
            )
    return data


def _sms(value: object, path: str) -> str | None:
    if value is None:
        return None
    text = _object(value, path, {"text"}).get("text")
    return None if text is None else _text(text, f"{path}.text", SMS_CHARS_LIMIT)


def parse_step(value: object, path: str, *, first: bool, alone: bool) -> Step:
    """Validate one step of a plan.

    Args:
        value: an object.
        path: what the error calls it.
        first: whether it is the plan's first.
        alone: whether the plan begins without a push.

    Raises:
        InvalidMessage: a field is wrong; the first one is named.
    """
    known = {name for content in CONTENTS.values() for name in content.fields}
    raw = _object(value, path, {"channel", "when", "after_s", "sender"} | known)
    channel = raw.get("channel")
    content = CONTENTS.get(channel) if isinstance(channel, str) else None
    if content is None:
        raise InvalidMessage(f"{path}.channel", f"must be one of {', '.join(CONTENTS)}")
    if first and alone:
        if "when" in raw or "after_s" in raw:
            # Most likely the push was forgotten.
            raise InvalidMessage("content.push", _NOTHING_SAID)
        return _saying(content, None, timedelta(), raw, path)
    when = _when(raw.get("when"), f"{path}.when")
    if when is When.NOTIFICATIONS_DISABLED and not first:
        problem = (
            "is about the push, so only the step right after it can wait for it; give not_delivered or not_clicked"
        )
        raise InvalidMessage(f"{path}.when", problem)
    after = _seconds(raw.get("after_s"), f"{path}.after_s", AFTER_LIMIT)
    return _saying(content, when, after, raw, path)


def _saying(content: StepContent, when: When | None, after: timedelta, raw: Mapping[str, Any], path: str) -> Step:
    """Check what a step says and who says it."""
    sender = None if raw.get("sender") is None else _text(raw["sender"], f"{path}.sender", 64)
    for name in raw:
        if name not in ("channel", "when", "after_s", "sender") and name not in content.fields:
            owner = next(c for c in CONTENTS.values() if name in c.fields)
            raise InvalidMessage(f"{path}.{name}", f"is for {owner.called}; {content.hint}")
    said = {
        name: _said(field_, raw.get(name), f"{path}.{name}")
        for name, field_ in content.fields.items()
        if name in raw or field_.required
    }
    text = said.pop(TEXT, None)
    return Step(content.channel, when, after, text, sender, {name: v for name, v in said.items() if v})


def _said(field_: Field, value: object, path: str) -> str | dict[str, str]:
    if field_.kind is Kind.TEXTS:
        texts = _object(value, path, None)
        for name, text in texts.items():
            _text(name, f"{path}.{name}", 64)
            _text(text, f"{path}.{name}", field_.limit, empty=True)
        return texts
    text = _text(value, path, field_.limit)
    if field_.pattern is not None and not re.fullmatch(field_.pattern, text):
        raise InvalidMessage(path, field_.problem)
    return text


def _when(value: object, path: str) -> When:
    if type(value) is int and 0 <= value < len(TENCENT_CONDITIONS):
        return TENCENT_CONDITIONS[value]
    return _choice(When, value, path)


def _each(parse: Callable[[object], _T], items: Sequence[object], path: str) -> tuple[_T, ...]:
    """Validate the items of a list. Their errors name fields of an item; only here they get its place.

    There are many, and most are right: making a path for each field of each took half of the time.
    """
    parsed: list[_T] = []
    for i, item in enumerate(items):
        try:
            parsed.append(parse(item))
        except InvalidMessage as error:
            place = f"{path}[{i}]"
            raise InvalidMessage(f"{place}.{error.field}" if error.field else place, error.problem) from None
    return tuple(parsed)


def _recipient(value: object, *, positional: bool) -> Recipient:
    raw = _object(value, "", _RECIPIENT)
    user, phone, key, locale = raw.get("user"), raw.get("phone"), raw.get("key"), raw.get("locale")
    registrations = _list(raw["registrations"], "registrations", 0, 100) if "registrations" in raw else ()
    if user is None and phone is None and not registrations:
        raise InvalidMessage("", "names nobody; give user, or registrations and/or phone")
    if user is not None and (phone is not None or registrations):
        raise InvalidMessage("", "gives both user and registrations or phone; give one or the other")
    return Recipient(
        id=_uuid(raw.get("id"), "id"),
        user=None if user is None else _text(user, "user", 200),
        registrations=tuple([_text(r, f"registrations[{i}]", 4_096) for i, r in enumerate(registrations)]),
        phone=None if phone is None else normalise_phone(phone, "phone"),
        params=_params(raw["params"], "params", positional=positional) if "params" in raw else {},
        key=None if key is None else _text(key, "key", 200),
        locale=None if locale is None else _locale(locale, "locale"),
    )


def _json_object(value: object, path: str) -> dict[str, Any]:
    """Check an object whose fields are the application's own: small, and storable as ``jsonb``."""
    raw = _object(value, path, None)
    _require_storable(raw, path)
    return raw


def _params(value: object, path: str, *, positional: bool) -> dict[str, Any] | list[Any]:
    if not positional or not isinstance(value, list):
        return _json_object(value, path)
    _require_storable(value, path)
    return value


def _plainly_storable(raw: object) -> bool:
    """Whether a look is enough: a few short texts and numbers by name, as nearly all params are."""
    if type(raw) is not dict or len(raw) > _FEW:
        return False
    text = ""
    for name, value in raw.items():
        if type(name) is not str or type(value) not in _PLAIN or (type(value) is int and abs(value) > _PLAIN_INT):
            return False
        text += f"{name} {value} "
    # A character takes six bytes at most.
    return 6 * len(text) <= JSON_BYTES_LIMIT and not _UNCARRIABLE.search(text) and _KOMBU_MARKER not in text


def _require_storable(raw: object, path: str) -> None:
    if not raw or _plainly_storable(raw):
        return
    try:
        encoded = json.dumps(raw, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise InvalidMessage(path, "holds half a surrogate pair, which UTF-8 cannot carry") from None
    except (TypeError, ValueError, RecursionError):
        raise InvalidMessage(path, "holds something JSON cannot carry; use text, numbers, lists and objects") from None
    if len(encoded) > JSON_BYTES_LIMIT:
        problem = f"is {len(encoded)} bytes; {JSON_BYTES_LIMIT} at most. Keep an id here, the rest in your own database"
        raise InvalidMessage(path, problem)
    if _ENCODED_NUL.search(encoded):
        raise InvalidMessage(path, "holds a NUL, which PostgreSQL cannot store")
    if f'"{_KOMBU_MARKER}"'.encode() in encoded:
        raise InvalidMessage(path, f"uses the name {_KOMBU_MARKER}, which Celery keeps for itself; choose another")


def _receipt(value: object) -> ReceiptEvent:
    raw = _object(value, "", _RECEIPT)
    registration, step = raw.get("registration"), raw.get("step", 0)
    if type(step) is not int or not 0 <= step <= STEPS_LIMIT:
        raise InvalidMessage("step", f"must be the number of a step, 0 to {STEPS_LIMIT}; the push is 0")
    return ReceiptEvent(
        notification=_uuid(raw.get("notification"), "notification"),
        kind=_choice(Receipt, raw.get("kind"), "kind"),
        at=_time(raw.get("at"), "at"),
        registration=None if registration is None else _text(registration, "registration", 4_096),
        step=step,
    )


def _change(value: object, path: str) -> AudienceChange:
    kind = _object(value, path, None).get("change")
    if kind == "register_device":
        return _registered(value, path)
    if kind == "unregister_device":
        raw = _object(value, path, {"change", "registration", "at"})
        return DeviceUnregistered(
            _text(raw.get("registration"), f"{path}.registration", 4_096), _time(raw.get("at"), f"{path}.at")
        )
    if kind == "bind_phone":
        raw = _object(value, path, {"change", "user", "phone", "at"})
        phone = raw.get("phone")
        return PhoneBound(
            user=_text(raw.get("user"), f"{path}.user", 200),
            phone=None if phone is None else normalise_phone(phone, f"{path}.phone"),
            at=_time(raw.get("at"), f"{path}.at"),
        )
    if kind == "set_tags":
        return _tags_set(value, path)
    if kind == "set_consent":
        raw = _object(value, path, {"change", "user", "marketing", "source", "at"})
        return ConsentSet(
            user=_text(raw.get("user"), f"{path}.user", 200),
            marketing=_boolean(raw.get("marketing"), f"{path}.marketing"),
            source=_text(raw.get("source"), f"{path}.source", 200),
            at=_time(raw.get("at"), f"{path}.at"),
        )
    if kind == "erase_user":
        raw = _object(value, path, {"change", "user", "at"})
        return UserErased(_text(raw.get("user"), f"{path}.user", 200), _time(raw.get("at"), f"{path}.at"))
    known = "register_device, unregister_device, bind_phone, set_tags, set_consent, erase_user"
    raise InvalidMessage(f"{path}.change", f"must be one of {known}")


def _tags_set(value: object, path: str) -> TagsSet:
    raw = _object(value, path, {"change", "user", "tags", "locale", "time_zone", "at"})
    tags = _json_object(raw.get("tags"), f"{path}.tags")
    texts = {k: None if raw.get(k) is None else _text(raw[k], f"{path}.{k}", 64) for k in ("locale", "time_zone")}
    return TagsSet(
        user=_text(raw.get("user"), f"{path}.user", 200),
        tags={_text(n, f"{path}.tags.{n}", TAG_NAME_LIMIT): _tag(v, f"{path}.tags.{n}") for n, v in tags.items()},
        at=_time(raw.get("at"), f"{path}.at"),
        **texts,
    )


def _tag(value: object, path: str) -> TagValue:
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return tuple(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise InvalidMessage(path, "must be text, a number, true, false, a list of these, or null to remove the tag")


def _registered(value: object, path: str) -> DeviceRegistered:
    optional = ("locale", "time_zone", "app_version")
    known = {"change", "user", "registration", "at", "platform", "notifications_enabled", *optional}
    raw = _object(value, path, known)
    platform, enabled = raw.get("platform"), raw.get("notifications_enabled")
    texts = {k: None if raw.get(k) is None else _text(raw[k], f"{path}.{k}", 64) for k in optional}
    return DeviceRegistered(
        user=_text(raw.get("user"), f"{path}.user", 200),
        registration=_text(raw.get("registration"), f"{path}.registration", 4_096),
        at=_time(raw.get("at"), f"{path}.at"),
        platform=None if platform is None else _choice(Platform, platform, f"{path}.platform"),
        notifications_enabled=None if enabled is None else _boolean(enabled, f"{path}.notifications_enabled"),
        **texts,
    )


def _require_words(batch: Batch) -> None:
    """Refuse a message that says nothing, or a step that has nothing to say."""
    if batch.push is not None:
        return
    if not batch.plan:
        raise InvalidMessage("content.push", _NOTHING_SAID)
    for i, step in enumerate(batch.plan):
        if step.speaks and step.text is None and batch.sms_text is None:
            raise InvalidMessage(f"plan[{i}].text", "is missing; there is no push whose body it could say")


def _require_params(batch: Batch) -> None:
    """Refuse a missing placeholder value here, where it can be known: plain ``{{ name }}`` without logic or default."""
    texts = {} if batch.push is None else {"content.push.title": batch.push.title, "content.push.body": batch.push.body}
    if batch.sms_text is not None:
        texts["content.sms.text"] = batch.sms_text
    for i, step in enumerate(batch.plan or ()):
        texts |= {f"plan[{i}].{place}": text for place, text in step.filled()}
    if any("{%" in text for text in texts.values()):
        return
    needed = {
        name: path
        for path, text in texts.items()
        for name, filters in _PLACEHOLDER.findall(text)
        if "default" not in filters and name not in _LITERALS
    }
    for name, path in needed.items():
        if name[0].isdigit():
            # A template would print the number itself, and people would read "Hello 1".
            raise InvalidMessage(path, f"uses {{{{ {name} }}}}, a number; placeholders have names, like {{{{ name }}}}")
    for i, recipient in enumerate(batch.recipients):
        values = recipient.values
        if needed.keys() <= values.keys():
            continue
        for name, path in needed.items():
            if name not in values:
                raise InvalidMessage(f"recipients[{i}].params.{name}", f"is missing; {path} uses {{{{ {name} }}}}")


# -- scalars -------------------------------------------------------------------------------------------------------


def _versioned(wire: object, known: set[str]) -> dict[str, Any]:
    if not isinstance(wire, dict):
        raise InvalidMessage("message", f"must be a JSON object, not {type(wire).__name__}")
    version = wire.get("v")
    if type(version) is not int:
        raise InvalidMessage("v", "is missing" if version is None else "must be the contract's version as a number")
    if version != VERSION:
        shown = str(version) if abs(version) < 1_000_000 else "no version there ever was"
        raise UnsupportedVersion("v", f"is {shown}; this side speaks version {VERSION}. Upgrade the older side")
    return _object(wire, "message", known)


def _object(value: object, path: str, known: set[str] | None) -> dict[str, Any]:
    """Check an object's names. In an object of ours ``null`` is the same as leaving the field out."""
    if not isinstance(value, dict):
        raise InvalidMessage(path, "is missing" if value is None else f"must be an object, not {type(value).__name__}")
    for name in value:
        if not isinstance(name, str):
            raise InvalidMessage(path, "must have text as names")
        if known is not None and name not in known:
            inside = name if path in ("message", "") else f"{path}.{name}"
            raise InvalidMessage(inside, f"is not a field of the contract; known here: {', '.join(sorted(known))}")
    return value if known is None else {name: item for name, item in value.items() if item is not None}


def _list(value: object, path: str, least: int, most: int) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidMessage(path, "is missing" if value is None else f"must be a list, not {type(value).__name__}")
    if not least <= len(value) <= most:
        raise InvalidMessage(path, f"has {len(value)} items; {least} to {most} are allowed")
    return value


def _text(value: object, path: str, limit: int, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise InvalidMessage(path, "is missing" if value is None else f"must be text, not {type(value).__name__}")
    if not value.strip() and not empty:
        raise InvalidMessage(path, "is empty")
    if len(value) > limit:
        raise InvalidMessage(path, f"is {len(value)} characters; {limit} at most")
    if _UNCARRIABLE.search(value):
        raise InvalidMessage(path, "holds a NUL or half a surrogate pair, which no provider can carry")
    return value


def _boolean(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidMessage(path, "is missing" if value is None else "must be true or false")
    return value


def _url(value: object, path: str) -> str | None:
    if value is None:
        return None
    text = _text(value, path, 2_000)
    if not text.startswith(("https://", "http://")) or _CONTROL.search(text):
        raise InvalidMessage(path, "must be an http or https address")
    return text


def _locale(value: object, path: str) -> str:
    text = _text(value, path, 64)
    if not _LOCALE.fullmatch(text):
        raise InvalidMessage(path, "must be a language tag, like de-AT")
    return text


def _choice(enum: type[_E], value: object, path: str) -> _E:
    try:
        return enum(cast("str", value))
    except ValueError:
        raise InvalidMessage(path, f"must be one of {', '.join(enum)}") from None


def _seconds(value: object, path: str, limit: timedelta) -> timedelta:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidMessage(path, "is missing" if value is None else "must be a number of seconds")
    if not 0 <= value <= limit.total_seconds():
        raise InvalidMessage(path, f"must be between 0 and {limit.total_seconds():.0f} seconds ({limit.days} days)")
    return timedelta(seconds=value)


def _uuid(value: object, path: str) -> UUID:
    if isinstance(value, str):
        try:
            return UUID(value)
        except ValueError:
            pass
    raise InvalidMessage(path, "is missing" if value is None else "must be a UUID as text")


def parse_moment(value: object, path: str) -> datetime:
    """Check a time: ISO 8601 with an offset.

    Raises:
        InvalidMessage: it is something else.
    """
    return _time(value, path)


def _time(value: object, path: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is not None and moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):  # overflow: the year 1 with an offset lies before the calendar begins
        pass
    raise InvalidMessage(path, "must be an ISO 8601 time with an offset, like 2026-11-21T09:30:00+00:00")
