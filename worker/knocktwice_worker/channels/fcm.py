"""Push through Firebase Cloud Messaging's HTTP v1 API.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages — a contract test holds our JSON against Google's
published discovery document and against firebase-admin's own encoder. Credentials are firebase-admin's.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from knocktwice_shared.messages import DEFAULT_SOUND, SILENT, Priority, one_text
from knocktwice_worker.channels.http import NoResponse, Request, Response, retry_after
from knocktwice_worker.channels.messages import PushMessage, Withdrawal
from knocktwice_worker.channels.outcomes import CredentialsUnavailable, Outcome, Rejected, Retry, Sent, Unknown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from firebase_admin.credentials import Base

    from knocktwice_shared.messages import Push

#: The name under which an app finds the notification's id in the push, for its receipts.
ID_FIELD = "knocktwice_id"
#: The name under which it finds where to report. Short, as it counts against FCM's 4 KB.
RECEIPT_FIELD = "knocktwice_receipt"

#: Under which an app finds the id of a notification that it should take off the screen.
WITHDRAW_FIELD = "knocktwice_withdraw"

#: Made once: ``json.dumps`` makes an encoder for each call that has options.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

#: A Firebase installation id has 22 characters; a registration token has many more.
_FID_LENGTH = 22
#: The project's limit pauses the pushes of all people, so no answer pauses them for longer than this at a time.
LONGEST_PAUSE = timedelta(seconds=60)
#: Google's token server gets this long (seconds).
_TOKEN_TIMEOUT_S = 10
#: Stands in an encoded example for one of its texts. Nobody can guess it and write it into a message's data.
_MARK = f"{secrets.token_hex(16)}-{{}}"
_SLOT = re.compile(f'"{_MARK.format("([0-9])")}"')
_quoted = json.encoder.encode_basestring
#: A device of another project, or credentials of another project: the answer is the same. It is the device's once a
#: push of this process was taken, and of no more devices in a row than so many; else the credentials', which the
#: operator mends.
_MISMATCH, _FEW_MISMATCHES = "SENDER_ID_MISMATCH", 2
#: The wait before another try of what the operator must mend first.
_OPERATORS_PAUSE = timedelta(minutes=1)
#: https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode
_REJECTIONS = {
    "UNREGISTERED": Rejected("unregistered", "FCM UNREGISTERED", address_dead=True),
    # Not dead: with the wrong project's credentials every address would look like this.
    "SENDER_ID_MISMATCH": Rejected("sender_mismatch", "FCM SENDER_ID_MISMATCH"),
    "INVALID_ARGUMENT": Rejected("invalid_argument", "FCM INVALID_ARGUMENT"),
    # Told to the operator at once. The push fails, because what follows it may be urgent; the brake holds the rest.
    "THIRD_PARTY_AUTH_ERROR": Rejected(
        "third_party_auth", "FCM THIRD_PARTY_AUTH_ERROR: check the APNs key or web push certificate", operators=True
    ),
}


class FcmChannel:
    """Firebase Cloud Messaging.

    Args:
        url: FCM's address.
        credentials_file: the service account; ``None`` takes Google's application default credentials.
        project: the Firebase project; ``None`` takes the credentials' own.
    """

    name = "push"

    def __init__(self, *, url: str, credentials_file: Path | None, project: str | None) -> None:
        self._url = url.rstrip("/")
        self._credentials_file = credentials_file
        self._project = project
        self._refreshing = threading.Lock()
        self._refused = False
        #: Devices of another project since the last push that was taken; before the first one, nobody's fault is known.
        self._mismatches = _FEW_MISMATCHES
        self._kept_headers: tuple[str, Mapping[str, str]] | None = None
        self._kept_form: _Form | None = None

    def authorize(self) -> None:
        """Get an access token if there is none, or a new one a few minutes before it ends."""
        credential = self._credential
        if credential.valid and not self._refused:
            return
        # While the old token still works one thread gets the new one and the others go on.
        usable = not credential.expired and credential.token is not None and not self._refused
        if not self._refreshing.acquire(blocking=not usable):
            return
        try:
            if not credential.valid or self._refused:
                self._refresh()
        finally:
            self._refreshing.release()

    def request(self, message: PushMessage | Withdrawal) -> Request:
        """Encode one push, or the silent one that withdraws it."""
        body = _withdrawal(message) if isinstance(message, Withdrawal) else self._body(message)
        return Request(url=self._endpoint, headers=self._headers(), body=body, repeatable=True)

    def _headers(self) -> Mapping[str, str]:
        # The same object as long as it says the same: the HTTP engine then need not read it again.
        token = self._credential.token
        kept = self._kept_headers
        if kept is None or kept[0] != token:
            kept = token, {"content-type": "application/json", "authorization": f"Bearer {token}"}
            self._kept_headers = kept
        return kept[1]

    def _body(self, message: PushMessage) -> bytes:
        now = int(time.time())
        kept = self._kept_form
        if kept is None or not kept.fits(message, now):
            self._kept_form = kept = _Form(message, now)
        return kept.fill(message)

    def outcome(self, answer: Response | NoResponse) -> Outcome:
        """Read FCM's answer."""
        if isinstance(answer, NoResponse):
            return Unknown(answer.reason) if answer.sent else Retry(answer.reason)
        if answer.status == 200:
            self._mismatches = 0
            return _sent(answer.body)
        error = _read_error(answer.body)
        if error.code == _MISMATCH:
            self._mismatches += 1
            if self._mismatches > _FEW_MISMATCHES:
                # Not one device of the project is known to work with these credentials.
                why = "FCM SENDER_ID_MISMATCH for every device: the credentials are of another Firebase project"
                return Retry(why, _OPERATORS_PAUSE, operators=True)
        if error.code in _REJECTIONS:
            return _REJECTIONS[error.code]
        name = error.code or error.status or answer.status
        wait = retry_after(answer)
        if answer.status == 429:
            return _limited(name, wait) if error.of_project else Retry(f"FCM {name}", wait)
        if answer.status in (401, 403):
            # The token was revoked, or the service account may not send: a person has to mend that.
            self._refused = True
            return Retry(f"FCM refuses our credentials ({name})", wait, operators=True)
        if answer.status >= 500:
            return Unknown(f"FCM {name}", wait)
        if answer.status == 400:
            return _REJECTIONS.get(error.status or "", Rejected("refused", f"FCM {name}"))
        if error.code is None:
            # FCM names an error of its own whenever it speaks of a device. This is a wrong project, a wrong address or
            # a proxy's page, and a person has to mend it.
            return Retry(
                f"FCM {name} says nothing of the device: check KNOCKTWICE_FCM_PROJECT and KNOCKTWICE_FCM_URL",
                wait,
                operators=True,
            )
        return Rejected("refused", f"FCM {name}")

    @cached_property
    def _certificate(self) -> Base:
        # Not at import: firebase-admin takes half a second, and the command line does not need it.
        from firebase_admin.credentials import ApplicationDefault, Certificate

        try:
            return Certificate(str(self._credentials_file)) if self._credentials_file else ApplicationDefault()
        except (ValueError, OSError) as error:
            raise CredentialsUnavailable(
                f"GOOGLE_APPLICATION_CREDENTIALS: cannot use the service account file ({type(error).__name__})"
            ) from error

    @cached_property
    def _credential(self) -> Any:
        from google.auth.exceptions import GoogleAuthError

        try:
            return self._certificate.get_credential()
        except GoogleAuthError as error:
            raise CredentialsUnavailable(
                "GOOGLE_APPLICATION_CREDENTIALS is not set: name the Firebase project's service account file"
            ) from error

    @cached_property
    def _endpoint(self) -> str:
        project = self._project or getattr(self._certificate, "project_id", None)
        if not project:
            raise CredentialsUnavailable("KNOCKTWICE_FCM_PROJECT: the credentials name no Firebase project, so set it")
        return f"{self._url}/v1/projects/{project}/messages:send"

    def _refresh(self) -> None:
        from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
        from google.auth.transport.requests import Request as TokenRequest

        try:
            self._credential.refresh(partial(TokenRequest(), timeout=_TOKEN_TIMEOUT_S))
        except (GoogleAuthError, ValueError) as error:
            # Google refuses a key that was deleted and a clock that is wrong in the same words.
            refused = "invalid_grant" in str(error)
            hint = "; is this machine's clock right, and does the service account's key still exist?" if refused else ""
            passing = isinstance(error, TransportError) or (isinstance(error, RefreshError) and error.retryable)
            why = "invalid_grant" if refused else type(error).__name__
            raise CredentialsUnavailable(
                f"GOOGLE_APPLICATION_CREDENTIALS: Google gives no access token ({why}){hint}", operators=not passing
            ) from error
        self._refused = False
        _ = self._endpoint


