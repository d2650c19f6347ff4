"""``blast``: one notification to everybody in a segment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import checks
from knocktwice_shared.messages.notifications import SHARED_FIELDS, parse_batch
from knocktwice_shared.messages.problems import all_at_once, attempt, fail
from knocktwice_shared.names import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_shared.messages.notifications import Batch

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
        project: the application to which it belongs; ``None``: to none. It stands in ``message``, too.
    """

    key: str
    segment: str | None
    filter: Mapping[str, Any] | None
    message: Mapping[str, Any]
    params: Mapping[str, Any] | Sequence[Any]
    throttle_per_min: int | None
    template: str | None
    project: str | None = None


@all_at_once
def parse_blast(wire: object) -> Blast:
    """Validate a ``blast`` message. Raises like :func:`parse_batch`.

    Whether there is such a segment or template, and whether the filter is one, only a worker knows.
    """
    own = {"v", "key", "segment", "filter", "params", "throttle_per_min"}
    message = checks.versioned(wire, own | SHARED_FIELDS)
    if ("segment" in message) == ("filter" in message):
        fail("segment", "or filter must be there, and not both: who is it for?", None)
    shared = {name: value for name, value in message.items() if name not in own}
    params = message.get("params", {})
    batch = attempt(_as_for_one, None, shared, params)
    per_min = message.get("throttle_per_min")
    if per_min is not None and (type(per_min) is not int or not 1 <= per_min <= THROTTLE_LIMIT):
        per_min = fail("throttle_per_min", f"must be a whole number of people, 1 to {THROTTLE_LIMIT}", None)
    return Blast(
        key=checks.text(message.get("key"), "key", 200),
        segment=checks.text(message["segment"], "segment", SEGMENT_NAME_LIMIT) if "segment" in message else None,
        filter=checks.json_object(message["filter"], "filter") if "filter" in message else None,
        message=shared,
        params=params,
        throttle_per_min=per_min,
        template=None if batch is None else batch.template,
        project=None if batch is None else batch.project,
    )


def _as_for_one(shared: Mapping[str, Any], params: object) -> Batch | None:
    """Check what all have in common as for one of them."""
    nobody = str(UUID(int=0))
    try:
        return parse_batch(blast_batch(shared, params, nobody, {nobody: "somebody"}))
    except InvalidMessage as error:
        raise error.renamed(lambda field: field.removeprefix("recipients[0].")) from None


def blast_batch(
    shared: Mapping[str, Any],
    params: object,
    id_: str,
    people: Mapping[str, str],
    own: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the ``send_push`` message for some people of a blast.

    Args:
        shared: the blast's ``message``.
        params: everybody's.
        id_: the batch's id.
        people: notification id → user.
        own: user → values beside everybody's; ``None``: nobody has any. Then ``params`` are by name.
    """
    recipients = [
        {"id": id_, "user": user, "params": params if own is None else {**_by_name(params), **own[user]}}
        for id_, user in people.items()
    ]
    return {**shared, "v": VERSION, "id": id_, "recipients": recipients}


def _by_name(params: object) -> dict[str, Any]:
    if isinstance(params, list | tuple):
        return {str(place): value for place, value in enumerate(params, 1)}
    return dict(params) if isinstance(params, Mapping) else {}
