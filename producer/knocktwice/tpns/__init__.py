"""For applications that come from Tencent Push Notification Service: its push payload, taken as it is.

from knocktwice import tpns

tpns.notify(payload, sms_templates={"123": "Your order {1} arrives at {2}."}, phones={"token-of-ana": "+16505550100"})

Accounts are our users, tokens are FCM registrations. What in a payload is wrong or not supported is named, all of it at
once, before anything is sent. Wrong SMS settings never stop the push: they are told in the result, and logged.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypedDict

from knocktwice.client import Client
from knocktwice.tpns import audience, message, sms
from knocktwice.tpns.problems import InvalidPayload, Problems
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import TTL_LIMIT, Push, Recipient, normalise_phone, one_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import tzinfo
    from uuid import UUID

    from knocktwice.content import Sms
    from knocktwice_shared.messages import Category

__all__ = ["InvalidPayload", "Notified", "notify", "segment_filter"]

log = logging.getLogger("knocktwice")

#: The clock of Tencent's servers, by which ``send_time`` is told.
BEIJING = timezone(timedelta(hours=8), "Beijing")

#: Fields that change nothing here, and why that is no loss.
IGNORED = {
    "environment": "FCM knows from the registration whether it is a development build",
    "multi_pkg": "a registration belongs to one package",
}
#: Fields that are handed back in reports.
REFERENCE = ("group_id", "plan_id")
#: Fields that are not supported → the remedy.
UNSUPPORTED = {
    "loop_param": "is not supported; call repeatedly, by cron",
    "loop_times": "is not supported; call repeatedly, by cron",
    "loop_interval": "is not supported; call repeatedly, by cron",
    "upload_id": "is not supported; read the file and give token_list or account_list",
    "push_speed": "is not supported; the pace is a setting of the workers, KNOCKTWICE_PUSH_PER_S",
    "account_type": "is not supported; an account is a user id here, so put the kind into it",
}
_KNOWN = {
    *("audience_type", "message", "message_type", "token_list", "account_list", "tag_list", "tag_rules"),
    *("resend_by_sms", "sms_info", "expire_time", "account_push_type", "send_time"),
    *IGNORED,
    *REFERENCE,
}

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
}


@dataclass(frozen=True, slots=True)
class Notified:
    """The result of a payload.

    Args:
        ids: the notifications' ids, in the order of the payload's tokens or accounts; none for tags or all.
        sms_problems: why there is no SMS, for all or for the token that is named; empty: nothing is wrong.
        blast: the id of the blast that tags or all became, the same for the same key.
    """

    ids: tuple[UUID, ...]
    sms_problems: tuple[InvalidMessage, ...] = ()
    blast: UUID | None = None


def notify(
    payload: Mapping[str, Any],
    *,
    client: Client | None = None,
    sms_templates: Mapping[str, str] | None = None,
    phones: Mapping[str, str] | None = None,
    key: str | None = None,
    category: Category | str | None = None,
    zone: tzinfo = BEIJING,
) -> Notified:
    """Send what a push payload of Tencent's describes.

    Args:
        payload: as decoded from JSON.
        client: yours; left out, one is made for this call.
        sms_templates: ``sms_template_id`` → text, with ``{1}``, ``{2}`` for ``sms_template_params``.
        phones: token → number, for the SMS. A token that is left out has the number of the user whose registered
            device it is, and an account the number that is bound to the user.
        key: the payload's idempotency key: the same key notifies each token or account once. Tags and all need one:
            they become a blast, and a blast is known by its key.
        category: decides consent and quiet hours; left out, ``transactional``.
        zone: by which clock ``send_time`` is told; left out, by that of Tencent's servers.

    Raises:
        InvalidPayload: what to push, or whom, is wrong or not supported. Nothing was sent. ``problems`` has all of it.
        BrokerUnavailable: call again with the same ``key``.
    """
    problems = Problems()
    problems.unknown(payload, _KNOWN, "", UNSUPPORTED)
    push = message.push(payload, problems)
    targets = audience.targets(payload, problems)
    ttl = problems.number(payload, "expire_time", "expire_time", 0, int(TTL_LIMIT.total_seconds()))
    if payload.get("account_push_type") not in (None, 1):
        problems.add("account_push_type", "must be 1 or left out; a push goes to all devices of an account")
    at = _send_time(payload, zone, problems)
    if targets is not None and targets.filter is not None and key is None:
        problems.add("key", "is missing; what goes to tags or to all needs one, so that a repeat notifies nobody twice")
    if problems or push is None or targets is None:
        raise InvalidPayload(problems)
    sms_problems = Problems()
    wanted = sms.sms(payload, sms_templates or {}, sms_problems)
    literal = _Literal(push, wanted)
    shared = _Shared(
        push=literal.push,
        sms=literal.sms,
        category=category,
        ttl=None if ttl is None else timedelta(seconds=ttl),
        reference={name: payload[name] for name in REFERENCE if payload.get(name) is not None} or None,
        send_at=at,
    )
    with nullcontext(client) if client is not None else Client() as sender:
        try:
            if targets.filter is not None and key is not None:
                blast = sender.blast(targets.filter, key=key, params=literal.params, **shared)
                ids: Sequence[UUID] = ()
            else:
                blast = None
                recipients = list(_recipients(targets, literal, phones or {}, key, sms_problems))
                ids = sender.notify_many(recipients, **shared)
        except InvalidMessage as error:
            raise InvalidPayload([_in_payloads_words(one, targets) for one in error.problems]) from None
    for problem in sms_problems:
        log.warning("pushed without an SMS: %s", problem)
    return Notified(tuple(ids), tuple(sms_problems), blast)


def segment_filter(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the segment that ``audience_type`` ``tag`` or ``all`` means, as JSON for ``knocktwice segment put``.

    A tag of Tencent's is a label. Here it is a tag of that name whose value is ``true``:
    ``tag_user(user, {"vip": True})``.

    Raises:
        InvalidPayload: the tags or their rules are wrong; all problems are named.
    """
    problems = Problems()
    if payload.get("audience_type") not in ("tag", "all"):
        problems.add("audience_type", "must be tag or all")
    made = audience.segment_filter(payload, problems)
    if problems or made is None:
        raise InvalidPayload(problems)
    return made


class _Shared(TypedDict):
    """The arguments that :meth:`Client.notify_many` and :meth:`Client.blast` share."""

    push: Push
    sms: Sms | None
    category: Category | str | None
    ttl: timedelta | None
    reference: Mapping[str, Any] | None
    send_at: datetime | None


class _Literal:
    """Texts that say what they say: braces in them are no placeholders, as they would be in ours."""

    def __init__(self, push: Push, sms_: Sms | None) -> None:
        self.params: dict[str, str] = {}
        self.push = push.with_texts(lambda place, text: self._as_it_is({"body": "content"}.get(place, place), text))
        self.sms = None
        if sms_ is not None and sms_.text is not None:
            self.sms = type(sms_)(self._as_it_is("sms", one_text(sms_.text)), when=sms_.when, after=sms_.after)

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
