"""Trials: what rules that are only watched would have stopped, beside the rules in force."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from knocktwice_worker.config import BrakeMode, PumpingMode, variable
from knocktwice_worker.lifecycle import Delay, Refusal, TextTrouble
from knocktwice_worker.notation import durations
from knocktwice_worker.notifications.store import trial_counts
from knocktwice_worker.projects.file import OwnBudget
from knocktwice_worker.switches import overrides

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from knocktwice_worker.config import Settings
    from knocktwice_worker.projects.file import OwnLimits, Project, Projects

#: What stops a message, in the words of the ledger → the settings that say when.
SETTINGS: dict[str, tuple[str, ...]] = {
    Refusal.CAPPED_DAILY: ("sms_per_day",),
    Refusal.DUPLICATE_CONTENT: ("sms_same_content_s",),
    Refusal.BUDGET_EXHAUSTED: (
        "sms_budget",
        "sms_budget_reserve",
        "sms_budget_transactional",
        "sms_budget_marketing",
        "sms_budget_critical",
    ),
    Delay.QUIET_HOURS: ("quiet_hours",),
    Refusal.COUNTRY_BLOCKED: ("sms_countries",),
    Refusal.INVALID_NUMBER: ("number_kinds",),
    Refusal.UNTEXTABLE: ("untextable_days",),
    Refusal.TOO_LATE: ("useless_after_critical_s", "useless_after_transactional_s", "useless_after_marketing_s"),
    Delay.BRAKE: ("brake", "brake_singles"),
    TextTrouble.PUMPING: ("pumping",),
}
#: Settings that say themselves whether they only watch.
_WATCHING: dict[str, object] = {
    "brake": BrakeMode.WATCH,
    "brake_singles": BrakeMode.WATCH,
    "pumping": PumpingMode.MONITOR,
}
#: Likewise of a project's own limits → the fields of the projects file.
OWN: dict[str, tuple[str, ...]] = {
    Refusal.CAPPED_DAILY: ("sms_per_day",),
    Refusal.DUPLICATE_CONTENT: ("sms_same_content",),
    Refusal.BUDGET_EXHAUSTED: tuple(f"budget.{name}" for name in OwnBudget.model_fields),
}
#: How far back it is counted.
LONGEST = trial_counts.KEPT


@dataclass(frozen=True, slots=True)
class Line:
    """A rule.

    Attributes:
        rule: what it stops messages as, in the words of the ledger.
        project: whose own limit it is; ``None``: it is the installation's.
        setting: the environment variables that say when; of a project the field of the projects file.
        in_force: their values.
        tried: the values that are only watched; empty: none.
        would_have_stopped: the messages that went and that the watched values would have stopped.
    """

    rule: str
    project: str | None
    setting: str
    in_force: str
    tried: str
    would_have_stopped: int

    @property
    def word(self) -> str:
        """Its name in the ledger."""
        return self.rule if self.project is None else f"{self.project}/{self.rule}"


@dataclass(frozen=True, slots=True)
class Report:
    """The messages that rules on trial would have stopped.

    Attributes:
        since: how far back it is counted.
        lines: each rule of the installation, and what projects try of their own.
        messages: the messages that went and that any of them would have stopped, each once.
    """

    since: timedelta
    lines: list[Line]
    messages: int

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "since_s": self.since.total_seconds(),
            "rules": [
                {
                    "rule": one.rule,
                    "project": one.project,
                    "setting": one.setting,
                    "in_force": one.in_force,
                    "tried": one.tried or None,
                    "would_have_stopped": one.would_have_stopped,
                }
                for one in self.lines
            ],
            "would_have_stopped": self.messages,
        }


def report(conn: Connection, settings: Settings, projects: Projects, since: timedelta) -> Report:
    """Return what the rules that are only watched would have stopped since a time.

    Args:
        settings: those of the environment; what operators have changed counts instead.
        projects: what projects have of their own.
        since: how far back; counted from the beginning of ten minutes.
    """
    now = overrides.in_force(conn, settings)
    counts = trial_counts.read(conn, since)
    lines = []
    for rule, names in SETTINGS.items():
        watched = [name for name in names if _tried(now, name)]
        shown = watched or list(names[:1])
        lines.append(
            Line(
                str(rule),
                None,
                ", ".join(map(variable, shown)),
                ", ".join(_said(name, _in_force(now, name)) for name in shown),
                ", ".join(_said(name, _tried(now, name)) for name in watched),
                counts.get(str(rule), 0),
            )
        )
    for name, one in sorted(projects.known.items()):
        lines += _own(name, one, counts)
    return Report(since, lines, counts.get(trial_counts.ANY, 0))


def _own(name: str, project: Project, counts: Mapping[str, int]) -> Iterator[Line]:
    """Yield what a project tries of its own limits."""
    in_force, tried = _fields(project), _fields(project.trial)
    for rule, fields in OWN.items():
        watched = [field for field in fields if tried[field]]
        if watched:
            yield Line(
                str(rule),
                name,
                ", ".join(watched),
                ", ".join(str(in_force[field] or "-") for field in watched),
                ", ".join(str(tried[field]) for field in watched),
                counts.get(f"{name}/{rule}", 0),
            )


def _fields(limits: OwnLimits) -> dict[str, object]:
    """Return field of the projects file → its value; what is off is false."""
    hold = limits.sms_same_content
    own = {"sms_per_day": limits.sms_per_day, "sms_same_content": hold and durations.written(hold)}
    return own | {f"budget.{name}": count for name, count in limits.budget.model_dump().items()}


def _in_force(settings: Settings, name: str) -> object:
    value: object = getattr(settings, name)
    return "" if value == _WATCHING.get(name) else value


def _tried(settings: Settings, name: str) -> object:
    if name not in _WATCHING:
        return getattr(settings.trial, name)
    value: object = getattr(settings, name)
    return value if value == _WATCHING[name] else ""


def _said(name: str, value: object) -> str:
    """Return a setting's value for people; what is off is a dash."""
    if isinstance(value, frozenset):
        return " ".join(sorted(map(str, value))) or "-"
    if not value:
        return "-"
    if isinstance(value, int | float) and name.endswith("_s"):
        return durations.written(timedelta(seconds=value))
    return f"{value} days" if name.endswith("_days") else f"{value:g}" if isinstance(value, float) else str(value)