class _Form:
    """The JSON that the pushes of a batch have in common, encoded once, with slots for what differs.

    Whatever :func:`encode` makes of an example is kept, so there is one description of the message.
    """

    def __init__(self, example: PushMessage, now: int) -> None:
        self._push = example.push
        self._common = self._what_is_common(example, now)
        registration, title, body, id_, url = (_MARK.format(slot) for slot in range(5))
        receipt_url = example.receipt_url and url
        marked = replace(example, title=title, body=body, notification_id=id_, receipt_url=receipt_url)
        encoded = encode(marked, now=now)
        encoded[_address(example)] = registration
        text = _encode({"message": encoded})
        self._head, *rest = _SLOT.split(text)
        self._rest = [(int(slot), piece) for slot, piece in zip(rest[::2], rest[1::2], strict=True)]

    @staticmethod
    def _what_is_common(message: PushMessage, now: int) -> tuple[object, ...]:
        return (message.ttl, message.receipt_url is not None, _address(message), now)

    def fits(self, message: PushMessage, now: int) -> bool:
        """Whether this is the form of that push at that time (Unix seconds)."""
        # The people of a batch share one push, unless it has placeholders outside title and body.
        same = message.push is self._push or message.push == self._push
        return same and self._what_is_common(message, now) == self._common

    def fill(self, message: PushMessage) -> bytes:
        """Return the JSON of a push that fits."""
        own = (message.registration, message.title, message.body, message.notification_id, message.receipt_url or "")
        texts = [_quoted(text) for text in own]
        return (self._head + "".join([texts[slot] + piece for slot, piece in self._rest])).encode()


