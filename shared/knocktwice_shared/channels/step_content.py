"""The fields of a channel's steps, as data: the contract checks them, templates and the command line use them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The field of a text of its own. A step without one says what the content says.
TEXT = "text"
#: The field of the pictures and other files that go with a text.
MEDIA = "media"


class Kind(StrEnum):
    """The type of a field."""

    #: One text.
    TEXT = "text"
    #: Texts by name.
    TEXTS = "texts"
    #: Addresses of the web, one or more; a text alone is one.
    ADDRESSES = "addresses"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a step.

    Attributes:
        kind: what it holds.
        limit: most characters of a text in it.
        most: most addresses in it; only for :attr:`Kind.ADDRESSES`.
        required: whether a step must have it.
        filled: whether its texts may hold placeholders, which are filled for each person.
        localised: whether it may be given by locale; not for :attr:`Kind.TEXTS`.
        pattern: what its text must match as a whole; ``None``: any text.
        problem: what the complaint says of one that does not match.
        missing: what the command line says where it is missing, beside "is missing".
        help: what the interface's document says of it.
        label: what a preview calls it; empty: its name.
    """

    kind: Kind = Kind.TEXT
    limit: int = 1_600
    most: int = 1
    required: bool = False
    filled: bool = True
    localised: bool = False
    pattern: str | None = None
    problem: str = ""
    missing: str = ""
    help: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class StepContent:
    """The fields that a step of a channel has beside ``channel``, ``when``, ``after_s`` and ``sender``.

    Attributes:
        channel: its name in messages and rows.
        called: what people call the channel.
        fields: name → what it holds.
        hint: what to give instead of a field that belongs to another channel.
        first_field: the field that the command line takes after a colon, as in ``channel:VALUE``; ``None``: there is
            none.
    """

    channel: str
    called: str
    fields: Mapping[str, Field]
    hint: str
    first_field: str | None = None

    @property
    def speaks(self) -> bool:
        """Whether its steps say a text, and without one of their own what the content says."""
        return TEXT in self.fields
