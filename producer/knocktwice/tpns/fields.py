"""The fields of a payload that are not mapped: what becomes of each, and why."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice.tpns.problems import Problems

#: Fields without an effect here, and why nothing is lost.
IGNORED = {
    "environment": "FCM knows from the registration whether it is a development build",
    "multi_pkg": "a registration belongs to one package",
    "ignore_invalid_token": "a token that FCM refuses never stops the others",
    "push_id": "each call has its texts in it, so each is a push of its own",
}
#: Fields whose wish cannot be met, though the push can go: they are named in the answer; strictly, they refuse it.
LOST = {
    "collapse_id": "is ignored; a push that is repeated replaces itself, and no other",
    "force_collapse": "is ignored; a push that is repeated replaces itself, and no other",
    "channel_rules": "is ignored; all pushes go through FCM",
    "channel_distribute_rules": "is ignored; all pushes go through FCM",
    "channel_strategy": "is ignored; all pushes go through FCM",
    "tpns_online_push_type": "is ignored; all pushes go through FCM",
}
#: The same in ``message``, ``message.android`` and ``message.ios``.
LOST_LOOKS = {
    "show_type": "is ignored; the app decides what it does with a push while it is open",
    "n_id": "is ignored; a push that is repeated replaces itself, and no other",
    "builder_id": "is ignored; how a push looks is up to the app's channel, n_ch_id",
    "style_id": "is ignored; how a push looks is up to the app's channel, n_ch_id",
    "vibrate": "is ignored; vibration is up to the app's channel, n_ch_id",
    "lights": "is ignored; lights are up to the app's channel, n_ch_id",
    "clearable": "is ignored; people can swipe every push away",
    "icon_type": "is ignored; give an icon of the app in small_icon",
    "icon_res": "is ignored; give an icon of the app in small_icon",
    "n_ch_name": "is ignored; the app names its channels",
    "n_category": "is ignored; how urgent a push is, is up to the app's channel, n_ch_id",
    "n_importance": "is ignored; how urgent a push is, is up to the app's channel, n_ch_id",
    "thread_id": "is ignored; iPhones group by aps.thread-id",
    "thread_sumtext": "is ignored",
    "xg": "is ignored; Tencent keeps it for itself",
}
#: Values that Tencent's own libraries send when a caller says nothing, so nothing is lost by leaving them out.
USUAL = {"vibrate": 1, "lights": 1, "clearable": 1, "style_id": 1, "show_type": 2, "n_id": 0, "builder_id": 0}
#: What other push services than FCM are told.
_OTHER_SERVICES = re.compile(r"(hw|xm|oppo|vivo|mz|honor|hms)_")
#: Fields that are handed back in reports.
REFERENCE = ("group_id", "plan_id", "stat_tag")
#: Fields that are not supported → the remedy.
UNSUPPORTED = {
    "loop_param": "is not supported; call repeatedly, by cron",
    "loop_times": "is not supported; call repeatedly, by cron",
    "loop_interval": "is not supported; call repeatedly, by cron",
    "upload_id": "is not supported; read the file and give token_list or account_list",
    "account_type": "is not supported; an account is a user id here, so put the kind into it",
}
#: Fields that are mapped, at the top of a payload.
MAPPED = {
    *("audience_type", "message", "message_type", "token_list", "account_list", "tag_list", "tag_rules"),
    *("resend_by_sms", "sms_info", "expire_time", "account_push_type", "send_time", "platform", "badge_type"),
    *("push_speed", "seq", "knocktwice"),
    *REFERENCE,
}


def sort_out(payload: Mapping[str, Any], problems: Problems, lost: Problems) -> dict[str, Any]:
    """Name the fields at the top of a payload that are not mapped, and return those without an effect.

    Args:
        problems: gets those for which the push cannot go as it should.
        lost: gets those without which it can go.
    """
    known = {*MAPPED, *IGNORED, *LOST}
    problems.unknown(payload, known, "", UNSUPPORTED)
    for name, why in LOST.items():
        if payload.get(name):
            lost.add(name, why)
    return {name: why for name, why in IGNORED.items() if payload.get(name) is not None}


def is_lost(name: str, value: object, path: str, lost: Problems) -> bool:
    """Note a wish about looks that cannot be met, and return whether it was one."""
    if _OTHER_SERVICES.match(name):
        why = "is ignored; all pushes go through FCM"
    elif name in LOST_LOOKS:
        why = LOST_LOOKS[name]
    else:
        return False
    if value not in (None, "", USUAL.get(name)) and (value or name in USUAL):
        lost.add(f"{path}{name}", why)
    return True
