"""Looks and sounds of a push, as a phone or a browser finds them in FCM's message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: What is said → the places in the message; the first that has it counts.
_PLACES = {
    "subtitle": ("apns.payload.aps.alert.subtitle",),
    "opens": ("webpush.fcm_options.link", "data.link"),
    "sound": ("apns.payload.aps.sound", "android.notification.sound"),
    "badge": ("apns.payload.aps.badge",),
    "channel": ("android.notification.channel_id",),
    "icon": ("android.notification.icon",),
    "color": ("android.notification.color",),
    "priority": ("android.priority",),
}
#: What a push says that says nothing of it.
_USUAL = {"sound": "default", "priority": "high"}


def notes(message: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a push looks and sounds like, as far as it is not the usual."""
    for name, places in _PLACES.items():
        found = next((v for v in (_at(message, place) for place in places) if v is not None), None)
        if found is not None and found != _USUAL.get(name):
            yield f"{name}: {found}"
        elif found is None and name == "sound":
            yield "silent"


def _at(message: Mapping[str, Any], place: str) -> object:
    inside: Any = message
    for name in place.split("."):
        inside = inside.get(name) if isinstance(inside, dict) else None
    return inside
