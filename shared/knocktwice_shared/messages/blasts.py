"""``blast``: one notification to everybody in a segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import checks
from knocktwice_shared.messages.notifications import SHARED_FIELDS, parse_batch
from knocktwice_shared.names import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


#: A segment's name.
SEGMENT_NAME_LIMIT = 100


#: Most people a minute that a throttle can allow; without one there is no limit.
THROTTLE_LIMIT = 10_000_000


@dataclass(frozen=True, slots=True)
class Blast:
    """One notification for everybody in a segment.

    Attributes:
        key: the same key never fires twice.
        segment, filter: who: the name of a saved segment, or a filter as one has it. One of the two is set.
        message: what a ``send_push`` message has beside ``v``, ``id`` and ``recipients``, as it came.
        params: everybody's.
        throttle_per_min: most people in a minute; ``None`` is as fast as it goes.
        template: the name of the template that says it, if one does.
    """

    key: str
    segment: str | None
    filter: Mapping[str, Any] | None
    message: Mapping[str, Any]
    params: Mapping[str, Any] | Sequence[Any]
    throttle_per_min: int | None
    template: str | None


def parse_blast(wire: object) -> Blast:
    """Validate a ``blast`` message. Raises like :func:`parse_batch`.

    Whether there is such a segment or template, and whether the filter is one, only a worker knows.
    """
    own = {"v", "key", "segment", "filter", "params", "throttle_per_min"}
    message = checks.versioned(wire, own | SHARED_FIELDS)
    if ("segment" in message) == ("filter" in message):
        raise InvalidMessage("segment", "or filter must be there, and not both: who is it for?")
    shared = {name: value for name, value in message.items() if name not in own}
    params = message.get("params", {})
    # What all have in common is checked as for one of them.
    try:
        batch = parse_batch(blast_batch(shared, params, str(UUID(int=0)), {str(UUID(int=0)): "somebody"}))
    except InvalidMessage as error:
        raise InvalidMessage(error.field.removeprefix("recipients[0]."), error.problem) from None
    per_min = message.get("throttle_per_min")
    if per_min is not None and (type(per_min) is not int or not 1 <= per_min <= THROTTLE_LIMIT):
        raise InvalidMessage("throttle_per_min", f"must be a whole number of people, 1 to {THROTTLE_LIMIT}")
    return Blast(
        key=checks.text(message.get("key"), "key", 200),
        segment=checks.text(message["segment"], "segment", SEGMENT_NAME_LIMIT) if "segment" in message else None,
        filter=checks.json_object(message["filter"], "filter") if "filter" in message else None,
        message=shared,
        params=params,
        throttle_per_min=per_min,
        template=batch.template,
    )


def blast_batch(shared: Mapping[str, Any], params: object, id_: str, people: Mapping[str, str]) -> dict[str, Any]:
    """Return the ``send_push`` message for some people of a blast.

    Args:
        shared: the blast's ``message``.
        params: everybody's.
        id_: the batch's id.
        people: notification id → user.
    """
    recipients = [{"id": id_, "user": user, "params": params} for id_, user in people.items()]
    return {**shared, "v": VERSION, "id": id_, "recipients": recipients}
