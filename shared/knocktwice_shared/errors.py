"""The errors an application can meet. The class says what to do next; the attributes hold the facts."""

from __future__ import annotations


class KnocktwiceError(Exception):
    """Root of every error this project raises."""


class InvalidMessage(KnocktwiceError, ValueError):
    """The input is wrong: mend the named field. Nothing was sent.

    Attributes:
        field: path of the offending field, for example ``recipients[3].phone``.
        problem: what is wrong with it and what would be right, in one sentence.
    """

    def __init__(self, field: str, problem: str) -> None:
        # A field name can come from outside; a NUL, a line break or half a surrogate pair in it would break whoever
        # stores or logs the error.
        self.field = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in field[:200])
        super().__init__(f"{self.field}: {problem}")
        self.problem = problem


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
