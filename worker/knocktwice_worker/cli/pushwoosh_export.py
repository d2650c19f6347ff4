"""Pushwoosh's CSV export of a segment (``/exportSegment``): what each row says of a person here.

A row is a device or a number, by its hwid, with its push token, its user and the tags; which columns there are depends
on what was asked for. So columns are known by their names, however they are written, and each other column is a tag. A
row counts from the device's last open, or else from the time of the file: the same file again changes nothing.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.cli.export_rows import Export, Row, Said, Unfit, moment
from knocktwice_worker.gateway.faces.onesignal import subscriptions, tags
from knocktwice_worker.gateway.faces.pushwoosh import audience, devices

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

Json = dict[str, Any]

#: How Pushwoosh's pages and files write the columns that are no tags.
_COLUMNS = {
    "hwid": ("hwid", "hwids", "deviceid"),
    "push_token": ("pushtoken", "pushtokens", "token"),
    "user": ("userid", "user", "users"),
    "type": ("devicetype", "type", "platform"),
    "language": ("language",),
    "tags": ("tags",),
    "seen": ("lastapplicationopen", "lastopen", "lastseen"),
}
_KNOWN = {theirs: ours for ours, all_of in _COLUMNS.items() for theirs in all_of}
#: Columns that describe the device and are no tags.
_COSMETIC = frozenset(
    {
        *("devicemodel", "osversion", "sdkversion", "applicationversion", "appversion", "city", "country", "timezone"),
        *("firstinstall", "installdate", "jailbroken", "inapppurchase", "inappproduct", "unsubscribed", "email"),
    }
)
_PLATFORMS = {"ios": 1, "android": 3, "safari": 10, "chrome": 11, "firefox": 12, "sms": audience.SMS}
_TAG = "tag "
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*", re.ASCII)
#: A token of Apple's, with which FCM can do nothing.
_APPLE = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{160}")


def column(text: str) -> str:
    """Return the name under which a column is read; that of a tag begins with ``tag``."""
    plain = re.sub(r"[^a-z0-9]", "", text.lower())
    if plain in _KNOWN:
        return _KNOWN[plain]
    return plain if plain in _COSMETIC else f"{_TAG}{text.strip()}"


def read(row: Row, since: datetime) -> Said:
    """Return what a row says.

    Args:
        since: when it counts from, if it does not say when its device was opened last.

    Raises:
        Unfit: it says nothing that can be taken.
    """
    fields = row.fields
    if fields is None:
        raise Unfit(row.problem)
    hwid, token, user = fields.get("hwid", ""), fields.get("push_token", ""), fields.get("user", "")
    kind = _kind(fields.get("type", ""))
    if not hwid or len(hwid) > devices.HWID_LIMIT or not hwid.isprintable():
        raise Unfit(f"hwid: must be 1 to {devices.HWID_LIMIT} printable characters")
    if len(user) > 200:
        raise Unfit("user_id: is longer than 200 characters")
    plain = hwid.removeprefix(devices.WHATSAPP)
    numbered = audience.is_number(plain) or plain != hwid or kind in (audience.SMS, audience.WHATSAPP)
    user = user or devices.alone(plain if numbered else hwid)
    at = min(_at(fields, since), since)
    said = Said(user, at, about=f"number of {user}" if numbered else f"device {token or hwid}")
    if numbered:
        said.number = plain
        said.changes.append({"change": "bind_phone", "user": user, "phone": plain})
    else:
        _device(said, fields, token, kind)
        said.hwid = "" if said.problem else hwid
    described = _tags(fields)
    if described:
        said.changes.append({"change": "set_tags", "user": user, "tags": described})
    if said.problem and not described:
        raise Unfit(said.problem)
    said.changes = [{**change, "at": at.isoformat()} for change in said.changes]
    return said


def _device(said: Said, fields: Mapping[str, str], token: str, kind: int | None) -> None:
    if not token:
        said.problem = "push_token: is empty, so the device cannot be reached"
    elif _APPLE.fullmatch(token):
        said.problem = "push_token: is a token of Apple's, which FCM does not know"
    elif kind in devices.UNREACHED:
        said.problem = "device_type: is a kind of device that FCM does not reach"
    else:
        more = {"platform": audience.PLATFORMS[kind]} if kind in audience.PLATFORMS else {}
        if _LANGUAGE.fullmatch(fields.get("language", "")):
            more["locale"] = fields["language"].replace("_", "-")
        try:
            said.changes.append(
                subscriptions.register(said.user, token, more, "", platform=more.get("platform"), on=None)
            )
        except InvalidMessage as error:
            said.problem = f"push_token: {error.problem}"


def _kind(text: str) -> int | None:
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) < 4:
        return int(text)
    return _PLATFORMS.get(text.lower())


def _at(fields: Mapping[str, str], since: datetime) -> datetime:
    text = fields.get("seen", "")
    return moment(text, "last_open") if text else since


def _tags(fields: Mapping[str, str]) -> Json:
    """Return the tags of the column of all tags, and those of columns of their own."""
    found: Json = {name.removeprefix(_TAG): text for name, text in fields.items() if name.startswith(_TAG) and text}
    text = fields.get("tags", "")
    if text and text not in ("{}", "[]", "null"):
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            raise Unfit("tags: is no JSON") from None
        if not isinstance(given, dict):
            raise Unfit("tags: is no object")
        found |= given
    lists = {name: value for name, value in found.items() if isinstance(value, list)}
    try:
        return {**tags.read({n: v for n, v in found.items() if n not in lists}, "tags"), **lists}
    except InvalidMessage as error:
        raise Unfit(f"tags: {error.problem}") from None


#: Pushwoosh's export.
EXPORT = Export("Pushwoosh", ("hwid",), column, read, user="user_id", number="hwid")
