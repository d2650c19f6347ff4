"""A payload of Tencent's, read and checked: what the library, the command line and the gateway send."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypedDict

from knocktwice.tpns import audience, fields, message, sms
from knocktwice.tpns.problems import InvalidPayload, Problems
from knocktwice.tpns.sms import SmsTemplate
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import TTL_LIMIT, Push, Recipient, normalise_phone, one_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import tzinfo

    from knocktwice.content import Sms
    from knocktwice_shared.messages import Category

#: The clock of Tencent's servers, by which ``send_time`` is told.
BEIJING = timezone(timedelta(hours=8), "Beijing")

#: The contract's fields in the payload's words, for what only the contract's own check finds.
_WORDS = {
    "push.title": "message.title",
    "push.body": "message.content",
    "push.data": "message.android.custom_content",
    "push.link": "message.android.action",
    "push.subtitle": "message.ios.aps.alert.subtitle",
    "push.channel_id": "message.android.n_ch_id",
    "push.icon": "message.android.small_icon",
    "push.sound": "message.android.ring_raw",
    "push.apns.payload.aps": "message.ios.aps",
    "push.image": "message.xg_media_resources",
    "push": "message",
    "ttl": "expire_time",
    "send_at": "send_time",
    "sms.after": "sms_info.delay_trigger_time",
    "sms.when": "sms_info.trigger_condition",
    "sms": "sms_info.sms_template_params",
    "category": "knocktwice.category",
    "throttle_per_min": "push_speed",
}
#: The fields of ``knocktwice``, which Tencent does not have.
_OWN = {"category", "key", "strict"}


class Shared(TypedDict):
    """The arguments that :meth:`Client.notify_many` and :meth:`Client.blast` share."""

    push: Push
    sms: Sms | None
    category: Category | str | None
    ttl: timedelta | None
    reference: Mapping[str, Any] | None
    send_at: datetime | None


@dataclass(frozen=True, slots=True)
class Request:
    """A payload that can be sent.

    Attributes:
        shared: what everybody gets.
        targets: who they are.
        params: values of the texts, the same for all.
        recipients: the people; none for tags or all, which :attr:`audience.Targets.filter` describes.
        key: the idempotency key; ``None``: there is none.
        throttle_per_min: of tags or all, most people in any minute.
        strict: whether anything that is wrong refuses the push.
        ignored: fields whose wish cannot be met.
        sms_problems: why there is no SMS, for all or for one token.
    """

    shared: Shared
    targets: audience.Targets
    params: Mapping[str, str]
    recipients: tuple[Recipient, ...]
    key: str | None
    throttle_per_min: int | None
    strict: bool
    ignored: tuple[InvalidMessage, ...]
    sms_problems: tuple[InvalidMessage, ...] = field(default=())

    def without_sms(self, problems: tuple[InvalidMessage, ...]) -> Request:
        """Return the same push without its SMS, because of these problems."""
        return replace(self, shared={**self.shared, "sms": None}, sms_problems=(*self.sms_problems, *problems))

    @contextmanager
    def in_payloads_words(self) -> Iterator[None]:
        """Rename the library's fields in an error to what the payload calls them, as :class:`InvalidPayload`."""
        try:
            yield
        except InvalidMessage as error:
            raise InvalidPayload([_in_payloads_words(one, self.targets) for one in error.problems]) from None


def wanted_sms_template(payload: Mapping[str, Any]) -> str | None:
    """Return the id of the SMS template that a payload names; ``None``: it wants no SMS, or names none."""
    info = payload.get("sms_info")
    if payload.get("resend_by_sms") is not True or not isinstance(info, dict):
        return None
    id_ = info.get("sms_template_id")
    return id_ if isinstance(id_, str) and id_ else None


