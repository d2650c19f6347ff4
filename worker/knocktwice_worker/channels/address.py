"""Kinds of addresses: each channel sends to one kind, and the kind knows how to find a person's address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knocktwice_worker.lifecycle import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Addressee:
    """The recipient of a step, with the facts that the decision has read anyway.

    Attributes:
        notification_id: the notification that the step belongs to.
        user: the application's id of the person; ``None`` for a person who was given inline.
        number: the person's phone number, given inline or bound to the user.
        params: the person's values for the text.
        step: the step as ``batches.plan`` keeps it; empty for the usual SMS.
    """

    notification_id: str
    user: str | None
    number: str | None
    params: Mapping[str, Any]
    step: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Address:
    """A kind of address.

    Attributes:
        kind: one word that names the kind.
        missing: the refusal for a person who has no such address.
        find: returns notification id → address, for the people who have one. It is called once for all steps of a batch
            that use the channel, in the transaction of the decision; one query for all of them is fine.
    """

    kind: str
    missing: Refusal
    find: Callable[[Connection, Sequence[Addressee]], Mapping[str, str]]

    @property
    def is_number(self) -> bool:
        """Whether it is a phone number. Opt-outs, countries and quiet hours are known by number."""
        return self is NUMBER


def _numbers(_: Connection, people: Sequence[Addressee]) -> Mapping[str, str]:
    return {person.notification_id: person.number for person in people if person.number is not None}


#: A phone number in E.164, as the notification or the user has it.
NUMBER = Address("number", Refusal.NO_PHONE, _numbers)
