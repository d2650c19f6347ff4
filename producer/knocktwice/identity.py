"""Introduces people in the call that notifies them: the values beside ``user`` become an audience change.

The broker accepts the change and the batch together, and a worker carries out the changes about a person before it
looks for the person's devices. So one call can notify a new person, without waiting for an earlier call.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import parse_audience
from knocktwice_shared.messages.problems import attempt, fail
from knocktwice_shared.names import BATCH_LIMIT, VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Wire = dict[str, Any]

#: The fields about a person, not about this notification.
FIELDS = ("registrations", "phone", "tags")


def introductions(recipients: Sequence[object]) -> list[Wire]:
    """Take the facts about users out of a batch's recipients, and return them as ``update_audience`` messages.

    Args:
        recipients: as they stand on the wire; changed in place. One without ``user`` is left alone: its registrations
            and its number are for this notification only.

    Raises:
        InvalidMessage: something said of a user is wrong; it is named as a field of its recipient.
    """
    changes: list[Wire] = []
    now = datetime.now(UTC).isoformat()
    for place, recipient in enumerate(recipients):
        if not isinstance(recipient, dict):
            continue
        if recipient.get("user") is None:
            if recipient.get("tags") is not None:
                fail(f"recipients[{place}].tags", "are kept for a user; give user, too", None)
            continue
        said = {name: value for name in FIELDS if (value := recipient.pop(name, None)) not in (None, (), [])}
        for field, change in _changes(said, recipient, place):
            whole = {"at": now, **change}
            attempt(_check, None, whole, f"recipients[{place}]", field)
            changes.append(whole)
    return [
        {"v": VERSION, "changes": changes[start : start + BATCH_LIMIT]} for start in range(0, len(changes), BATCH_LIMIT)
    ]


def by_address(recipients: Sequence[object]) -> None:
    """Let the recipients of a test name either a user or addresses, so that nothing is remembered of a person.

    Args:
        recipients: as they stand on the wire; changed in place. Where addresses are given, the test goes to these.
    """
    for recipient in recipients:
        if not isinstance(recipient, dict) or recipient.get("user") is None:
            continue
        recipient.pop("tags", None)
        if recipient.get("registrations") or recipient.get("phone") is not None:
            del recipient["user"]


def _changes(said: Mapping[str, Any], recipient: Mapping[str, Any], place: int) -> list[tuple[str, Wire]]:
    """Return each change with the field of the recipient that it is made of."""
    user, found = recipient["user"], []
    if "registrations" in said:
        registrations = said["registrations"]
        if not isinstance(registrations, list | tuple):
            registrations = fail(f"recipients[{place}].registrations", "must be a list", [])
        locale = {} if recipient.get("locale") is None else {"locale": recipient["locale"]}
        for number, registration in enumerate(registrations):
            change = {"change": "register_device", "user": user, "registration": registration, **locale}
            found.append((f"registrations[{number}]", change))
    if "phone" in said:
        found.append(("phone", {"change": "bind_phone", "user": user, "phone": said["phone"]}))
    if "tags" in said:
        found.append(("tags", {"change": "set_tags", "user": user, "tags": said["tags"]}))
    return found


def _check(change: Wire, recipient: str, field: str) -> None:
    try:
        parse_audience({"v": VERSION, "changes": [change]})
    except InvalidMessage as error:
        raise error.renamed(lambda name: _in_recipients_words(name, recipient, field)) from None


def _in_recipients_words(name: str, recipient: str, field: str) -> str:
    stem, _, rest = name.removeprefix("changes[0].").partition(".")
    own = field if stem == field.partition("[")[0].removesuffix("s") or stem == field else stem
    return f"{recipient}.{own}{'.' if rest else ''}{rest}"
