"""The operators' file of projects, ``KNOCKTWICE_PROJECTS_FILE``, checked before any process starts.

``docs/projects.md`` explains each field. All mistakes are told at once, each with its line.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, model_validator

from knocktwice_shared.channels import SMS, whatsapp
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import Category, checks, senders
from knocktwice_shared.test_side import real_side
from knocktwice_worker.limits.asks import ProjectLimits
from knocktwice_worker.limits.budget import Budget
from knocktwice_worker.notation import declared_model, durations
from knocktwice_worker.notation.declared_yaml import Unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The longest time between two equal texts of a project to one number: the counters are kept for a day.
_LONGEST_HOLD = timedelta(days=1)
#: The most projects of a file.
_MOST = 500
#: pydantic's name of a mistake → what to do about it.
_REMEDIES = {
    "extra_forbidden": "is not a field here; docs/projects.md lists them",
    "missing": "is missing: the file begins with 'projects:', and the name of each stands below it",
    "string_type": "must be a text; put it in quotes",
    "model_type": "must be an object: fields and their values, indented",
    "dict_type": "must be an object: the name of each project, and its fields below it",
    "int_type": "must be a whole number, 0 or more, without quotes",
    "int_from_float": "must be a whole number, 0 or more, without quotes",
}


class ProjectFileError(ValueError):
    """The file is missing or has wrong values. The message has one line for each, with its place and the fix."""


def _span(value: object) -> timedelta:
    return durations.parse(value, _LONGEST_HOLD)


def _name(value: str) -> str:
    try:
        return checks.project(value)
    except InvalidMessage as error:
        raise ValueError(str(error).partition(": ")[2]) from None


def _sender(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError('must be a text: put it in quotes, like "+16505550100"')
    return senders.sender(value, ids=True)


def _whatsapp(value: object) -> str:
    sender = _sender(value.removeprefix("whatsapp:") if isinstance(value, str) else value)
    if not sender.startswith(("+", "MG")):
        raise ValueError("must be a number in E.164, like +16505550100, or a Messaging Service (MG…)")
    return sender


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


_Count = Annotated[StrictInt, Field(ge=0, le=2_000_000_000)]
_Sender = Annotated[str, BeforeValidator(_sender)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OwnBudget(_Strict):
    """A project's budget in SMS parts per calendar day; 0: no limit."""

    #: All categories together.
    total: _Count = 0
    #: The last parts of the total, which only critical messages may use.
    reserve: _Count = 0
    #: Transactional messages alone.
    transactional: _Count = 0
    #: Marketing alone.
    marketing: _Count = 0
    #: Critical messages alone.
    critical: _Count = 0

    @model_validator(mode="after")
    def _reserve_is_part_of_the_total(self) -> Self:
        if self.reserve > self.total:
            raise ValueError("reserve must not be more than total, of which it is a part")
        return self

    def limits(self) -> Budget:
        """Return the budget as the limits count it."""
        return Budget(self.total, self.reserve, {category: getattr(self, category.value) for category in Category})


class OwnLimits(_Strict):
    """Limits that count a project's messages besides those of the installation."""

    #: Its SMS to one number per calendar day; 0: no limit of its own.
    sms_per_day: _Count = 0
    #: Its same text to one number only once in this time; 0: no limit of its own.
    sms_same_content: Annotated[timedelta, BeforeValidator(_span)] = timedelta()
    #: Its SMS parts per calendar day.
    budget: OwnBudget = OwnBudget()

    @property
    def limits(self) -> ProjectLimits:
        """The same as the limits count them."""
        return ProjectLimits(self.sms_per_day, self.sms_same_content, self.budget.limits())


class Project(OwnLimits):
    """The senders, limits and trial that one project has of its own."""

    #: Its senders of SMS, the usual one first.
    senders: Annotated[tuple[_Sender, ...], BeforeValidator(_listed), Field(max_length=50)] = ()
    #: Its sender on WhatsApp.
    whatsapp_sender: Annotated[str, BeforeValidator(_whatsapp)] | None = None
    #: Stricter limits that are only watched.
    trial: OwnLimits = OwnLimits()

    def sender(self, channel: str) -> str | None:
        """Return the usual sender of a channel; ``None``: the installation's."""
        if channel == SMS:
            return next(iter(self.senders), None)
        return self.whatsapp_sender if channel == whatsapp.CONTENT.channel else None

    @property
    def all_senders(self) -> tuple[str, ...]:
        """The senders of all channels."""
        return self.senders if self.whatsapp_sender is None else (*self.senders, self.whatsapp_sender)


class _File(_Strict):
    projects: Annotated[dict[Annotated[str, AfterValidator(_name)], Project], Field(min_length=1, max_length=_MOST)]


class Projects:
    """The projects that have something of their own.

    Args:
        known: name → project.
        shared: the senders of the installation, which belong to no project even if one names them, too.
    """

    def __init__(self, known: Mapping[str, Project] | None = None, shared: frozenset[str | None] = frozenset()) -> None:
        self.known = dict(known or {})
        named = Counter(own for one in self.known.values() for own in {_bare(s) for s in one.all_senders})
        common = {_bare(sender) for sender in shared if sender} | {own for own, count in named.items() if count > 1}
        self._owners = {
            own: name for name, one in self.known.items() for own in map(_bare, one.all_senders) if own not in common
        }

    @property
    def limits(self) -> dict[str, ProjectLimits]:
        """Project → its own limits, of the projects that have some."""
        return {name: limits for name, one in self.known.items() if (limits := one.limits)}

    @property
    def trials(self) -> dict[str, ProjectLimits]:
        """Project → what it tries of its own limits, of the projects that try some."""
        return {name: limits for name, one in self.known.items() if (limits := one.trial.limits)}

    @property
    def owners(self) -> dict[str, str]:
        """Sender → the project that alone has it; a number stands there with and without its plus sign."""
        return self._owners | {f"+{own}": name for own, name in self._owners.items() if own.isdecimal()}

    def sender(self, project: str | None, channel: str) -> str | None:
        """Return the project's usual sender of a channel, also for its tests; ``None``: it has none of its own."""
        one = self.known.get(real_side(project) or "")
        return None if one is None else one.sender(channel)

    def owner(self, sender: str | None) -> str | None:
        """Return the project that alone has a sender; ``None``: it is shared, or no project's."""
        return None if sender is None else self._owners.get(_bare(sender))

    def may_use(self, project: str | None, sender: str | None) -> bool:
        """Whether a message may go from a sender that it names: not if that is another project's alone."""
        owner, project = self.owner(sender), real_side(project)
        return project is None or owner is None or owner == project


def _bare(sender: str) -> str:
    """Return a sender in one spelling: providers write numbers with and without a plus."""
    bare = sender.strip().removeprefix("whatsapp:")
    digits = bare.removeprefix("+")
    return digits if digits.isdecimal() else bare.casefold()


def read(path: str) -> dict[str, Project]:
    """Read the file, YAML or JSON, and return name → project.

    Raises:
        ProjectFileError: the file cannot be read, or values are wrong.
    """
    try:
        _, file = declared_model.read(path, _File, _REMEDIES, names=[1])
    except Unreadable as error:
        raise ProjectFileError(str(error)) from None
    return file.projects
