"""Pumping, judged: do messages to a range of numbers go to people? Pure; no I/O.

Who pumps asks an application for messages (one-time passwords, mostly) to numbers whose operator shares the money. The
operator reports them as delivered, and nobody reads them. So three signs count: nobody answers although others do,
nothing arrives although it does elsewhere, or the numbers stand side by side as people's numbers never do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

#: A template that is usually answered by a smaller share cannot be said to be left unanswered.
_ANSWERS = 0.2
#: The same of reports that a message arrived.
_ARRIVES = 0.5
#: So many times fewer than usual are hardly any.
_FACTOR = 4
#: So many answers must be missing before it is strange.
_MISSING = 15
#: So many new numbers of a hundred are side by side. Of a country's numbers that are in use a wave hits one or two.
_OF_A_HUNDRED = 10


class Sign(StrEnum):
    """The signs of pumping."""

    #: Hardly anybody answers, and elsewhere people do.
    UNANSWERED = "unanswered"
    #: Hardly anything arrives, and elsewhere it does.
    UNDELIVERED = "undelivered"
    #: The numbers stand side by side, and none was texted before.
    CROWDED = "crowded"


@dataclass(frozen=True, slots=True)
class Numbers:
    """Messages of one template to a range of numbers.

    Attributes:
        prefix: the first digits of the numbers, behind a plus.
        template: the template; empty: none.
        project: the project; empty: none.
    """

    prefix: str
    template: str
    project: str

    def __str__(self) -> str:
        what = f"template {self.template}" if self.template else "messages without a template"
        whose = f" of project {self.project}" if self.project else ""
        return f"{what}{whose} to {self.prefix}…"


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Messages, and what became of them within two minutes.

    Attributes:
        messages: that providers took.
        settled: of these, those whose two minutes are over.
        answered, delivered: of these.
    """

    messages: int = 0
    settled: int = 0
    answered: int = 0
    delivered: int = 0

    def __sub__(self, part: Outcomes) -> Outcomes:
        """Return these without a part of them."""
        return Outcomes(
            self.messages - part.messages,
            self.settled - part.settled,
            self.answered - part.answered,
            self.delivered - part.delivered,
        )


@dataclass(frozen=True, slots=True)
class History:
    """Messages of one template.

    Attributes:
        now: in the window.
        before: in the days before.
    """

    now: Outcomes = Outcomes()
    before: Outcomes = Outcomes()

    def __sub__(self, part: History) -> History:
        """Return these without a part of them."""
        return History(self.now - part.now, self.before - part.before)


@dataclass(frozen=True, slots=True)
class Crowding:
    """How close to each other the numbers are that were never texted before.

    Attributes:
        numbers: how many.
        hundreds: how many different numbers they are without their last two digits.
    """

    numbers: int
    hundreds: int


@dataclass(frozen=True, slots=True)
class Record:
    """The facts about the messages to a range of numbers, and of the same template's to all others.

    Attributes:
        now: in the window.
        before: in the days before.
        others_now, others_before: to other numbers.
        crowding: how close the numbers are; ``None``: it does not matter, or was not asked.
    """

    now: Outcomes
    before: Outcomes = field(default_factory=Outcomes)
    others_now: Outcomes = field(default_factory=Outcomes)
    others_before: Outcomes = field(default_factory=Outcomes)
    crowding: Crowding | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Messages to a range of numbers that nobody seems to read.

    Attributes:
        sign: what gives it away.
        messages: how many it rests on.
        share: the share of them that nobody answered, or that did not arrive; with crowding, the share of new
            numbers that lie side by side.
        usual: what would be usual.
    """

    sign: Sign
    messages: int
    share: float
    usual: float


def may_be_crowded(record: Record, sample: int) -> bool:
    """Return whether it matters how close the numbers are to each other: they are many, and hardly anybody answers."""
    return record.now.messages >= crowded_from(sample) and not _people_answer(record, sample)


def crowded_from(sample: int) -> int:
    """Return from how many new numbers on they can be too close to each other."""
    return 2 * sample


def judge(record: Record, sample: int) -> Finding | None:
    """Return why messages to a range of numbers look like pumping; ``None``: they look like any others.

    Args:
        sample: the fewest messages from which anything can be told.
    """
    for sign, name, least in ((Sign.UNANSWERED, "answered", _ANSWERS), (Sign.UNDELIVERED, "delivered", _ARRIVES)):
        usual = _usual(record, name, sample)
        if usual is not None and usual >= least and _lacks(record, name, usual, sample):
            share = getattr(record.now, name) / record.now.settled
            return Finding(sign, record.now.settled, 1 - share, 1 - usual)
    near = record.crowding
    if near is None or near.numbers < crowded_from(sample) or near.numbers < _OF_A_HUNDRED * near.hundreds:
        return None
    if _people_answer(record, sample):
        return None
    return Finding(Sign.CROWDED, near.numbers, near.numbers / (100 * near.hundreds), 0.0)


def _rate(outcomes: Outcomes, name: str, sample: int) -> float | None:
    return getattr(outcomes, name) / outcomes.settled if outcomes.settled >= sample else None


def _usual(record: Record, name: str, sample: int) -> float | None:
    """Return the share that others answer, or that these numbers did before, whichever asks for less."""
    others = _rate(record.others_before, name, sample)
    if others is None:
        # A template of today: all that is known are its other people of now.
        others = _rate(record.others_now, name, sample)
    known = [rate for rate in (others, _rate(record.before, name, sample)) if rate is not None]
    return min(known, default=None)


def _lacks(record: Record, name: str, usual: float, sample: int) -> bool:
    now, others = _rate(record.now, name, sample), _rate(record.others_now, name, sample // 2)
    if now is None or now > usual / _FACTOR or record.now.settled * usual < _MISSING:
        return False
    # If nobody else answers either, the answers do not reach us: a fault of ours, and not these numbers'.
    return others is None or others > usual / 2


def _people_answer(record: Record, sample: int) -> bool:
    """Return whether enough of them answer to be people: a company whose numbers are side by side, for example."""
    rate = _rate(record.now, "answered", sample // 2)
    usual = _usual(record, "answered", sample)
    return rate is not None and rate >= max(0.05, (usual or 0) / _FACTOR)
