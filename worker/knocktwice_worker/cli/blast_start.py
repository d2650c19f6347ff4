"""``knocktwice blast start`` behind its options: who gets the values of a file, what it would cost, and the start."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from knocktwice import wire
from knocktwice_shared.messages import parse_blast
from knocktwice_worker.blasts import own_params, request, standing
from knocktwice_worker.cli import blast_people, params_file
from knocktwice_worker.cli.blast_preflight import Budget, examined
from knocktwice_worker.cli.output import reading
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from knocktwice_shared.messages import Blast


@dataclass(frozen=True, slots=True)
class Order:
    """A blast as the options ask for it.

    Attributes:
        segment: a saved segment.
        key: the blast's key.
        shared: what is said, when and to which project it belongs.
        values: values for the texts, the same for all.
        file: a CSV file with own values for each person; ``None``: there is none.
        per_minute: most people in any minute; ``None``: as fast as it goes.
        budget: the most that it may cost.
        preview: people for whom it is shown what they would get.
        dry_run: whether nothing is started.
    """

    segment: str
    key: str
    shared: wire.Shared
    values: Mapping[str, Any]
    file: Path | None
    per_minute: int | None
    budget: Budget
    preview: Sequence[str]
    dry_run: bool

    def blast(self, own: Mapping[str, str]) -> Blast:
        """Return the blast, checked with one person's own values."""
        values = {**self.values, **own}
        message = wire.blast(self.segment, self.shared, key=self.key, params=values, throttle_per_min=self.per_minute)
        return replace(parse_blast(message), params=self.values)


def carry_out(order: Order, *, quiet: bool) -> dict[str, Any]:
    """Start a blast, or show what it would do. Ends the command if that cannot be or is over the budget.

    Args:
        order: what is asked for.
        quiet: print nothing on the way.

    Returns:
        What is known now, as JSON: ``id``, ``key``, ``new`` and ``differs`` of a blast that was started, here or before.

    Raises:
        InvalidMessage: the blast is wrong, in the words of the options.
    """
    told: dict[str, Any] = {}
    with wire.in_callers_words(wire.with_steps(str, order.shared)), ExitStack() as stack:
        given = stack.enter_context(params_file.opened(order.file)) if order.file else None
        blast = order.blast(given.first if given else {})
        # One transaction: what the file says is there until it is decided about.
        conn = stack.enter_context(reading(services()))
        known = standing.of(conn, blast) is not None
        sample = None
        if given is not None and (order.dry_run or not known):
            sample, told["people"] = blast_people.gathered(conn, given, blast, quiet=quiet)
        if order.dry_run or (not known and order.budget.limited):
            each = blast if sample is None else request.filled(blast, sample)
            only = None if sample is None else own_params.people()
            told["preflight"] = examined(conn, each, order.budget, only, show=order.dry_run and not quiet)
        if order.preview:
            told["previews"] = [
                blast_people.preview(conn, blast, user, own=sample is not None, quiet=quiet) for user in order.preview
            ]
        if not order.dry_run:
            started = request.start(conn, blast, settings=services().settings, sample=sample)
            differs = not started.new and request.differs(conn, blast)
            conn.commit()
            told |= {"id": started.id, "key": order.key, "new": started.new, "differs": differs}
    return told
