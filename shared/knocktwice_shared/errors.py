"""The errors an application can meet. The class says what to do next; the attributes hold the facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Most problems that one error names.
PROBLEMS_LIMIT = 100
#: Most problems in the text of one error.
_IN_TEXT = 20


class KnocktwiceError(Exception):
    """Root of every error this project raises."""


class InvalidMessage(KnocktwiceError, ValueError):
    """The input is wrong: mend the named field. Nothing was sent.

    Attributes:
        field: path of the offending field, for example ``recipients[3].phone``.
        problem: what is wrong with it and what would be right, in one sentence.
        others: the further problems of the same input. The text of the error names them, too.
    """

    def __init__(self, field: str, problem: str, *, others: Sequence[InvalidMessage] = ()) -> None:
        # A field name can come from outside; a NUL, a line break or half a surrogate pair in it would break whoever
        # stores or logs the error.
        self.field = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in field[:200])
        self.problem = problem
        self.others = tuple(others)
        named = "".join(f"; {one.field}: {one.problem}" for one in self.others[: _IN_TEXT - 1])
        more = len(self.others) - _IN_TEXT + 1
        super().__init__(f"{self.field}: {problem}{named}{f'; and {more} more' if more > 0 else ''}")

    @classmethod
    def of(cls, problems: Sequence[InvalidMessage]) -> InvalidMessage:
        """Return one error for these problems, of which there is at least one: the first of each field."""
        by_field: dict[str, InvalidMessage] = {}
        for one in problems:
            if len(by_field) < PROBLEMS_LIMIT:
                by_field.setdefault(one.field, one)
        first, *others = by_field.values()
        return InvalidMessage(first.field, first.problem, others=others)

    @property
    def problems(self) -> tuple[InvalidMessage, ...]:
        """All problems of the input, each with its ``field`` and ``problem``."""
        return (self, *self.others)

    def renamed(self, field: Callable[[str], str], problem: Callable[[str], str] | None = None) -> InvalidMessage:
        """Return the same problems in other words.

        Args:
            field: returns what to call a field.
            problem: returns how to say a problem; left out, as it is said.
        """
        say = problem or (lambda said: said)
        first, *others = (InvalidMessage(field(one.field), say(one.problem)) for one in self.problems)
        return InvalidMessage(first.field, first.problem, others=others)


class UnsupportedVersion(InvalidMessage):
    """The message speaks a contract version this side does not know: upgrade the older side."""


class BrokerUnavailable(KnocktwiceError, ConnectionError):
    """The broker did not accept the message in time: call again with the same ``key`` (or ids).

    The outcome is unknown when the connection broke half-way, so a repeat without a ``key`` may notify twice.
    """


class NotConfirmed(BrokerUnavailable):
    """The broker has the message, but has not confirmed in time that it keeps it as safely as the caller asked.

    The outcome is unknown: it is safe to call again with the same ``key`` (or ids). Without them, a repeat may notify
    twice.
    """


class QueueFull(BrokerUnavailable):
    """As many accepted messages wait in the broker as may wait there: call again later with the same ``key`` (or ids).

    Attributes:
        refused: ids of the messages that were not accepted; empty if none was. Receipts, cancellations and changes of
            people are accepted beyond the limit at which notifications are refused.
        retry_after_s: seconds after which another call is worth its while.
    """

    retry_after_s = 5

    def __init__(self, problem: str, refused: frozenset[str] = frozenset()) -> None:
        super().__init__(problem)
        self.refused = refused
