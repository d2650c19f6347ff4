"""A check's answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """The result of a check."""

    #: It works.
    OK = "ok"
    #: It works, and somebody should look at it.
    WARNING = "warning"
    #: It does not work.
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Check:
    """One answer.

    Attributes:
        name: what was looked at.
        finding: what there is, or what is wrong and what would mend it.
    """

    name: str
    level: Level
    finding: str


#: What a check finds.
Finding = tuple[Level, str]
