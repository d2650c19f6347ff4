"""Records: small values that are made in great numbers, such as one for each message of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[_T]) -> type[_T]:
    """Make a dataclass that the type checker takes for frozen, with slots.

    At run time its fields can be set, and nothing but its own ``__init__`` does. A frozen dataclass takes several times
    as long to make, because Python looks up ``object.__setattr__`` and calls it for each field. Use it where a batch
    makes hundreds of them; everything that applications see stays ``dataclass(frozen=True)``.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
