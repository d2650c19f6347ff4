"""The books as the page shows them: one JSON object for each phone, and one for everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knocktwice_worker.sandbox.wall import looks

if TYPE_CHECKING:
    from datetime import datetime

    from knocktwice_worker.sandbox.books import Books
    from knocktwice_worker.sandbox.phones import Phone
    from knocktwice_worker.sandbox.records import ReceivedPush, Reply, SentText

#: The newest phones, and messages of a phone, that the page shows.
MOST_PHONES, MOST_MESSAGES = 60, 40
_WHATSAPP = "whatsapp:"


def phones(books: Books) -> dict[str, dict[str, Any]]:
    """Return each phone with its messages, by its registration; by its number if only that is known."""
    texts, replies = _by_number(books.texts()), books.replies()
    described = books.phones()[-MOST_PHONES:]
    seen = {phone.number for phone in described}
    shown = {phone.registration: _phone(books, phone, texts, replies) for phone in described}
    strangers = [number for number in texts if number not in seen][-MOST_PHONES:]
    return shown | {number: _stranger(number, texts, replies) for number in strangers}


def surroundings(books: Books) -> dict[str, Any]:
    """Return what belongs to no phone: webhooks, newest first, and what goes wrong on purpose."""
    return {
        "webhooks": [
            {"id": w.id, "event": w.event, "body": w.body, "at": _time(w.at)} for w in reversed(books.webhooks())
        ],
        "faults": books.faults(),
    }


def _by_number(texts: list[SentText]) -> dict[str, list[SentText]]:
    found: dict[str, list[SentText]] = {}
    for text in texts:
        found.setdefault(text.to.removeprefix(_WHATSAPP), []).append(text)
    return found


def _phone(books: Books, phone: Phone, texts: dict[str, list[SentText]], replies: list[Reply]) -> dict[str, Any]:
    on_screen = set(books.on_screen(phone.registration))
    pushes = [_push(push, push.name in on_screen, phone) for push in books.pushes(phone.registration)]
    return {
        "id": phone.registration,
        "name": phone.name,
        "user": phone.user,
        "number": phone.number,
        "registration": phone.registration,
        "notifications": phone.notifications_enabled,
        "offline": phone.offline,
        "installed": phone.registered,
        "habit": "clicks" if phone.clicked_after is not None else "",
        "messages": _in_order([*pushes, *_texts(phone.number, texts, replies)]),
    }


def _stranger(number: str, texts: dict[str, list[SentText]], replies: list[Reply]) -> dict[str, Any]:
    messages = _in_order(_texts(number, texts, replies))
    return {"id": number, "number": number, "notifications": True, "messages": messages}


def _texts(
    number: str | None, texts: dict[str, list[SentText]], replies: list[Reply]
) -> list[tuple[datetime, dict[str, Any]]]:
    sent = [_text(text) for text in texts.get(number or "", [])]
    return sent + [_reply(reply) for reply in replies if reply.number == number]


def _in_order(messages: list[tuple[datetime, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [message for _, message in sorted(messages, key=lambda m: m[0])][-MOST_MESSAGES:]


def _push(push: ReceivedPush, on_screen: bool, phone: Phone) -> tuple[datetime, dict[str, Any]]:
    reported = [
        f"{report.kind}: reported" if report.taken else f"{report.kind}: not taken ({report.answered or 'no answer'})"
        for report in push.reports
    ]
    return push.at, {
        "kind": "push",
        "id": push.name,
        "notification": push.notification_id,
        "at": _time(push.at),
        "title": push.title or "",
        "body": push.body or "",
        "image": push.message.get("notification", {}).get("image"),
        "state": _push_state(push, on_screen, phone),
        "on_screen": on_screen,
        "notes": [*looks.notes(push.message), *reported],
    }


def _push_state(push: ReceivedPush, on_screen: bool, phone: Phone) -> str:
    if push.clicked_at:
        return f"tapped {_clock(push.clicked_at)}"
    if push.withdrawn_at:
        return f"withdrawn {_clock(push.withdrawn_at)}"
    if push.dismissed_at:
        return f"swiped away {_clock(push.dismissed_at)}"
    if push.shown_at is None:
        return "waits for the phone" if phone.offline else "not shown: notifications are off"
    return "on the screen" if on_screen else "replaced by a newer one"


def _text(text: SentText) -> tuple[datetime, dict[str, Any]]:
    whatsapp = text.to.startswith(_WHATSAPP)
    return text.created_at, {
        "kind": "whatsapp" if whatsapp else "sms",
        "id": text.sid,
        "at": _time(text.created_at),
        "body": text.body,
        "state": text.status + (f" ({text.error_code})" if text.error_code else ""),
        "arrived": text.status in {"delivered", "read"},
        "sender": text.sender or text.messaging_service,
        "media": list(text.media),
    }


def _reply(reply: Reply) -> tuple[datetime, dict[str, Any]]:
    taken = reply.answered is not None and reply.answered < 300
    return reply.at, {
        "kind": "reply",
        "id": f"{reply.number}-{reply.at.timestamp()}",
        "at": _time(reply.at),
        "body": reply.body,
        "state": "taken" if taken else f"not taken ({reply.answered or 'no answer'})",
    }


def _time(moment: datetime) -> str:
    return moment.isoformat()


def _clock(moment: datetime) -> str:
    return moment.astimezone().strftime("%H:%M:%S")
