"""The parts of messages: categories, pushes, steps, and the times at which they go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from knocktwice_shared.channels import CONTENTS, SMS, Kind, sms
from knocktwice_shared.channels.step_content import TEXT
from knocktwice_shared.errors import InvalidMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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

    #: No device of the person shows notifications.
    NOTIFICATIONS_DISABLED = "notifications_disabled"
    #: Nothing has confirmed that what the step before it sent has arrived.
    NOT_DELIVERED = "not_delivered"
    #: Nobody has clicked the push or read a message.
    NOT_CLICKED = "not_clicked"
    #: Nobody has answered: by a reply to a message, by a click, or by having seen it elsewhere.
    NOT_ANSWERED = "not_answered"
    #: What the step before it sent has arrived: a step of a journey that goes on after success.
    DELIVERED = "delivered"
    #: Somebody has clicked the push or read a message: likewise.
    CLICKED = "clicked"


#: Tencent's ``trigger_condition`` numbers, accepted wherever ``when`` is.
TENCENT_CONDITIONS = (When.NOTIFICATIONS_DISABLED, When.NOT_DELIVERED, When.NOT_CLICKED)


class Category(StrEnum):
    """Why a message is sent. It decides consent, quiet hours and what happens when an outcome is unknown."""

    TRANSACTIONAL = "transactional"
    MARKETING = "marketing"
    CRITICAL = "critical"


class Priority(StrEnum):
    """How urgently a push is handed to its device."""

    #: At once; a sleeping phone wakes up.
    HIGH = "high"
    #: When the phone is awake anyway.
    NORMAL = "normal"


#: The sound of a push that makes none.
SILENT = "none"

#: The sound of a push that names none: the phone's own.
DEFAULT_SOUND = "default"


#: What a text calls the person it is for, and the fields of it that workers know: ``{{ user.tags.city }}``.
PERSON, PERSON_FIELDS = "user", ("id", "tags", "locale", "timezone")

#: One text for everybody, or one for each language: ``{"en": "Your order", "de": "Ihre Bestellung"}``.
Text = str | Mapping[str, str]


def one_text(text: Text) -> str:
    """Return a text that is for everybody.

    Raises:
        TypeError: it is by language; choose one first, with :meth:`Push.spoken`.
    """
    if isinstance(text, str):
        return text
    raise TypeError("a text by language has no single text")


def spoken(text: Text, locale: str) -> str:
    """Return what a text is in a language that the message has."""
    return text if isinstance(text, str) else text[locale]


@dataclass(frozen=True, slots=True)
class Push:
    """The content of a push. Every text in it may have ``{{ name }}`` placeholders, filled from ``params``.

    ``title``, ``body``, ``subtitle``, ``link`` and ``image`` are one text for everybody, or one for each language, like
    ``{"en": "Your order", "de": "Ihre Bestellung"}``.

    Args:
        title: first line.
        body: the text.
        data: handed to the app, invisible to the person.
        link: address that a click opens, ``https://…`` or the app's own (``myapp://orders/7``).
        image: address of a picture.
        subtitle: line between title and body, on iPhones.
        sound: name of a sound file in the app; left out, the phone's own sound; ``"none"``: no sound.
        badge: number on the app's icon on iPhones, 0 removes it; a text with a placeholder may stand for it.
        channel_id: notification channel on Android.
        priority: left out, ``high``.
        icon: name of a drawable in the app, on Android.
        color: the icon's, like ``#00aa55``, on Android.
        android, apns, webpush: fields of FCM's ``AndroidConfig``, ``ApnsConfig`` and ``WebpushConfig`` as they are;
            they win over the ones above.
    """

    title: Text
    body: Text
    data: Mapping[str, str] = field(default_factory=dict)
    link: Text | None = None
    image: Text | None = None
    subtitle: Text | None = None
    sound: str | None = None
    badge: int | str | None = None
    channel_id: str | None = None
    priority: Priority | str | None = None
    icon: str | None = None
    color: str | None = None
    android: Mapping[str, Any] = field(default_factory=dict)
    apns: Mapping[str, Any] = field(default_factory=dict)
    webpush: Mapping[str, Any] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """Return what it says, by name; fields that say nothing are left out."""
        said = {name: getattr(self, name) for name in PUSH_FIELDS}
        return {name: dict(v) if isinstance(v, Mapping) else v for name, v in said.items() if v is not None and v != {}}

    def by_language(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Yield the fields that are by language, and their texts."""
        for name in LOCALISED:
            if not isinstance(text := getattr(self, name), str) and text is not None:
                yield name, text

    def spoken(self, locale: str) -> Push:
        """Return the push in one of its languages."""
        said: dict[str, Any] = {name: texts[locale] for name, texts in self.by_language()}
        return replace(self, **said) if said else self

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield where its texts stand that may have placeholders, and the texts."""
        yield from _texts_in(self.title, "title")
        yield from _texts_in(self.body, "body")
        for name in _TEXTS:
            if (text := getattr(self, name)) is not None:
                yield from _texts_in(text, name)
        for name in _OBJECTS:
            if own := getattr(self, name):
                yield from _texts_in(own, name)

    def with_texts(self, change: Callable[[str, str], str]) -> Push:
        """Return the same push with other texts.

        Args:
            change: takes where a text stands and the text, and returns the new one.
        """
        said: dict[str, Any] = {name: _changed(getattr(self, name), name, change) for name in ("title", "body")}
        for name in _TEXTS:
            if (text := getattr(self, name)) is not None:
                said[name] = _changed(text, name, change)
        for name in _OBJECTS:
            if own := getattr(self, name):
                said[name] = _changed(own, name, change)
        return replace(self, **said)


#: The fields of a push, in the order in which they are shown.
PUSH_FIELDS = tuple(Push.__dataclass_fields__)
#: The fields that may be by language.
LOCALISED = ("title", "body", "subtitle", "link", "image")
_OBJECTS = ("data", "android", "apns", "webpush")
#: Beside title and body; ``badge`` is one of them where it is a text.
_TEXTS = ("link", "image", "subtitle", "sound", "badge", "channel_id", "icon", "color")


def _texts_in(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts_in(item, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _texts_in(item, f"{path}[{place}]")


def _changed(value: object, path: str, change: Callable[[str, str], str]) -> object:
    if isinstance(value, str):
        return change(path, value)
    if isinstance(value, Mapping):
        return {name: _changed(item, f"{path}.{name}", change) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(item, f"{path}[{place}]", change) for place, item in enumerate(value)]
    return value


@dataclass(frozen=True, slots=True)
class Step:
    """A later knock: over ``channel``, if ``when`` still holds ``after`` the step before it.

    Attributes:
        channel: a word of :data:`~knocktwice_shared.channels.CONTENTS`.
        when: ``None`` for a first step, which has nothing to wait for.
        text: its own, where its channel has texts, by language or one for all; ``None`` says what the content says.
        sender: another than the setting's.
        content: what its channel asks for beside a text, field by field.
    """

    channel: str
    when: When | None
    after: timedelta
    text: Text | None = None
    sender: str | None = None
    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether it is an SMS that says only what the content says, from the usual sender."""
        return self.channel == SMS and self.text is None and self.sender is None and not self.content

    @property
    def speaks(self) -> bool:
        """Whether it says a text: its own, or what the content says."""
        return CONTENTS[self.channel].speaks

    def filled(self) -> Iterator[tuple[str, str]]:
        """Yield where its texts with placeholders stand, and the texts."""
        if self.text is not None:
            yield from _texts_in(self.text, TEXT)
        for name, value in self.content.items():
            if CONTENTS[self.channel].fields[name].filled:
                yield from _texts_in(value, name)

    def by_language(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the fields that are by language, and what they say."""
        if isinstance(self.text, Mapping):
            yield TEXT, self.text
        for name, value in self.content.items():
            if isinstance(value, Mapping) and CONTENTS[self.channel].fields[name].kind is not Kind.TEXTS:
                yield name, value

    def spoken(self, locale: str) -> Step:
        """Return the step in one of its languages."""
        said: dict[str, Any] = {name: texts[locale] for name, texts in self.by_language()}
        return replace(self, text=said.pop(TEXT, self.text), content={**self.content, **said}) if said else self

    def respelled(self, tags: Mapping[str, str]) -> Step:
        """Return the step with other names of its languages."""
        said: dict[str, Any] = {
            name: {tags[tag]: text for tag, text in texts.items()} for name, texts in self.by_language()
        }
        return replace(self, text=said.pop(TEXT, self.text), content={**self.content, **said}) if said else self


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
