"""FCM's ``Message``: a push, and the silent one that withdraws it, as JSON for Android, APNs and the web."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knocktwice_shared.messages import DEFAULT_SOUND, SILENT, Priority, one_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice_shared.messages import Push
    from knocktwice_worker.channels.messages import PushMessage, Withdrawal

#: The name under which an app finds the notification's id in the push, for its receipts.
ID_FIELD = "knocktwice_id"
#: The name under which it finds where to report. Short, as it counts against FCM's 4 KB.
RECEIPT_FIELD = "knocktwice_receipt"

#: Under which an app finds the id of a notification that it should take off the screen.
WITHDRAW_FIELD = "knocktwice_withdraw"

#: A Firebase installation id has 22 characters; a registration token has many more.
_FID_LENGTH = 22


def encode(message: PushMessage, *, now: float) -> dict[str, Any]:
    """Return FCM's ``Message`` for one push.

    The notification's id is Android tag, APNs collapse id and web tag: a push that is repeated after a crash replaces
    itself. (Not FCM's ``collapse_key``, of which a device keeps four.)

    Args:
        now: Unix time, for APNs, which wants the end of the push's life as a moment.
    """
    push = message.push
    data = {**push.data, ID_FIELD: message.notification_id}
    if message.receipt_url:
        data[RECEIPT_FIELD] = message.receipt_url
    notification = {"title": message.title, "body": message.body}
    if push.image:
        notification["image"] = one_text(push.image)
    if push.link:
        data.setdefault("link", one_text(push.link))
    return {
        address(message): message.registration,
        "notification": notification,
        "data": data,
        "android": _merged(_android(message), _with_data(push.android, data)),
        "apns": _apns(message, now),
        "webpush": _merged(_webpush(message), _with_data(push.webpush, data)),
    }


def _android(message: PushMessage) -> dict[str, Any]:
    push = message.push
    shown = {"tag": message.notification_id, "sound": _sound(push), "channel_id": push.channel_id}
    shown |= {"icon": push.icon, "color": push.color}
    return {
        "priority": str(push.priority or Priority.HIGH),
        "ttl": f"{int(message.ttl.total_seconds())}s",
        "notification": {name: value for name, value in shown.items() if value is not None},
    }


def _apns(message: PushMessage, now: float) -> dict[str, Any]:
    push = message.push
    # Lets the app's service extension run, which reports the delivery.
    aps: dict[str, Any] = {"mutable-content": 1}
    if (sound := _sound(push)) is not None:
        aps["sound"] = sound
    if push.badge is not None:
        aps["badge"] = push.badge
    own_alert = push.apns.get("payload", {}).get("aps", {}).get("alert")
    if push.subtitle or isinstance(own_alert, dict):
        # An alert replaces title and body of the notification as a whole, so they are repeated in it.
        alert = {"title": message.title, "subtitle": push.subtitle, "body": message.body}
        aps["alert"] = {name: text for name, text in alert.items() if text is not None}
    headers = {
        "apns-collapse-id": message.notification_id,
        "apns-expiration": str(int(now) + int(message.ttl.total_seconds())),
        # https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns
        "apns-priority": "5" if push.priority == Priority.NORMAL else "10",
    }
    return _merged({"headers": headers, "payload": {"aps": aps}}, push.apns)


def _webpush(message: PushMessage) -> dict[str, Any]:
    push = message.push
    headers = {"TTL": str(int(message.ttl.total_seconds()))}
    if push.priority:
        headers["Urgency"] = str(push.priority)
    webpush: dict[str, Any] = {"headers": headers, "notification": {"tag": message.notification_id}}
    # FCM takes nothing else for the web.
    if push.link and (link := one_text(push.link)).startswith("https://"):
        webpush["fcm_options"] = {"link": link}
    return webpush


def _sound(push: Push) -> str | None:
    return None if push.sound == SILENT else push.sound or DEFAULT_SOUND


def _with_data(own: Mapping[str, Any], data: Mapping[str, str]) -> Mapping[str, Any]:
    """Add what all platforms get: the data of one platform replace it as a whole."""
    return {**own, "data": {**data, **own["data"], ID_FIELD: data[ID_FIELD]}} if "data" in own else own


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with the fields of both; where both have one, theirs counts.

    Names of headers may differ in case.
    """
    merged = dict(ours)
    for name, value in theirs.items():
        mine = merged.get(name)
        if name == "headers" and isinstance(mine, dict):
            given = {header.lower() for header in value}
            merged[name] = {h: v for h, v in mine.items() if h.lower() not in given} | dict(value)
        elif isinstance(mine, dict) and isinstance(value, dict):
            merged[name] = _merged(mine, value)
        else:
            merged[name] = value
    return merged


def address(message: PushMessage | Withdrawal) -> str:
    """Return the field of FCM's message that names the device."""
    return "fid" if len(message.registration) == _FID_LENGTH else "token"


def encode_withdrawal(message: Withdrawal, *, now: float) -> dict[str, Any]:
    """Return FCM's ``Message`` for a silent push: data only, so that no platform shows anything.

    Android wakes an app for data of high priority; APNs takes a background push with priority 5 and no other; a browser
    wakes the service worker sooner for a high urgency.

    Args:
        now: Unix time, as for :func:`encode`.
    """
    seconds = int(message.ttl.total_seconds())
    return {
        address(message): message.registration,
        "data": {WITHDRAW_FIELD: message.notification_id},
        "android": {"priority": "high", "ttl": f"{seconds}s"},
        "apns": {
            "headers": {
                "apns-push-type": "background",
                "apns-priority": "5",
                "apns-expiration": str(int(now) + seconds),
            },
            "payload": {"aps": {"content-available": 1}},
        },
        "webpush": {"headers": {"TTL": str(seconds), "Urgency": "high"}},
    }
