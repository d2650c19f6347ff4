"""For applications that come from Tencent Push Notification Service: its push payload, taken as it is.

from knocktwice import tpns

tpns.notify(payload, sms_templates={"123": "Your order {1} arrives at {2}."}, phones={"token-of-ana": "+16505550100"})

Accounts are our users, tokens are FCM registrations. What in a payload is wrong or not supported is named, all of it at
once, before anything is sent. Wrong SMS settings never stop the push, unless it is strict: they are told in the result,
and logged. The gateway takes the same payload at ``/tpns/v3/push/app``.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knocktwice.client import Client
from knocktwice.tpns import audience
from knocktwice.tpns.fields import IGNORED, LOST, LOST_LOOKS, REFERENCE
from knocktwice.tpns.problems import InvalidPayload, Problems
from knocktwice.tpns.request import BEIJING, Request, read, wanted_sms_template
from knocktwice.tpns.sms import SIGNATURES, SmsTemplate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import tzinfo
    from uuid import UUID

    from knocktwice_shared.errors import InvalidMessage
    from knocktwice_shared.messages import Category

__all__ = [
    "BEIJING",
    "IGNORED",
    "LOST",
    "LOST_LOOKS",
    "REFERENCE",
    "SIGNATURES",
    "InvalidPayload",
    "Notified",
    "Request",
    "SmsTemplate",
    "notify",
    "read",
    "segment_filter",
    "wanted_sms_template",
]

log = logging.getLogger("knocktwice")


@dataclass(frozen=True, slots=True)
class Notified:
    """The result of a payload.

    Args:
        ids: the notifications' ids, in the order of the payload's tokens or accounts; none for tags or all.
        sms_problems: why there is no SMS, for all or for the token that is named; empty: nothing is wrong.
        blast: the id of the blast that tags or all became, the same for the same key.
        ignored: fields whose wish cannot be met, with the reason; the push went out without it.
    """

    ids: tuple[UUID, ...]
    sms_problems: tuple[InvalidMessage, ...] = ()
    blast: UUID | None = None
    ignored: tuple[InvalidMessage, ...] = ()


def notify(
    payload: Mapping[str, Any],
    *,
    client: Client | None = None,
    sms_templates: Mapping[str, str | SmsTemplate] | None = None,
    phones: Mapping[str, str] | None = None,
    key: str | None = None,
    category: Category | str | None = None,
    zone: tzinfo = BEIJING,
    strict: bool = False,
    signature: str = "[]",
) -> Notified:
    """Send what a push payload of Tencent's describes.

    Args:
        payload: as decoded from JSON. Beside Tencent's fields it may have an object ``knocktwice`` with ``key``,
            ``category`` and ``strict``, which count where the argument is left out.
        client: yours; left out, one is made for this call.
        sms_templates: ``sms_template_id`` → text, with ``{1}``, ``{2}`` for ``sms_template_params``, or a
            :class:`SmsTemplate`.
        phones: token → number, for the SMS. A token that is left out has the number of the user whose registered
            device it is, and an account the number that is bound to the user.
        key: the payload's idempotency key: the same key notifies each token or account once. Tags and all need one:
            they become a blast, and a blast is known by its key.
        category: decides consent and quiet hours; left out, the SMS template's, or ``transactional``.
        zone: by which clock ``send_time`` is told; left out, by that of Tencent's servers.
        strict: nothing is sent unless all of the payload can be met, its SMS and its looks included.
        signature: how ``sms_sign_name`` stands before the text: ``[]``, ``【】`` (which makes the SMS longer in parts,
            because it is not in the GSM alphabet), or an empty text for not at all.

    Raises:
        InvalidPayload: what to push, or whom, is wrong or not supported. Nothing was sent. ``problems`` has all of it.
        BrokerUnavailable: call again with the same ``key``.
    """
    if signature not in SIGNATURES:
        raise InvalidPayload.of_one("signature", f"must be one of {', '.join(map(repr, SIGNATURES))}")
    request = read(
        payload,
        sms_templates=sms_templates,
        phones=phones,
        key=key,
        category=category,
        zone=zone,
        strict=strict,
        signature=signature,
    )
    with nullcontext(client) if client is not None else Client() as sender, request.in_payloads_words():
        ids: Sequence[UUID] = ()
        blast = None
        if request.targets.filter is not None and request.key is not None:
            blast = sender.blast(
                request.targets.filter,
                key=request.key,
                params=request.params,
                throttle_per_min=request.throttle_per_min,
                **request.shared,
            )
        else:
            ids = sender.notify_many(list(request.recipients), **request.shared)
    for problem in request.sms_problems:
        log.warning("pushed without an SMS: %s", problem)
    return Notified(tuple(ids), request.sms_problems, blast, request.ignored)


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
