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
