"""The page of virtual phones, to look at and tap."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from knocktwice_worker.sandbox.books import AppReport, Books, ReceivedPush, SentText
    from knocktwice_worker.sandbox.phones import Phone

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
}
_TOP = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="2"><title>Phones</title>
<style>
body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#222}
section{border:1px solid #ccc;border-radius:12px;padding:.2em 1em 1em;margin:1em 0}
h2{font-size:1em;overflow-wrap:anywhere} p{margin:.5em 0;overflow-wrap:anywhere;white-space:pre-wrap}
small{color:#666} form{display:inline}
</style><h1>Phones</h1>"""
#: Phones, and numbers without one, that the page shows: the newest.
_MOST_SHOWN = 50
_EMPTY = "<p>No push and no SMS yet.</p>"


class Page:
    """``GET /``."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def routes(self) -> list[web.RouteDef]:
        """Return what is served."""
        return [web.get("/", self._show)]

    async def _show(self, _request: web.Request) -> web.Response:
        phones, texts = self._books.phones()[-_MOST_SHOWN:], self._books.texts()
        sections = [self._phone(phone) for phone in phones]
        numbers = list(dict.fromkeys(t.to.removeprefix("whatsapp:") for t in texts))[-_MOST_SHOWN:]
        shown = {phone.number for phone in phones}
        sections += [
            _section(n, [_text(t) for t in texts if t.to.removeprefix("whatsapp:") == n])
            for n in numbers
            if n not in shown
        ]
        return web.Response(text=_TOP + ("".join(sections) or _EMPTY), content_type="text/html", headers=_HEADERS)

    def _phone(self, phone: Phone) -> str:
        pushes = self._books.pushes(phone.registration)
        rows = [_push(push) for push in pushes]
        if pushes and pushes[-1].clicked_at is None and pushes[-1].withdrawn_at is None:
            action = f"/sandbox/phones/{quote(phone.registration, safe='')}/tap"
            rows.append(f'<form method="post" action="{action}"><button>Tap</button></form>')
        if phone.number:
            rows += [_text(t) for t in self._books.texts() if t.to.removeprefix("whatsapp:") == phone.number]
        number = f" · {phone.number}" if phone.number else ""
        return _section(phone.registration + number, rows)


def _section(title: str, rows: list[str]) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(rows)}</section>"


def _push(push: ReceivedPush) -> str:
    told = [f"push {_time(push.at)}"]
    if push.delivered_at:
        told.append(f"delivered {_time(push.delivered_at)}")
    if push.clicked_at:
        told.append(f"clicked {_time(push.clicked_at)}")
    if push.withdrawn_at:
        told.append(f"withdrawn {_time(push.withdrawn_at)}")
    told += [_report(report) for report in push.reports]
    words = f"<b>{escape(push.title or '')}</b> {escape(push.body or '')}"
    looks = " · ".join(f"{name} {escape(value)}" for name, value in _looks(push.message).items())
    return f"<p>{words}<br><small>{' · '.join(told)}{looks and '<br>' + looks}</small></p>"


#: What a push may say beside its texts, and where a phone or a browser finds it; the first place that has it counts.
_LOOKS = {
    "subtitle": ("apns.payload.aps.alert.subtitle",),
    "opens": ("webpush.fcm_options.link", "data.link"),
    "image": ("notification.image",),
    "sound": ("apns.payload.aps.sound", "android.notification.sound"),
    "badge": ("apns.payload.aps.badge",),
    "channel": ("android.notification.channel_id",),
    "icon": ("android.notification.icon",),
    "color": ("android.notification.color",),
    "priority": ("android.priority",),
}


def _looks(message: Mapping[str, Any]) -> dict[str, str]:
    """Return what a push looks and sounds like, by name."""
    found = {name: [_at(message, place) for place in places] for name, places in _LOOKS.items()}
    return {
        name: str(next(v for v in values if v is not None))
        for name, values in found.items()
        if values != [None] * len(values)
    }


def _at(message: Mapping[str, Any], place: str) -> object:
    inside: Any = message
    for name in place.split("."):
        inside = inside.get(name) if isinstance(inside, dict) else None
    return inside


def _report(report: AppReport) -> str:
    """Say what came of the app's request to the receipt address."""
    if report.taken:
        return f"{report.kind} was taken by the gateway"
    tries = "" if report.tries == 1 else f" {report.tries} times"
    answered = "no answer" if report.answered is None else f"HTTP {report.answered}"
    return f"{report.kind} was reported{tries}: {answered}"


def _text(text: SentText) -> str:
    kind = "WhatsApp" if text.to.startswith("whatsapp:") else "SMS"
    return f"<p>{escape(text.body)}<br><small>{kind} {_time(text.created_at)} · {escape(text.status)}</small></p>"


def _time(moment: datetime) -> str:
    return moment.astimezone().strftime("%H:%M:%S")
