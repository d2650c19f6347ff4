"""``send_push``: a batch of notifications, with what they share and whom they are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from knocktwice_shared.channels.step_content import MEDIA
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import checks, languages
from knocktwice_shared.messages.checks import normalise_phone
from knocktwice_shared.messages.placeholders import require_addresses, require_params
from knocktwice_shared.messages.problems import all_at_once, attempt, fail, settle
from knocktwice_shared.messages.pushes import parse_push
from knocktwice_shared.messages.steps import NOTHING_SAID, parse_step
from knocktwice_shared.messages.values import (
    AT_ONCE,
    EARLIEST,
    LATEST,
    SMS_CHARS_LIMIT,
    STEPS_LIMIT,
    TEMPLATE_NAME_LIMIT,
    TTL_LIMIT,
    VALID_FOR_LIMIT,
    Category,
    LocalTime,
    Push,
    Step,
    Text,
    spoken,
)
from knocktwice_shared.names import BATCH_LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID


_RECIPIENT = {"id", "user", "registrations", "phone", "params", "key", "locale"}


@dataclass(frozen=True, slots=True)
class Recipient:
    """The recipient: a stored ``user``, or ``registrations`` and ``phone`` of a person who is not stored.

    Args:
        user: the application's own id of a person. What stands beside it is remembered of that person before anything
            is sent, as ``register_device``, ``bind_phone`` and ``tag_user`` do.
        registrations: FCM registration tokens or FIDs; without ``user``, for this notification only.
        phone: number for the SMS in E.164; spaces, dashes, dots and parentheses are dropped. Without ``user``, for this
            notification only.
        params: values for the placeholders of the texts, by name; for a template also a list, whose first item is for
            ``{1}``.
        key: idempotency key; the same key never notifies twice.
        id: the notification's id; made by the producer when left out.
        locale: like ``de-AT``, for a template and for texts by language; left out, what is known of the user's
            devices. It is remembered of the ``registrations`` beside it.
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
class Batch:
    """One ``send_push`` message: shared content and plan, 1 to 500 recipients (each with its ``id`` set).

    Attributes:
        push, sms_text: the content; no push where a template has it, or where the plan starts with another channel.
        plan, category: ``None`` is the template's own.
        template: the name of a template that workers know.
        send_at: when it goes out; ``None`` and times past: now.
        sms_only: nothing of the template is pushed, and its SMS goes at once.
        valid_for: how long after it was due a push or a message is still of use; ``None`` is the template's, or the
            category's setting.
        locales: the languages of its texts; none where they are the same for everybody, or a template has them.
        default_locale: that of people of any other or an unknown language; ``None`` without languages.
        project: the application to which it belongs; ``None``: to none.
    """

    id: UUID
    push: Push | None
    sms_text: Text | None
    plan: tuple[Step, ...] | None
    category: Category | None
    ttl: timedelta | None
    reference: Mapping[str, Any]
    recipients: tuple[Recipient, ...]
    template: str | None = None
    send_at: datetime | LocalTime | None = None
    sms_only: bool = False
    valid_for: timedelta | None = None
    locales: tuple[str, ...] = ()
    default_locale: str | None = None
    project: str | None = None

    def spoken(self, locale: str) -> tuple[Push | None, str | None]:
        """Return push and SMS text in one of its languages."""
        push = self.push and self.push.spoken(locale)
        return push, None if self.sms_text is None else spoken(self.sms_text, locale)


#: What the recipients of a message have in common, beside ``v`` and ``id``; a blast's notifications have it, too.
SHARED_FIELDS = frozenset(
    {"content", "plan", "category", "ttl_s", "valid_for_s", "reference", "send_at", "only", "project"}
)


