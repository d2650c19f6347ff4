"""The questions to the limits and their answers, and what the limits are."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

from knocktwice_shared.messages import Category
from knocktwice_shared.records import record
from knocktwice_shared.test_side import MARK, is_test, real_side
from knocktwice_worker.limits.budget import Budget

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any
    from zoneinfo import ZoneInfo

    from knocktwice_worker.lifecycle import Delay, Refusal
    from knocktwice_worker.limits.budget import Spent

#: The level whose answer is only noted: the limits that are tried. No project can have this name.
TRIAL = "?trial"
#: What the levels begin with that are tried of a project's own limits; the project's name follows.
_OWN_TRIAL = f"{TRIAL}:"

#: One hash tag for all keys: Redis Cluster runs a script on one slot only.
TAG = "{knocktwice:sms}"


def own_trial(project: str) -> str:
    """Return the level of what is tried of a project's own limits."""
    return _OWN_TRIAL + project


def tries(level: str | None) -> bool:
    """Whether a level stops nothing, and its answer is only noted."""
    return level is not None and level.startswith(TRIAL)


def project_of(level: str | None) -> str | None:
    """Return whose messages a level counts; ``None``: those of all."""
    return None if level is None or level == TRIAL else level.removeprefix(_OWN_TRIAL)


@record
class Ask:
    """A question to the limits: may this message go to this number now?

    Attributes:
        notification_id: the notification that the message belongs to.
        number: the recipient's number in E.164.
        fingerprint: the hash of the text.
        parts: the SMS parts that count for the budget. Messages of other channels have 0.
        category: the category whose budget the parts count for.
        channel: the message's channel; each channel is counted separately.
        step: the message's step; each step of a notification is counted separately.
        project: the project that sends it; its own limits count besides those of the installation. A test has counters
            of its own, and no budget.
    """

    notification_id: str
    number: str
    fingerprint: bytes
    parts: int = 1
    category: Category = Category.TRANSACTIONAL
    channel: str = "sms"
    step: int = 1
    project: str | None = None

    @property
    def id(self) -> str:
        """The message's id in the counters; ``budget.COUNTED_ID`` is the same in SQL."""
        return self.notification_id if self.step == 1 else f"{self.notification_id}.{self.step}"

    @property
    def address(self) -> str:
        """The address that the message is counted against: the number; for other channels than SMS with their name.

        That of a test is another one, so that no test uses up what a person may get.
        """
        address = self.number if self.channel == "sms" else f"{self.channel}:{self.number}"
        return f"{MARK}:{address}" if self.test else address

    @property
    def test(self) -> bool:
        """Whether it is a test, which no provider gets."""
        return is_test(self.project)

    @property
    def level(self) -> str | None:
        """The project whose own limits hold."""
        return real_side(self.project)

    @property
    def paid_parts(self) -> int:
        """The parts that the budget counts: none of a test, which costs nothing."""
        return 0 if self.test else self.parts


@record
class Own:
    """The answer of the limits that a message's project has of its own.

    Attributes:
        project: the project's name.
        refused: it is these limits that refuse the message.
        today: the project's messages to the address today, this one included if it may go.
        spent: the used parts of the project's budget; ``None``: it has none of its own.
    """

    project: str
    refused: bool
    today: int
    spent: Spent | None = None


@record
class Answer:
    """The answer of the limits about one message.

    Attributes:
        refusal: why the message may not go, or not now; ``None``: it may go.
        today: the number of messages to its address today, this one included if it may go.
        spent: the used parts of the day's budget; ``None``: there is no budget.
        own: what the own limits of the message's project say; ``None``: it has none.
        trial: why the limits that are tried would have stopped a message that goes; ``None``: they would not.
        own_trial: likewise what the message's project tries of its own limits.
    """

    refusal: Refusal | Delay | None
    today: int
    spent: Spent | None = None
    own: Own | None = None
    trial: Refusal | None = None
    own_trial: Refusal | None = None

    def inputs(self, ask: Ask, limits: Limits) -> dict[str, Any]:
        """Return the figures that the ledger keeps with the decision."""
        inputs = _figures(ask, self.today, self.spent, limits.budget)
        if self.own is not None:
            figures = _figures(ask, self.own.today, self.own.spent, limits.projects[self.own.project].budget)
            inputs["project"] = {"name": self.own.project, "refused": self.own.refused, **figures}
        return inputs


