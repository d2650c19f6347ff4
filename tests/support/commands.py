"""What a command line said."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Said(NamedTuple):
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The output, decoded."""
        return json.loads(self.out)
