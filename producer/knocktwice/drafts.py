"""Messages that the contract's validator has accepted and that have not left yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from knocktwice import wire
from knocktwice.envelope import Outgoing
from knocktwice.identity import by_address, introductions
from knocktwice.keys import NotificationId, Use, digests
from knocktwice_shared.counted import many
from knocktwice_shared.ids import blast_id, uuid7
from knocktwice_shared.messages import parse_audience, parse_batch, parse_blast, parse_cancellation, parse_receipts
from knocktwice_shared.messages.blasts import blast_batch
from knocktwice_shared.messages.braces import templates, unclosed
from knocktwice_shared.messages.problems import all_at_once, attempt, fail
from knocktwice_shared.names import BATCH_LIMIT, Task, scoped
from knocktwice_shared.test_side import is_test

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from knocktwice_shared.cells import Cell
    from knocktwice_shared.messages import Batch, Receipt, ReceiptEvent, Recipient


@dataclass(slots=True)
class Draft:
    """A valid message.

    Args:
        id: the message's id.
        task: who gets it.
        wire: the message; it changes only when keys were used before.
        summary: what may be shown of it.
        ids: a batch's notification ids, in the recipients' order.
        keys: idempotency keys, by the recipient's place, as :func:`~knocktwice_shared.names.scoped` returns them.
        before: messages that go ahead of it, in the same step.
        encoded: what goes out, once it is sealed; then ``wire`` is empty.
        parsed: a batch as the validator read it, until it is sealed.
        places: which recipients of a request these are, where others are left out; the ids follow from them.
        uses: what each of the keys is used for, by the recipient's place.
        cell: whose people all of its recipients are, where there are cells; the ids carry its number.
        repeated: places of the recipients whose key was used before, once that is known, and whether that notification
            says something else.
    """

    id: UUID
    task: Task
    wire: wire.Wire
    summary: str
    ids: list[UUID]
    keys: dict[int, str]
    before: list[Outgoing] = field(default_factory=list)
    encoded: Outgoing | None = None
    parsed: Batch | None = None
    places: Sequence[int] | None = None
    uses: dict[int, Use] = field(default_factory=dict)
    repeated: dict[int, bool] = field(default_factory=dict)
    cell: Cell | None = None

    def seal(self) -> None:
        """Encode it once nothing can change it any more: as text it needs a fraction of the memory."""
        self.parsed = None
        if not self.keys:
            self.encoded = Outgoing.encode(self.id, self.task, self.wire, self.summary)
            self.wire = {}

    def keys_from(self, number: int) -> Iterator[tuple[int, str]]:
        """Yield the keys by their recipient's place in the call, of which this is the ``number``-th message."""
        return ((number * BATCH_LIMIT + place, key) for place, key in self.keys.items())

    def proposals(self) -> dict[str, Use]:
        """Return what each key is used for if this is its first use."""
        if not self.keys:
            return {}
        said = digests(self.wire)
        self.uses = {place: Use(self.ids[place], said[place]) for place in self.keys}
        return {key: self.uses[place] for place, key in self.keys.items()}

    def adopt(self, first: Mapping[str, Use]) -> None:
        """Take over the ids that the keys were first used for."""
        for place, use in self.uses.items():
            known = first[self.keys[place]]
            if self.ids[place] != known.id:
                self.repeated[place] = use.differs(known)
            self.ids[place] = known.id
            self.wire["recipients"][place]["id"] = str(known.id)

    def results(self) -> list[NotificationId]:
        """Return the ids, and of each whether its key was used before."""
        repeated = self.repeated
        return [
            NotificationId(id_, duplicate=place in repeated, differs=repeated.get(place, False))
            for place, id_ in enumerate(self.ids)
        ]

    def outgoing(self) -> list[Outgoing]:
        """Return it, encoded, behind what goes ahead of it."""
        return [*self.before, self.encoded or Outgoing.encode(self.id, self.task, self.wire, self.summary)]


