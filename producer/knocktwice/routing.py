"""Routing among cells: a call's messages are split, so that each part is about the people of one cell.

A cell that is away fails its own part of a call only: the other parts are handed over before the error is raised. An
opt-out goes to all cells, and counts as accepted when one has it, because that one tells the others as soon as it can
(``docs/cells.md``).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from knocktwice import address
from knocktwice.broker import KombuBroker
from knocktwice.drafts import Draft
from knocktwice_shared import cells as naming
from knocktwice_shared.errors import BrokerUnavailable, InvalidMessage
from knocktwice_shared.names import Task, scoped

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from knocktwice.durability import Asked
    from knocktwice.envelope import Outgoing
    from knocktwice.keys import NotificationId
    from knocktwice_shared.cells import Cell, Cells
    from knocktwice_shared.messages import Recipient

log = logging.getLogger("knocktwice")

Wire = dict[str, Any]
_OPT_OUTS = {"opt_out", "opt_in"}


@dataclass(slots=True)
class Part:
    """A draft's part for one cell.

    Attributes:
        cell: the cell.
        draft: a message of its own, with the id of the whole.
        places: of a batch: the places of its recipients in the whole.
        told: all cells are told the same, and each tells the others, so one that accepts is enough.
    """

    cell: Cell
    draft: Draft
    places: tuple[int, ...] = ()
    told: bool = False


class Router:
    """Sends to cells.

    Args:
        cells: the cells.
        timeout: seconds that each broker gets for each exchange.
        asked: what "accepted" means.
    """

    def __init__(self, cells: Cells, timeout: float, asked: Asked) -> None:
        self.cells = cells
        self._brokers = {cell.number: KombuBroker(address.find(cell.broker), timeout, asked) for cell in cells.all}

    def send(self, ready: Sequence[Draft]) -> list[NotificationId]:
        """Send messages, each to its cells, and return the notifications' ids.

        Raises:
            BrokerUnavailable: a cell did not accept its part. The others have theirs.
        """
        parts = [(draft, split(draft, self.cells)) for draft in ready]
        outcomes: list[tuple[Part, BrokerUnavailable | None]] = []
        for cell in self.cells.all:
            own = [part for _, of in parts for part in of if part.cell is cell]
            if own:
                error = self._send_to(cell, [part.draft for part in own])
                outcomes += [(part, error) for part in own]
        if (failed := failure(outcomes)) is not None:
            raise failed
        for draft, of in parts:
            collect(draft, of)
        return [id_ for draft in ready for id_ in draft.results()]

    def placed(self, recipients: Iterable[Recipient | str]) -> Iterable[Recipient | str]:
        """Return recipients, none of which brings an id of its own: among cells an id says whose it is.

        Raises:
            InvalidMessage: one does. Of a generator's it is raised when it comes to that one.
        """
        if isinstance(recipients, str | bytes) or not isinstance(recipients, Iterable):
            return recipients
        checked = map(_without_id, count(), recipients)
        return list(checked) if isinstance(recipients, Collection) else checked

    def close(self) -> None:
        """Close the connections."""
        for broker in self._brokers.values():
            broker.close()

    def _send_to(self, cell: Cell, drafts: Sequence[Draft]) -> BrokerUnavailable | None:
        broker = self._brokers[cell.number]
        try:
            proposals = {key: use for draft in drafts for key, use in draft.proposals().items()}
            if proposals:
                first = broker.claim_keys(proposals)
                for draft in drafts:
                    draft.adopt(first)
            broker.accept(message for draft in drafts for message in draft.outgoing())
        except BrokerUnavailable as error:
            return error
        return None


def routed(path: str | os.PathLike[str], timeout: float, asked: Asked) -> Router:
    """Return the router of a file of cells.

    Raises:
        KnocktwiceError: the file is wrong.
    """
    return Router(naming.read(Path(path)), timeout, asked)


def failure(outcomes: Iterable[tuple[Part, BrokerUnavailable | None]]) -> BrokerUnavailable | None:
    """Return the error of a call, if some part of it was not accepted and is not told by another cell."""
    told: dict[UUID, list[BrokerUnavailable | None]] = {}
    for part, error in outcomes:
        if not part.told:
            if error is not None:
                return error
        else:
            told.setdefault(part.draft.id, []).append(error)
    for errors in told.values():
        away = [error for error in errors if error is not None]
        if len(away) == len(errors):
            return away[0]
        for error in away:
            log.warning("another cell will be told by those that have it: %s", error)
    return None


def split(draft: Draft, cells: Cells) -> list[Part]:
    """Return the parts of a draft. Together they say what it says, and each is about one cell's people."""
    before = [part for one in draft.before for part in _split_audience(_opened(one), cells)]
    wire = draft.wire or json.loads(draft.encoded.message if draft.encoded else "{}")
    if draft.task is Task.SEND_PUSH:
        return _split_batch(draft, wire, cells, before)
    whole = replace(draft, wire=wire, encoded=None, before=[])
    if draft.task is Task.UPDATE_AUDIENCE:
        return _split_audience(whole, cells)
    if draft.task is Task.RECORD_EVENTS:
        return list(_by_id(whole, cells, "receipts", lambda one: UUID(one["notification"])))
    if draft.task is Task.CANCEL:
        return list(_split_cancellation(whole, cells))
    return [Part(cell, replace(whole, wire=_share(wire, cell, cells))) for cell in cells.all]


