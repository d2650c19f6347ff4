"""The answer of a command line: its exit code and what it printed."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class CommandOutput(NamedTuple):
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The output, decoded."""
        return json.loads(self.out)