def encode(message: PushMessage, *, now: float) -> dict[str, Any]:
    """Return FCM's ``Message`` for one push.

    The notification's id is Android tag, APNs collapse id and web tag: a push that is repeated after a crash replaces itself.
    (Not FCM's ``collapse_key``, of which a device keeps four.)

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
        _address(message): message.registration,
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


def _address(message: PushMessage | Withdrawal) -> str:
    return "fid" if len(message.registration) == _FID_LENGTH else "token"


def encode_withdrawal(message: Withdrawal, *, now: float) -> dict[str, Any]:
    """Return FCM's ``Message`` for a silent push: data only, so that no platform shows anything.

    Android wakes an app for data of high priority; APNs takes a background push with priority 5 and no other; a browser wakes
    the service worker sooner for a high urgency.

    Args:
        now: Unix time, as for :func:`encode`.
    """
    seconds = int(message.ttl.total_seconds())
    return {
        _address(message): message.registration,
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


def _withdrawal(message: Withdrawal) -> bytes:
    return _encode({"message": encode_withdrawal(message, now=time.time())}).encode()


def _sent(body: bytes) -> Outcome:
    try:
        name = json.loads(body)["name"]
    except (ValueError, KeyError, TypeError):
        name = None
    if isinstance(name, str) and name:
        return Sent(name)
    return Unknown("FCM answered 200 without a message name")


def _limited(name: str | int, wait: timedelta | None) -> Retry:
    """Return that the project gets more than it may send."""
    return Retry(f"FCM {name}", wait and min(wait, LONGEST_PAUSE), too_fast=True)


@dataclass(frozen=True, slots=True)
class _Error:
    """FCM's error; its message may quote the address and is left out.

    Attributes:
        code: FCM's own code, which it gives when it speaks of the device or of the message.
        status: Google's status.
        of_project: a limit of the whole project is used up; FCM limits single devices and topics, too.
    """

    code: str | None = None
    status: str | None = None
    of_project: bool = False


def _read_error(body: bytes) -> _Error:
    """Read an answer; one that is not in Google's form says nothing.

    https://firebase.google.com/docs/cloud-messaging/error-codes, https://google.aip.dev/193
    """
    code, status, of_project = None, None, False
    try:
        error = json.loads(body)["error"]
        status = str(error["status"])[:50]
        for detail in error.get("details", ()):
            kind = detail.get("@type", "")
            if kind.endswith("google.firebase.fcm.v1.FcmError") and detail.get("errorCode"):
                code = str(detail["errorCode"])[:50]
            elif kind.endswith("google.rpc.ErrorInfo") and "quota_limit" in detail.get("metadata", {}):
                of_project = True
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return _Error(code, status, of_project)