def collect(draft: Draft, parts: Sequence[Part]) -> None:
    """Write the parts' ids, and what is known of their keys, into the whole."""
    for part in parts:
        # A blast has one id in all cells, and no places.
        for place, id_ in zip(part.places, part.draft.ids, strict=bool(part.places)):
            draft.ids[place] = id_
        draft.repeated.update({part.places[place]: differs for place, differs in part.draft.repeated.items()})


def _without_id(place: int, one: Recipient | str) -> Recipient | str:
    if not isinstance(one, str) and getattr(one, "id", None) is not None:
        raise InvalidMessage(
            f"recipients[{place}].id", "is made by the library where there are cells; give a key instead"
        )
    return one


def _split_batch(draft: Draft, wire: Wire, cells: Cells, before: Sequence[Part]) -> list[Part]:
    owners: dict[int, list[int]] = {}
    for place, one in enumerate(wire["recipients"]):
        named = naming.person(one.get("user"), one.get("phone"), one.get("registrations") or ())
        owners.setdefault(cells.of(named).number, []).append(place)
    parts = [_part_of_batch(draft, wire, cell, owners[cell.number]) for cell in cells.all if cell.number in owners]
    # Changes about people go ahead of the batch, in the same step, wherever it concerns the batch's own people.
    with_batch = {part.cell.number: part.draft for part in parts}
    for said in before:
        if said.cell.number in with_batch:
            with_batch[said.cell.number].before += said.draft.outgoing()
        else:
            parts.append(replace(said, places=()))
    return parts


def _part_of_batch(draft: Draft, wire: Wire, cell: Cell, places: list[int]) -> Part:
    project = wire.get("project")
    recipients = [dict(wire["recipients"][place]) for place in places]
    ids = [cell.marked(draft.ids[place]) for place in places]
    for one, id_ in zip(recipients, ids, strict=True):
        one["id"] = str(id_)
    keys = {at: scoped(one["key"], project) for at, one in enumerate(recipients) if one.get("key") is not None}
    own = Draft(
        draft.id,
        draft.task,
        {**wire, "recipients": recipients},
        f"{len(ids)} notifications",
        ids,
        keys,
        places=places if draft.places is None else [draft.places[place] for place in places],
        cell=cell,
    )
    return Part(cell, own, tuple(places))


def _split_audience(draft: Draft, cells: Cells) -> list[Part]:
    """A device that is somebody's now is nobody's in all other cells; an opt-out holds in all."""
    parts, told = [], all(change["change"] in _OPT_OUTS for change in draft.wire["changes"])
    for cell in cells.all:
        changes = [own for change in draft.wire["changes"] if (own := _for_cell(change, cell, cells)) is not None]
        if changes:
            parts.append(Part(cell, _with(draft, {"changes": changes}), told=told))
    return parts


def _for_cell(change: Wire, cell: Cell, cells: Cells) -> Wire | None:
    user = change.get("user")
    if user is None or cells.of(naming.person(user, None, ())) is cell:
        return change
    if change["change"] == "register_device":
        return {"change": "unregister_device", "registration": change["registration"], "at": change["at"]}
    return None


def _by_id(draft: Draft, cells: Cells, field: str, id_of: Callable[[Any], UUID]) -> Iterator[Part]:
    """Yield to each cell what names its notifications, and what names those of an unknown cell."""
    owned = [(one, cells.of_id(id_of(one))) for one in draft.wire[field]]
    for cell in cells.all:
        own = [one for one, owner in owned if owner is None or owner.number == cell.number]
        if own:
            yield Part(cell, _with(draft, {field: own}))


def _split_cancellation(draft: Draft, cells: Cells) -> Iterator[Part]:
    """Yield the cancellation by keys to all cells, because a key does not say whose it is."""
    if draft.wire.get("keys") or draft.wire.get("blasts"):
        for cell in cells.all:
            own = [i for i in draft.wire["ids"] if (of := cells.of_id(UUID(i))) is None or of.number == cell.number]
            yield Part(cell, _with(draft, {"ids": own}))
    else:
        yield from _by_id(draft, cells, "ids", UUID)


def _share(wire: Wire, cell: Cell, cells: Cells) -> Wire:
    """Return a blast's message for a cell: a throttle is shared by the cells' slots."""
    throttle = wire.get("throttle_per_min")
    if throttle is None:
        return wire
    own = sum(owner == cell.number for owner in cells.slots)
    return {**wire, "throttle_per_min": max(1, throttle * own // len(cells.slots))}


def _with(draft: Draft, fields: Mapping[str, Any]) -> Draft:
    return replace(draft, wire={**draft.wire, **fields}, encoded=None, before=[], parsed=None)


def _opened(message: Outgoing) -> Draft:
    return Draft(message.id, message.task, json.loads(message.message), message.summary, [], {})