@all_at_once
def parse_batch(wire: object) -> Batch:
    """Validate a ``send_push`` message.

    Args:
        wire: the decoded JSON.

    Raises:
        UnsupportedVersion: the message's ``v`` is not ours.
        InvalidMessage: fields are wrong; all of them are named.
    """
    known = {"v", "id", "recipients", *SHARED_FIELDS}
    message = checks.versioned(wire, known)
    sms_only = attempt(_sms_only, message.get("only") == "sms", message)
    content = message.get("content")
    push, sms_text, template, default_locale = attempt(_content, _unread(content), content, sms_only=sms_only)
    batch = Batch(
        id=checks.uuid(message.get("id"), "id"),
        push=push,
        sms_text=sms_text,
        plan=attempt(_steps_of, (), message, alone=push is None and template is None, sms_only=sms_only),
        category=None
        if template and "category" not in message
        else checks.choice(Category, message.get("category", Category.TRANSACTIONAL), "category"),
        ttl=checks.seconds(message["ttl_s"], "ttl_s", TTL_LIMIT) if "ttl_s" in message else None,
        reference=checks.json_object(message.get("reference", {}), "reference"),
        recipients=checks.each(
            partial(_recipient, positional=template is not None),
            checks.list_of(message.get("recipients"), "recipients", 1, BATCH_LIMIT),
            "recipients",
        ),
        template=template,
        send_at=attempt(_send_at, None, message["send_at"]) if "send_at" in message else None,
        sms_only=sms_only and template is not None,
        valid_for=attempt(_valid_for, None, message["valid_for_s"]) if "valid_for_s" in message else None,
        project=attempt(checks.side, None, message["project"]) if "project" in message else None,
    )
    if template is None and not batch.plan:
        # It needs none of the other fields, so it is told beside their problems.
        attempt(_require_words, None, batch)
    settle()
    if locales := languages.of(batch):
        settle()
        if template is not None:
            raise InvalidMessage("plan", f"has texts by language beside a template; put them into {template} itself")
        batch = replace(batch, locales=locales, default_locale=languages.default(locales, default_locale))
    elif default_locale is not None:
        raise InvalidMessage("content.default_locale", "is about texts by language, and there are none")
    if template is None:
        _require_words(batch)
        require_params(batch)
        require_addresses(batch)
    return batch


#: Stands for a push that is there, but wrong, while problems are collected.
_SOME_PUSH = Push("", "")


def _unread(content: object) -> tuple[Push | None, Text | None, str | None, str | None]:
    """Return what stands for a wrong content while problems are collected: as much of it as there is."""
    raw = content if isinstance(content, dict) else {}
    return _SOME_PUSH if "push" in raw or not raw else None, None, "template" if "template" in raw else None, None


def parse_content(value: object, path: str = "content") -> tuple[Push | None, Text | None]:
    """Validate a push and the text of its SMS, as they stand in a message and in a template.

    Args:
        value: an object of ``push`` and ``sms``; either may be left out.
        path: what the error calls it.

    Raises:
        InvalidMessage: a field is wrong; the first one is named.
    """
    raw = checks.object_of(value, path, {"push", "sms"})
    push = parse_push(raw["push"], f"{path}.push") if "push" in raw else None
    return push, _sms(raw.get("sms"), f"{path}.sms")


def _content(value: object, *, sms_only: bool) -> tuple[Push | None, Text | None, str | None, str | None]:
    raw = checks.object_of(value, "content", {"push", "sms", "template", "default_locale"})
    given = raw.pop("default_locale", None) if "default_locale" in raw else None
    default_locale = None if given is None else checks.locale(given, "content.default_locale")
    if not raw and sms_only:
        raise InvalidMessage("content.sms", "is missing; give what to say, or the name of a template")
    if "template" not in raw and "push" not in raw and not sms_only:
        return None, _sms(raw.get("sms"), "content.sms"), None, default_locale
    if "template" not in raw:
        push, sms_text = (None, _only_sms(raw)) if sms_only else parse_content(raw)
        return push, sms_text, None, default_locale
    for name in ("push", "sms"):
        if name in raw:
            raise InvalidMessage("content.template", f"stands beside content.{name}; give one or the other")
    if default_locale is not None:
        raise InvalidMessage("content.default_locale", "is the template's own; leave it out")
    return None, None, checks.text(raw["template"], "content.template", TEMPLATE_NAME_LIMIT), None


def _valid_for(value: object) -> timedelta:
    span = checks.seconds(value, "valid_for_s", VALID_FOR_LIMIT)
    if span < timedelta(seconds=1):
        raise InvalidMessage("valid_for_s", "must be at least 1 second; leave it out for the category's setting")
    return span