@all_at_once
def notifications(recipients: Sequence[Recipient | str], shared: wire.Shared) -> Draft:
    """Draft and check a ``send_push`` batch, as far as that is possible without the workers' templates and settings."""
    draft = batch(wire.batch(recipients, shared))
    if draft.parsed is not None:
        _require_closed(draft.parsed)
    return draft


def batch(message: wire.Wire) -> Draft:
    """Check a ``send_push`` message. What its recipients say of users beside their ids goes ahead of it."""
    before = [
        Outgoing.encode(uuid7(), Task.UPDATE_AUDIENCE, said, many(len(said["changes"]), "change"))
        for said in _introductions(message)
    ]
    parsed = parse_batch(message)
    ids = [r.id for r in parsed.recipients if r.id is not None]
    project = parsed.project
    keys = {place: scoped(r.key, project) for place, r in enumerate(parsed.recipients) if r.key is not None}
    refuse_repeated(keys)
    return Draft(parsed.id, Task.SEND_PUSH, message, f"{len(ids)} notifications", ids, keys, before, parsed=parsed)


def _introductions(message: wire.Wire) -> list[wire.Wire]:
    """Return what the recipients say of users beside their ids.

    Of a test it is checked, and not said: they may be real.
    """
    project, recipients = message.get("project"), message["recipients"]
    if not (isinstance(project, str) and is_test(project)):
        return attempt(introductions, [], recipients)
    attempt(introductions, [], [dict(one) if isinstance(one, dict) else one for one in recipients])
    by_address(recipients)
    return []


def refuse_repeated(keys: Mapping[int, str]) -> None:
    """Refuse two recipients with one key: of two people with one key only the first would be notified.

    Raises:
        InvalidMessage: there are some; all are named by their places.
    """
    if len(set(keys.values())) == len(keys):
        return
    first: dict[str, int] = {}
    for place, key in keys.items():
        if (before := first.setdefault(key, place)) != place:
            fail(f"recipients[{place}].key", f"is that of recipients[{before}], too; one key notifies one person", None)


def receipts(events: Sequence[ReceiptEvent]) -> Draft:
    """Draft and check a ``record_events`` message."""
    return _receipts([wire.receipt_of(event, place) for place, event in enumerate(events)])


def receipt(kind: Receipt, notification: UUID | str, *, registration: str | None, at: datetime | None) -> Draft:
    """Draft and check a ``record_events`` message of one receipt."""
    return _receipts([wire.receipt(kind, notification, registration, wire.moment(at))])


@all_at_once
def blast(message: wire.Wire) -> Draft:
    """Check a ``blast`` message."""
    parsed = parse_blast(message)
    key = parsed.key
    nobody = str(UUID(int=0))
    _require_closed(parse_batch(blast_batch(parsed.message, parsed.params, nobody, {nobody: "somebody"})))
    id_ = blast_id(key, parsed.project)
    return Draft(id_, Task.BLAST, message, "a blast", [id_], {})


def _require_closed(batch: Batch) -> None:
    """Refuse braces that are never closed; workers would only find out after the call."""
    for path, text in templates(batch):
        if (problem := unclosed(text)) is not None:
            fail(path, problem, None)


def cancellation(
    ids: Sequence[UUID | str], keys: Sequence[str], blasts: Sequence[str] = (), project: str | None = None
) -> Draft:
    """Draft and check a ``cancel`` message."""
    message = wire.cancellation(ids, keys, blasts, project)
    parse_cancellation(message)
    return _draft(Task.CANCEL, message, many(len(ids) + len(keys) + len(blasts), "cancellation"))


def audience(change: str, **fields: object) -> Draft:
    """Draft and check an ``update_audience`` message of one change."""
    message = wire.audience(change, **fields)
    parse_audience(message)
    return _draft(Task.UPDATE_AUDIENCE, message, "1 changes")


def _receipts(parts: list[wire.Wire]) -> Draft:
    message = wire.receipts(parts)
    parse_receipts(message)
    return _draft(Task.RECORD_EVENTS, message, many(len(parts), "receipt"))


def _draft(task: Task, message: wire.Wire, summary: str) -> Draft:
    return Draft(uuid7(), task, message, summary, [], {})
