"""Where messages go: each channel has a kind of address, and the kind knows how an address is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knocktwice_worker.lifecycle import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Addressee:
    """Whom a step is for, as far as the rows say that are read for the decision anyway.

    Attributes:
        notification_id: whose step it is.
        user: the application's id of the person; ``None`` for somebody given inline.
        number: the person's phone number, given inline or bound to the user.
        params: the person's values.
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
        kind: one word.
        missing: why nothing goes to somebody who has none.
        find: returns notification id → address, of those who have one. It is called once for all steps of a batch that go
            over the channel, in the transaction of the decision; one query for all of them is fine.
    """

    kind: str
    missing: Refusal
    find: Callable[[Connection, Sequence[Addressee]], Mapping[str, str]]

    @property
    def is_number(self) -> bool:
        """Whether it is a phone number. Opt-outs, countries and the hours of the day are known by numbers."""
        return self is NUMBER


def _numbers(_: Connection, people: Sequence[Addressee]) -> Mapping[str, str]:
    return {person.notification_id: person.number for person in people if person.number is not None}


#: A phone number in E.164, as the notification or the user has it.
NUMBER = Address("number", Refusal.NO_PHONE, _numbers)
