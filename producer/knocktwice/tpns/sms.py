"""The SMS that a payload wants to follow: ``resend_by_sms`` and ``sms_info``. What is wrong in it stops no push."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from knocktwice.content import Sms
from knocktwice_shared.messages import AFTER_LIMIT, SMS_CHARS_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice.tpns.problems import Problems
    from knocktwice_shared.messages import Category

#: Tencent's least delay, in seconds.
LEAST_DELAY = 300

_KNOWN = {
    "delay_trigger_time",
    "trigger_condition",
    "sms_sign_name",
    "sms_template_id",
    "sms_template_params",
    "sms_app_id",
}
_PLACE = re.compile(r"\{(\d+)\}")


#: How a signature stands before the text: what opens and what closes it; nothing leaves it out.
SIGNATURES = ("[]", "【】", "")


@dataclass(frozen=True, slots=True)
class SmsTemplate:
    """An SMS template of which more is known than its text.

    Args:
        text: with ``{1}``, ``{2}``.
        sender: a number, name or service of your provider's account; ``None`` is the workers' setting.
        category: decides consent and quiet hours, unless the payload or the call names another.
        problem: why it cannot be used.
    """

    text: str = ""
    sender: str | None = None
    category: Category | str | None = None
    problem: str | None = None


def sms(
    payload: Mapping[str, Any], templates: Mapping[str, SmsTemplate], problems: Problems, *, signature: str = "[]"
) -> Sms | None:
    """Read the SMS settings.

    Args:
        templates: those that are known, by ``sms_template_id``.
        signature: one of :data:`SIGNATURES`.

    Returns:
        ``None`` if there is to be no SMS, or if something is wrong; then ``problems`` says what.
    """
    before = len(problems)
    if not problems.flag(payload, "resend_by_sms", "resend_by_sms"):
        return None
    info = problems.object(payload, "sms_info", "sms_info", required=True)
    if info is None:
        return None
    problems.unknown(info, _KNOWN, "sms_info.", {})
    longest = int(AFTER_LIMIT.total_seconds())
    delay = problems.number(
        info, "delay_trigger_time", "sms_info.delay_trigger_time", LEAST_DELAY, longest, required=True
    )
    condition = problems.number(info, "trigger_condition", "sms_info.trigger_condition", 0, 2, required=True)
    # Whose account it is does not matter here, but a payload without it is not one that Tencent takes.
    problems.text(info, "sms_app_id", "sms_info.sms_app_id", required=True)
    said = _text(info, templates, problems, signature)
    if len(problems) > before or delay is None or condition is None or said is None:
        return None
    text, template = said
    return Sms(text, when=condition, after=timedelta(seconds=delay), sender=template.sender)


def _text(
    info: Mapping[str, Any], templates: Mapping[str, SmsTemplate], problems: Problems, signature: str
) -> tuple[str, SmsTemplate] | None:
    sign = problems.text(info, "sms_sign_name", "sms_info.sms_sign_name")
    params = problems.texts(info, "sms_template_params", "sms_info.sms_template_params") or []
    id_ = problems.text(info, "sms_template_id", "sms_info.sms_template_id", required=True)
    if id_ is None:
        return None
    if id_ not in templates:
        problems.add("sms_info.sms_template_id", f"{id_!r:.60} is no SMS template that is known here")
        return None
    template = templates[id_]
    if template.problem is not None:
        problems.add("sms_info.sms_template_id", template.problem)
        return None
    wanted = {int(place) for place in _PLACE.findall(template.text)}
    if wanted != set(range(1, len(params) + 1)):
        most = max(wanted, default=0)
        given = f"has {len(params)} items; template {id_!r:.60} has {len(wanted)} placeholders, up to {{{most}}}"
        problems.add(
            "sms_info.sms_template_params",
            given if wanted else f"must be left out; template {id_!r:.60} has no placeholder",
        )
        return None
    # One pass, so that a value that looks like a placeholder stays what it is.
    text = _PLACE.sub(lambda found: params[int(found[1]) - 1], template.text)
    text = _signed(text, sign, signature) if sign and signature else text
    if len(text) > SMS_CHARS_LIMIT:
        problems.add(
            "sms_info.sms_template_params", f"make an SMS of {len(text)} characters; {SMS_CHARS_LIMIT} at most"
        )
        return None
    return text, template


def _signed(text: str, sign: str, signature: str) -> str:
    """Put a signature before a text: as Tencent does on the mainland, or as others do, with a space."""
    opening, closing = signature[0], signature[1]
    return f"{opening}{sign}{closing}{'' if opening == '【' else ' '}{text}"
