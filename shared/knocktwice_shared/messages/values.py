"""The parts of messages: categories, pushes, steps, and the times at which they go."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from knocktwice_shared.channels import CONTENTS, SMS, Kind, sms
from knocktwice_shared.channels.step_content import TEXT
from knocktwice_shared.errors import InvalidMessage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


#: FCM refuses a payload above 4,096 bytes; our own ids and tags take the rest.
PUSH_BYTES_LIMIT = 3_900


#: Providers refuse a body above so many characters.
SMS_CHARS_LIMIT = sms.CHARS_LIMIT


#: FCM keeps an undelivered push for four weeks at most.
TTL_LIMIT = timedelta(days=28)
#: The longest time for which a message may be of use after it was due.
VALID_FOR_LIMIT = timedelta(days=30)


#: Longest fallback delay.
AFTER_LIMIT = timedelta(days=30)


#: Steps of a plan.
STEPS_LIMIT = 10


#: A template's name.
TEMPLATE_NAME_LIMIT = 100


#: Local times a day away from the ends of the calendar: any zone can tell which moment they are.
EARLIEST, LATEST = datetime(1, 1, 3), datetime(9999, 12, 29)  # noqa: DTZ001 - local times have no zone


class When(StrEnum):
    """The condition under which the next knock is due."""

    NOTIFICATIONS_DISABLED = "notifications_disabled"
    NOT_DELIVERED = "not_delivered"
    NOT_CLICKED = "not_clicked"


#: Tencent's ``trigger_condition`` numbers, accepted wherever ``when`` is.
TENCENT_CONDITIONS = (When.NOTIFICATIONS_DISABLED, When.NOT_DELIVERED, When.NOT_CLICKED)


class Category(StrEnum):
    """Why a message is sent. It decides consent, quiet hours and what happens when an outcome is unknown."""

    TRANSACTIONAL = "transactional"
    MARKETING = "marketing"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Push:
    """The content of a push. ``title`` and ``body`` may have ``{{ name }}`` placeholders, filled from ``params``.

    Args:
        title: first line.
        body: the text.
        data: handed to the app, invisible to the person.
        link: address that a click opens.
        image: address of a picture.
    """

    title: str
    body: str
    data: Mapping[str, str] = field(default_factory=dict)
    link: str | None = None
    image: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A later knock: over ``channel``, if ``when`` still holds ``after`` the step before it.

    Attributes:
        channel: a word of :data:`~knocktwice_shared.channels.CONTENTS`.
        when: ``None`` for a first step, which has nothing to wait for.
        text: its own, where its channel has texts; ``None`` says what the content says. In a template's step by locale,
            or one for all.
        sender: another than the setting's.
        content: what its channel asks for beside a text, field by field.
    """

    channel: str
    when: When | None
    after: timedelta
    text: str | Mapping[str, str] | None = None
    sender: str | None = None
    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether it is an SMS that says what the content says, from the usual sender."""
        return self.channel == SMS and self.text is None and self.sender is None

    @property
    def speaks(self) -> bool:
        """Whether it says a text: its own, or what the content says."""
        return CONTENTS[self.channel].speaks

    def filled(self) -> Iterator[tuple[str, str]]:
        """Yield where its texts with placeholders stand, and the texts; those by locale are left out."""
        if isinstance(self.text, str):
            yield TEXT, self.text
        for name, value in self.content.items():
            if not CONTENTS[self.channel].fields[name].filled:
                continue
            if isinstance(value, str):
                yield name, value
            elif CONTENTS[self.channel].fields[name].kind is Kind.TEXTS:
                yield from ((f"{name}.{key}", text) for key, text in value.items())


#: The SMS that goes at once, because there is no push.
AT_ONCE = Step(SMS, None, timedelta())


@dataclass(frozen=True, slots=True)
class LocalTime:
    """A time by the clock on the recipient's wall, wherever they live: "at nine in the morning".

    Args:
        at: date and time without a zone. One that the clocks skip in spring is as long after the change as it would
            have been; of one that comes twice in autumn the first counts (as RFC 5545, 3.3.5, has it).

    Raises:
        InvalidMessage: it is no such time.
    """

    at: datetime

    def __post_init__(self) -> None:
        if not isinstance(self.at, datetime):
            raise InvalidMessage("send_at", f"LocalTime takes a datetime, not {type(self.at).__name__}")
        if self.at.tzinfo is not None:
            raise InvalidMessage("send_at", "LocalTime takes a datetime without a zone; one with a zone stands alone")