def read(
    payload: Mapping[str, Any],
    *,
    sms_templates: Mapping[str, str | SmsTemplate] | None = None,
    phones: Mapping[str, str] | None = None,
    key: str | None = None,
    category: Category | str | None = None,
    zone: tzinfo = BEIJING,
    strict: bool = False,
    signature: str = "[]",
    needs_key: bool = True,
) -> Request:
    """Read a payload. The arguments are those of :func:`knocktwice.tpns.notify`.

    Args:
        needs_key: whether tags and all must have a key.

    Raises:
        InvalidPayload: what to push, or whom, is wrong or not supported; if it is strict, anything at all.
    """
    problems, lost, sms_problems = Problems(), Problems(), Problems()
    own = _own(payload, problems)
    key, category, strict = key or own.get("key"), category or own.get("category"), strict or own.get("strict", False)
    fields.sort_out(payload, problems, lost)
    push = message.push(payload, problems, lost)
    targets = audience.targets(payload, problems, lost)
    ttl = problems.number(payload, "expire_time", "expire_time", 0, int(TTL_LIMIT.total_seconds()))
    speed = problems.number(payload, "push_speed", "push_speed", 0, 1_000_000)
    at = _send_time(payload, zone, problems)
    if targets is not None and targets.filter is not None and key is None and needs_key:
        problems.add("key", "is missing; what goes to tags or to all needs one, so that a repeat notifies nobody twice")
    known = {id_: _template(one) for id_, one in (sms_templates or {}).items()}
    wanted = sms.sms(payload, known, sms_problems, signature=signature)
    if category is None and wanted is not None:
        category = known[wanted_sms_template(payload) or ""].category
    if problems or push is None or targets is None:
        raise InvalidPayload([*problems, *(lost if strict else ()), *(sms_problems if strict else ())])
    literal = _Literal(push, wanted)
    recipients = tuple(_recipients(targets, literal, phones or {}, key, sms_problems))
    if strict and (lost or sms_problems):
        raise InvalidPayload([*lost, *sms_problems])
    return Request(
        shared=Shared(
            push=literal.push,
            sms=literal.sms,
            category=category,
            ttl=None if ttl is None else timedelta(seconds=ttl),
            reference={name: payload[name] for name in fields.REFERENCE if payload.get(name) not in (None, "")} or None,
            send_at=at,
        ),
        targets=targets,
        params=literal.params,
        recipients=recipients,
        key=key,
        throttle_per_min=speed * 60 if speed and targets.filter is not None else None,
        strict=strict,
        ignored=tuple(lost),
        sms_problems=tuple(sms_problems),
    )


def _template(given: object) -> SmsTemplate:
    if isinstance(given, SmsTemplate):
        return given
    return SmsTemplate(given) if isinstance(given, str) else SmsTemplate(problem="is no text in sms_templates")


def _own(payload: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """Read ``knocktwice``: what Tencent has no field for."""
    own = problems.object(payload, "knocktwice", "knocktwice") or {}
    problems.unknown(own, _OWN, "knocktwice.", {})
    return {
        "key": problems.text(own, "key", "knocktwice.key"),
        "category": problems.text(own, "category", "knocktwice.category"),
        "strict": problems.flag(own, "strict", "knocktwice.strict"),
    }


class _Literal:
    """Texts that say what they say: braces in them are no placeholders, as they would be in ours."""

    def __init__(self, push: Push, sms_: Sms | None) -> None:
        self.params: dict[str, str] = {}
        self.push = push.with_texts(lambda place, text: self._as_it_is({"body": "content"}.get(place, place), text))
        self.sms = None
        if sms_ is not None and sms_.text is not None:
            self.sms = replace(sms_, text=self._as_it_is("sms", one_text(sms_.text)))

    def _as_it_is(self, name: str, text: str) -> str:
        if "{{" not in text and "{%" not in text:
            return text
        if not name.isidentifier():
            name = f"text{len(self.params) + 1}"
        self.params[name] = text
        return f"{{{{ {name} }}}}"


def _recipients(
    targets: audience.Targets, literal: _Literal, phones: Mapping[str, str], key: str | None, problems: Problems
) -> Iterator[Recipient]:
    for place, name in enumerate(targets.names):
        own = None if key is None else f"{key}:{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:16]}"
        if targets.are_accounts:
            yield Recipient(user=name, params=literal.params, key=own)
            continue
        phone = None
        if literal.sms is not None and name in phones:
            phone = _phone(phones[name], f"token_list[{place}]", problems)
        yield Recipient(registrations=(name,), phone=phone, params=literal.params, key=own)


def _send_time(payload: Mapping[str, Any], zone: tzinfo, problems: Problems) -> datetime | None:
    """Read when it goes out; a time past means now, as it does at Tencent's."""
    if not payload.get("send_time"):
        return None
    said = problems.text(payload, "send_time", "send_time")
    if said is None:
        return None
    try:
        return datetime.strptime(said, "%Y-%m-%d %H:%M:%S").replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        problems.add("send_time", "must be a time like 2026-11-21 18:30:00")
        return None


def _phone(number: str, path: str, problems: Problems) -> str | None:
    try:
        return normalise_phone(number, f"phones of {path}")
    except InvalidMessage as error:
        problems.append(error)
        return None


def _in_payloads_words(error: InvalidMessage, targets: audience.Targets) -> InvalidMessage:
    field = error.field
    if field == "filter" or field.startswith("filter."):
        return InvalidMessage(targets.field, error.problem)
    if field.startswith("recipients["):
        place = field.partition("[")[2].partition("]")[0]
        return InvalidMessage(f"{targets.field}[{place}]", error.problem)
    for ours, theirs in _WORDS.items():
        if field == ours or field.startswith(f"{ours}."):
            return InvalidMessage(theirs + field.removeprefix(ours), error.problem)
    return error