def _figures(ask: Ask, today: int, spent: Spent | None, of: Budget) -> dict[str, Any]:
    figures: dict[str, Any] = {"sms_today": today}
    if spent:
        figures |= {
            "parts": ask.parts,
            "spent_today": {"total": spent.total, ask.category: spent.category},
            "budget": {"total": of.total, "reserve": of.reserve, ask.category: of.categories.get(ask.category, 0)},
        }
    return figures


@dataclass(frozen=True, slots=True)
class ProjectLimits:
    """Limits that count besides those of the installation: a project's own, or those that are tried.

    ``0``: no such limit.

    Attributes:
        per_day: the most SMS to one number per calendar day.
        same_content: the time within which one text goes to one number only once.
        budget: the allowed SMS parts per day.
    """

    per_day: int = 0
    same_content: timedelta = timedelta()
    budget: Budget = field(default_factory=Budget)

    def __bool__(self) -> bool:
        """Whether anything is limited."""
        return bool(self.per_day or self.same_content or self.budget)


@dataclass(frozen=True, slots=True)
class Limits:
    """The configured limits. ``0`` switches a limit off.

    Attributes:
        per_day: the most SMS to one number per calendar day.
        same_content: the time within which one text goes to one number only once.
        zone: the time zone of the calendar day.
        secret: the key of the HMAC over numbers.
        budget: the allowed SMS parts per day.
        projects: project → its own limits, of the projects that have some. They count only the project's messages.
        trial: the limits that are tried. They count all messages that they would let go, and stop none.
        own_trials: likewise project → what is tried of its own limits, of the projects that try some.
    """

    per_day: int
    same_content: timedelta
    zone: ZoneInfo
    secret: bytes
    budget: Budget = field(default_factory=Budget)
    projects: Mapping[str, ProjectLimits] = field(default_factory=dict)
    trial: ProjectLimits = field(default_factory=ProjectLimits)
    own_trials: Mapping[str, ProjectLimits] = field(default_factory=dict)

    @property
    def longest_hold(self) -> timedelta:
        """The longest time within which any limit takes two texts for one."""
        return max(self.same_content, *(own.same_content for own in self.projects.values()), timedelta())

    def level(self, project: str | None) -> Limits | ProjectLimits:
        """Return the limits of one level: of a project, of a trial, or with ``None`` of the installation."""
        if project == TRIAL:
            return self.trial
        if project is not None and tries(project):
            return self.own_trials[project.removeprefix(_OWN_TRIAL)]
        return self if project is None else self.projects[project]

    def levels(self, ask: Ask) -> tuple[str | None, ...]:
        """Return the levels that count a message: the installation, a project with own limits, and limits on trial."""
        own = (None, ask.level) if ask.level in self.projects else (None,)
        tried = (TRIAL,) if self.trial else ()
        if ask.level is not None and ask.level in self.own_trials:
            tried = (*tried, own_trial(ask.level))
        return (*own, *tried)

    def day(self, now: datetime) -> tuple[str, datetime, datetime]:
        """Return the calendar day of ``now``: its name, its first moment and the next day's, in UTC.

        A day has 23 or 25 hours when the clocks change. If the change skips midnight, the day begins at the change.
        """
        today = now.astimezone(self.zone).date()
        start, end = (
            datetime.combine(date, time(), tzinfo=self.zone).astimezone(UTC)
            for date in (today, today + timedelta(days=1))
        )
        return today.isoformat(), start, end

    def keys(self, ask: Ask, day: str, project: str | None = None) -> tuple[str, str]:
        """Return the two Redis keys of an ask: the holder of its content, and the set of the day's messages.

        Args:
            project: the level: a project's or the trial's; ``None`` is the installation's.
        """
        number = hmac.new(self.secret, ask.address.encode(), hashlib.sha256).hexdigest()[:32]
        of = "" if project is None else f":{project}"
        return f"{TAG}:content:{number}:{ask.fingerprint.hex()}{of}", f"{TAG}:day:{number}:{day}{of}"

    def budget_key(self, day: str, project: str | None = None) -> str:
        """Return the Redis key of the day's budget of the installation, of a project or of the trial."""
        return f"{TAG}:budget:{day}" if project is None else f"{TAG}:budget:{day}:{project}"