def _sms_only(message: Mapping[str, Any]) -> bool:
    if "only" not in message:
        return False
    if message["only"] != "sms":
        raise InvalidMessage("only", 'must be "sms", or left out for a push and what follows it')
    for name in ("plan", "ttl_s"):
        if name in message:
            raise InvalidMessage(name, 'is about a push, and with only "sms" there is none; leave it out')
    return True


def _only_sms(content: Mapping[str, Any]) -> Text:
    if "push" in content:
        raise InvalidMessage("content.push", 'is not sent with only "sms"; leave one of the two out')
    text = _sms(content.get("sms"), "content.sms")
    if text is None:
        raise InvalidMessage("content.sms.text", "is missing; without a push it is all there is to say")
    return text


def _send_at(value: object) -> datetime | LocalTime:
    if not isinstance(value, dict):
        return checks.time(value, "send_at")
    local = checks.object_of(value, "send_at", {"local"}).get("local")
    try:
        moment = datetime.fromisoformat(local) if isinstance(local, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is not None or not EARLIEST < moment < LATEST:
        raise InvalidMessage("send_at.local", "must be an ISO 8601 time without an offset, like 2026-11-21T09:30:00")
    return LocalTime(moment)


def _steps_of(message: Mapping[str, Any], *, alone: bool, sms_only: bool) -> tuple[Step, ...] | None:
    if "plan" in message:
        return _plan(message["plan"], alone=alone)
    if not alone:
        return None if "template" in message["content"] else ()
    return (AT_ONCE,) if sms_only else ()


def _plan(value: object, *, alone: bool) -> tuple[Step, ...]:
    steps = checks.list_of(value, "plan", 0, STEPS_LIMIT)
    return tuple(attempt(parse_step, AT_ONCE, s, f"plan[{i}]", first=i == 0, alone=alone) for i, s in enumerate(steps))


def _sms(value: object, path: str) -> Text | None:
    if value is None:
        return None
    if isinstance(value, dict) and MEDIA in value:
        raise InvalidMessage(f"{path}.{MEDIA}", "stands in a step of the plan, beside its channel; leave it out here")
    text = checks.object_of(value, path, {"text"}).get("text")
    return None if text is None else languages.text(text, f"{path}.text", SMS_CHARS_LIMIT)


def _recipient(value: object, *, positional: bool) -> Recipient:
    raw = checks.object_of(value, "", _RECIPIENT)
    user, phone, key, locale = raw.get("user"), raw.get("phone"), raw.get("key"), raw.get("locale")
    registrations = checks.list_of(raw["registrations"], "registrations", 0, 100) if "registrations" in raw else ()
    # Registrations that are wrong are told as such.
    if user is None and phone is None and raw.get("registrations", []) == []:
        fail("", "names nobody; give user, or registrations and/or phone", None)
    if user is not None and (phone is not None or registrations):
        fail("", "gives both user and registrations or phone; give one or the other", None)
    return Recipient(
        id=checks.uuid(raw.get("id"), "id"),
        user=None if user is None else checks.text(user, "user", 200),
        registrations=tuple([checks.registration(r, f"registrations[{i}]") for i, r in enumerate(registrations)]),
        phone=None if phone is None else normalise_phone(phone, "phone"),
        params=_params(raw["params"], "params", positional=positional) if "params" in raw else {},
        key=None if key is None else checks.text(key, "key", 200),
        locale=None if locale is None else checks.locale(locale, "locale"),
    )


def _params(value: object, path: str, *, positional: bool) -> dict[str, Any] | list[Any]:
    if not positional or not isinstance(value, list):
        return checks.json_object(value, path)
    checks.require_storable(value, path)
    return value


def _require_words(batch: Batch) -> None:
    """Refuse a message that says nothing, or a step that has nothing to say."""
    if batch.push is not None:
        return
    if not batch.plan:
        raise InvalidMessage("content.push", NOTHING_SAID)
    for i, step in enumerate(batch.plan):
        if step.speaks and step.text is None and batch.sms_text is None:
            fail(f"plan[{i}].text", "is missing; there is no push whose body it could say", None)
