"""Our complaints about a message in the words of OneSignal's request."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from knocktwice_shared.errors import InvalidMessage

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What our own request calls a field → what OneSignal's does.
_SHARED = {
    "push.title": "headings",
    "push.body": "contents",
    "push.subtitle": "subtitle",
    "push.link": "url",
    "push.image": "global_image",
    "push.data": "data",
    "push.sound": "ios_sound",
    "push.badge": "ios_badgeCount",
    "push.channel_id": "existing_android_channel_id",
    "push.icon": "small_icon",
    "push.color": "android_accent_color",
    "push.priority": "priority",
    "push.android": "big_picture, android_sound or android_visibility",
    "push.apns": "ios_attachments, ios_sound, thread_id or ios_category",
    "push.webpush": "chrome_web_image, chrome_web_icon or chrome_web_badge",
    "template": "template_id",
    "send_at": "send_after",
    "ttl_s": "ttl",
    "reference": "name",
    "throttle_per_min": "throttle_rate_per_minute",
    "filter": "filters",
}
_OF_SMS = {"sms.text": "contents", "sms.sender": "sms_from", "sms.media": "sms_media_urls"}
_OF_PUSH = {"sms": "sms_fallback"}
_PARAMS = re.compile(r"(?:recipients\[\d+\]\.)?params\.message\.custom_data")
_RECIPIENT = re.compile(r"recipients\[\d+\]\.params")


@contextmanager
def in_their_words(*, sms: bool) -> Iterator[None]:
    """Rename the fields in an error of our own routes.

    Args:
        sms: the message is an SMS, and no push.
    """
    try:
        yield
    except InvalidMessage as error:
        known = sorted((_SHARED | (_OF_SMS if sms else _OF_PUSH)).items(), key=lambda pair: -len(pair[0]))

        def renamed(told: str) -> str:
            told = _RECIPIENT.sub("custom_data", _PARAMS.sub("custom_data", told))
            for ours, theirs in known:
                told = re.sub(rf"(?<![\w.]){re.escape(ours)}(?!\w)", theirs, told)
            return told

        # Problems of one field of all recipients are one problem here.
        raise error.renamed(renamed, renamed) from None
