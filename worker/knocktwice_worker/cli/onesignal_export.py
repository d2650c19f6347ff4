"""OneSignal's CSV export of users: what each row says of a person here.

The columns are those of https://documentation.onesignal.com/reference/csv-export: a row is a subscription, with the
tags of its person. What a row says counts from the time at which its person was last active, so whatever the
application has said since then stays, and a file that is read twice changes nothing the second time.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.audience.aliases import Alias
from knocktwice_worker.cli.export_rows import Export, Row, Said, Unfit, moment
from knocktwice_worker.gateway.faces.onesignal import languages, names, subscriptions, tags
from knocktwice_worker.notation import time_zones

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

Json = dict[str, Any]

_EXTERNAL = ("external_user_id", "external_id")
_E_MAIL = 11
_TRUE, _FALSE = ("t", "true", "1"), ("f", "false", "0", "")


def read(row: Row, now: datetime) -> Said:
    """Return what a row says.

    Args:
        now: when it counts from, if it does not say when its person was last active.

    Raises:
        Unfit: it says nothing that can be taken.
    """
    fields = row.fields
    if fields is None:
        raise Unfit(row.problem)
    kind, token = _kind(fields.get("device_type", "")), fields.get("identifier", "")
    if not token:
        raise Unfit("identifier: is empty")
    sms = kind == subscriptions.SMS
    external = next((fields[name] for name in _EXTERNAL if fields.get(name)), "")
    if len(external) > 200:
        raise Unfit("external_user_id: is longer than 200 characters")
    user = external or names.stranger_with(token, sms=sms)
    at, on = min(_at(fields, now), now), _enabled(fields)
    said = Said(user, at, about=f"number of {user}" if sms else f"device {token}", number=token if sms else "")
    described = _described(fields, user, own=sms)
    said.aliases.append(names.of_person(user))
    old = fields.get("id", "")
    if sms:
        said.changes.append({"change": "bind_phone", "user": user, "phone": token})
        if on is False:
            said.changes.append({"change": "opt_out", "phone": token, "source": "onesignal export"})
        said.aliases += [names.of_number(user), *([Alias(names.SUBSCRIPTION, old, user)] if old else [])]
    else:
        _device(said, fields, user, token, subscriptions.PLATFORMS[kind], on=on)
        if not said.problem:
            said.aliases += [
                names.of_device(user, token),
                *([Alias(names.SUBSCRIPTION, old, user, token)] if old else []),
            ]
    said.changes += described
    if said.problem and (not external or not described):
        raise Unfit(said.problem)
    said.changes = [{**change, "at": at.isoformat()} for change in said.changes]
    return said


def _device(said: Said, fields: Mapping[str, str], user: str, token: str, platform: str, *, on: bool | None) -> None:
    if fields.get("invalid_identifier", "").lower() in _TRUE:
        said.problem = "invalid_identifier: the app was removed, or the token has lapsed"
        return
    given = {"game_version": fields.get("game_version") or None, "locale": _locale(fields), "time_zone": _zone(fields)}
    try:
        said.changes.append(subscriptions.register(user, token, given, "", platform=platform, on=on))
    except InvalidMessage as error:
        said.problem = f"identifier: {error.problem}"


def _kind(text: str) -> str:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else -1
    if number == _E_MAIL:
        raise Unfit("device_type: is an e-mail address, which is not served here")
    if number not in subscriptions.DEVICE_TYPES:
        raise Unfit("device_type: is a kind of device that is not served here")
    return subscriptions.DEVICE_TYPES[number]


def _enabled(fields: Mapping[str, str]) -> bool | None:
    text = fields.get("notification_types", "")
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,6}", text, re.ASCII):
        raise Unfit("notification_types: is no whole number")
    return int(text) > 0


def _at(fields: Mapping[str, str], now: datetime) -> datetime:
    given = next((name for name in ("last_active", "created_at") if fields.get(name)), None)
    return now if given is None else moment(fields[given], given)


def _locale(fields: Mapping[str, str]) -> str | None:
    text = fields.get("language", "")
    return languages.ours(text) if text else None


def _zone(fields: Mapping[str, str]) -> str | None:
    """Return the zone; one that nobody knows is left out, because the device matters more."""
    zone, seconds = fields.get("timezone_id", ""), fields.get("timezone", "")
    if not zone and re.fullmatch(r"-?[0-9]{1,5}", seconds, re.ASCII):
        hours, minutes = divmod(abs(int(seconds)) // 60, 60)
        zone = f"GMT{'-' if seconds.startswith('-') else '+'}{hours:02}:{minutes:02}"
    try:
        return time_zones.canonical(zone) if zone else None
    except ValueError:
        return None


def _described(fields: Mapping[str, str], user: str, *, own: bool) -> list[Json]:
    """Return the change that describes the person; language and zone only if the row is about no device of its own."""
    change: Json = {}
    text = fields.get("tags", "")
    if text and text not in ("{}", "null"):
        try:
            change["tags"] = tags.read(json.loads(text), "tags")
        except InvalidMessage as error:
            raise Unfit(f"{error.field}: {error.problem}") from None
        except (ValueError, RecursionError):
            raise Unfit("tags: is no JSON") from None
    if own:
        about = {"locale": _locale(fields), "time_zone": _zone(fields)}
        change |= {name: value for name, value in about.items() if value is not None}
    return [{"change": "set_tags", "user": user, "tags": {}, **change}] if change else []


def _column(text: str) -> str:
    return text.strip().lower()


#: OneSignal's export.
EXPORT = Export(
    "OneSignal", ("id", "identifier", "device_type"), _column, read, user="external_user_id", number="identifier"
)
