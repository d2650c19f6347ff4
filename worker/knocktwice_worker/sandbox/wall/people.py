"""The people on the wall and their phones, and the three of the story that the page tells."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from knocktwice_worker.sandbox.phones import Phone
from knocktwice_worker.sandbox.wall.application import Draft

if TYPE_CHECKING:
    from knocktwice_worker.sandbox.books import Books
    from knocktwice_worker.sandbox.wall.application import Application

#: Seconds until a phone reports a push as delivered, and until somebody who taps pushes taps one.
_DELIVERED_S, _TAPPED_S = 0.3, 2.0
#: The first of the Swedish numbers that are reserved for books and films, and how many there are.
_FIRST_NUMBER, _NUMBERS = 46701740605, 95
#: Name → whether this person taps pushes, and whether the phone shows them.
CAST = {"Ada": (True, True), "Ben": (False, True), "Cleo": (False, False)}
#: Seconds that the SMS of the story waits.
_STORY_S = 10


def phone(
    books: Books, name: str, *, number: str | None = None, taps: bool = False, notifications: bool = True
) -> Phone:
    """Return a phone for a person, with a number that is free unless one is given."""
    user = "-".join(name.lower().split())
    first = hashlib.sha256(user.encode()).hexdigest()[:32]
    taken = {other.registration for other in books.phones()}
    # The first phone of a person keeps its registration when the sandbox starts again.
    own = first if f"{user}-{first}" not in taken else secrets.token_hex(16)
    return Phone(
        f"{user}-{own}",
        delivered_after=_DELIVERED_S,
        clicked_after=_TAPPED_S if taps else None,
        number=number or _free_number(books),
        name=name,
        user=user,
        notifications_enabled=notifications,
    )


def introduce(books: Books, application: Application) -> None:
    """Put those of the cast that are not there yet on the wall, and tell the application of them.

    Raises:
        KnocktwiceError: the broker does not answer.
    """
    there = {other.name for other in books.phones()}
    for name, (taps, notifications) in CAST.items():
        if name not in there:
            made = phone(books, name, taps=taps, notifications=notifications)
            books.add_phone(made)
            application.register(made)


def tell_story(books: Books, application: Application) -> list[str]:
    """Notify the cast; return the notifications' ids: one is tapped, one ignored, one cannot be shown.

    Raises:
        KnocktwiceError: the broker does not answer.
    """
    introduce(books, application)
    title, body = "Your table is ready", "We keep it until 19:45."
    drafts = [Draft(name.lower(), title, body, text=f"{title}. {body}", after_s=_STORY_S) for name in CAST]
    return [application.notify(draft) for draft in drafts]


def _free_number(books: Books) -> str | None:
    taken = {other.number for other in books.phones()}
    return next((n for i in range(_NUMBERS) if (n := f"+{_FIRST_NUMBER + i}") not in taken), None)
