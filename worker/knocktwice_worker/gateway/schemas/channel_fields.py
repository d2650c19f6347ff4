"""Fields that an answer has for each channel but SMS, whatever channels there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from pydantic.config import JsonDict

from knocktwice_worker.reporting.outcome_figures import other_channels

_TYPES: dict[str, JsonDict] = {
    "count": {"type": "integer"},
    "number": {"type": "number"},
    "money": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "countries": {"type": "array", "items": {"type": "string"}},
}


def of_channels(**fields: str) -> Callable[[JsonDict], None]:
    """Return what adds fields to a schema for each channel but SMS.

    Args:
        fields: type by name; ``channel`` in a name stands for the channel's.
    """

    def add(schema: JsonDict) -> None:
        properties = cast("dict[str, JsonDict]", schema["properties"])
        required = cast("list[str]", schema["required"])
        for channel in other_channels():
            for name, kind in fields.items():
                properties[name.replace("channel", channel)] = dict(_TYPES[kind])
                required.append(name.replace("channel", channel))

    return add
