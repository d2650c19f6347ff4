"""FCM's HTTP v1 API and Google's token endpoint.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages.platforms import PLATFORMS, typed
from knocktwice_worker.channels.fcm import ID_FIELD, WITHDRAW_FIELD
from knocktwice_worker.sandbox.accounts import Accounts, InvalidGrantError
from knocktwice_worker.sandbox.answers import json_response, play, read_json
from knocktwice_worker.sandbox.records import ReceivedPush
from knocktwice_worker.sandbox.rules import FCM_ERRORS, ORDINARY, Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from knocktwice_worker.sandbox.books import Books

#: FCM's limit for notification and data together, in bytes.
_PAYLOAD_LIMIT = 4096
_FIELDS = frozenset(
    {"name", "data", "notification", "android", "webpush", "apns", "fcm_options", "fcmOptions", "token", "fid"}
)
_ERROR_TYPE = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_INFO_TYPE = "type.googleapis.com/google.rpc.ErrorInfo"
#: How Google names the limit of a project.
_PROJECT_LIMIT = {
    "reason": "RATE_LIMIT_EXCEEDED",
    "domain": "googleapis.com",
    "metadata": {"service": "fcm.googleapis.com", "quota_limit": "MessagesPerMinutePerProject"},
}
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_MESSAGES = {
    "UNREGISTERED": "Requested entity was not found.",
    "SENDER_ID_MISMATCH": "SenderId mismatch",
    "QUOTA_EXCEEDED": "Message rate exceeded quota.",
    "UNAVAILABLE": "The service is currently unavailable.",
    "INTERNAL": "Internal error encountered.",
    "THIRD_PARTY_AUTH_ERROR": "Auth error from APNS or Web Push Service",
    "INVALID_ARGUMENT": "Request contains an invalid argument.",
}
#: What a status alone means; the others would blame the address or the app's own credentials.
_CODES = {400: "INVALID_ARGUMENT", 429: "QUOTA_EXCEEDED", 500: "INTERNAL", 503: "UNAVAILABLE"}
_STATUSES = dict(FCM_ERRORS.values())


class Invalid(ValueError):
    """The message is not what FCM takes."""


class Fcm:
    """The endpoints. ``arrive`` is called with each push that a phone gets."""

    def __init__(self, books: Books, accounts: Accounts, arrive: Callable[[ReceivedPush], None]) -> None:
        self._books = books
        self._accounts = accounts
        self._arrive = arrive

    def routes(self) -> list[web.RouteDef]:
        """Return what is served."""
        # The colon is part of FCM's address, so the last part is taken whole.
        return [web.post("/v1/projects/{project}/messages:send", self._send), web.post("/token", self._token)]

    async def _token(self, request: web.Request) -> web.Response:
        self._books.count("token")
        answer = self._books.take_answer("token", None) or ORDINARY
        if answer.refuses:
            refusal = json_response(
                {"error": "internal_failure", "error_description": "Backend Error"}, answer.status or 500
            )
            return await play(answer, request, refusal)
        form = await request.post()
        if form.get("grant_type") != _GRANT:
            told = {"error": "unsupported_grant_type", "error_description": "Invalid grant_type: "}
            return json_response(told, 400)
        try:
            granted = self._accounts.grant(str(form.get("assertion", "")), f"{request.url.origin()}/token")
        except InvalidGrantError as error:
            return json_response({"error": "invalid_grant", "error_description": str(error)}, 400)
        return await play(answer, request, json_response(granted))

    async def _send(self, request: web.Request) -> web.Response:
        self._books.count("push")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self._accounts.knows_token(token):
            return _refusal(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.", None)
        try:
            body = await read_json(request)
            registration, message = _parse(body)
        except ValueError as error:
            return _refusal(400, "INVALID_ARGUMENT", str(error), "INVALID_ARGUMENT")
        if withdrawn := message.get("data", {}).get(WITHDRAW_FIELD):
            return self._withdraw(registration, withdrawn, request)
        answer = self._answer(registration)
        name = f"projects/{request.match_info['project']}/messages/{_message_id()}"
        if answer.books and not body.get("validate_only"):
            push = _received(name, registration, message)
            self._books.add_push(push)
            self._arrive(push)
        response = _refused(answer) if answer.refuses else json_response({"name": name})
        return await play(answer, request, response)

    def _withdraw(self, registration: str, id_: str, request: web.Request) -> web.Response:
        """Let the app on the phone do what it should; rules are about pushes that show something."""
        if not self._books.phone(registration).registered:
            return _refused(Answer(error_code="UNREGISTERED"))
        self._books.withdraw(registration, id_)
        return json_response({"name": f"projects/{request.match_info['project']}/messages/{_message_id()}"})

    def _answer(self, registration: str) -> Answer:
        answer = self._books.take_answer("push", registration) or ORDINARY
        if answer.ordinary and not self._books.phone(registration).registered:
            return replace(answer, error_code="UNREGISTERED", statuses=None)
        return answer


def _parse(body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Check what FCM checks, as far as it matters to us, and return registration and message."""
    if unknown := sorted(set(body) - {"message", "validate_only", "validateOnly"}):
        raise Invalid(f'Invalid JSON payload received. Unknown name "{unknown[0]}": Cannot find field.')
    message = _object(body.get("message"), "message")
    if unknown := sorted(set(message) - _FIELDS):
        raise Invalid(f"Invalid JSON payload received. Unknown name \"{unknown[0]}\" at 'message': Cannot find field.")
    targets = [name for name in ("token", "fid") if name in message]
    if len(targets) != 1:
        raise Invalid("Exactly one of the message's recipients (token, fid) must be set.")
    registration = message[targets[0]]
    if not isinstance(registration, str) or not registration.strip():
        raise Invalid("The registration token is not a valid FCM registration token")
    data = _strings(message.get("data", {}), "message.data")
    for key in data:
        if key in {"from", "message_type"} or key.startswith(("google.", "gcm.")):
            raise Invalid(f"Invalid data payload key: {key}")
    notification = _strings(message.get("notification", {}), "message.notification")
    for platform, fields in PLATFORMS.items():
        try:
            typed(fields, message.get(platform, {}), f"message.{platform}", _strings)
        except InvalidMessage as error:
            raise Invalid(f"Invalid value at '{error.field}': {error.problem}") from None
    _require_sizes(message, data, notification)
    return registration, message


def _require_sizes(message: Mapping[str, Any], data: Mapping[str, str], notification: Mapping[str, str]) -> None:
    """Refuse what is too big for a platform: its data and what it shows, its own in place of the common ones."""
    for platform in ("android", "webpush"):
        own = message.get(platform, {})
        shown = {**notification, **own.get("notification", {})}
        if _weight(own.get("data", data)) + _weight(shown) > _PAYLOAD_LIMIT:
            raise Invalid(f"{platform.capitalize()} message is too big")


def _weight(texts: Mapping[str, object]) -> int:
    return sum(len(name.encode()) + len(str(value).encode()) for name, value in texts.items())


def _object(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"Invalid value at '{path}'")
    return value


def _strings(value: object, path: str) -> dict[str, str]:
    found = _object(value, path)
    for key, item in found.items():
        if not isinstance(item, str):
            raise Invalid(f"Invalid value at '{path}.{key}' (TYPE_STRING)")
    return found


def _received(name: str, registration: str, message: Mapping[str, Any]) -> ReceivedPush:
    data, notification = message.get("data", {}), message.get("notification", {})
    return ReceivedPush(
        name=name,
        registration=registration,
        notification_id=data.get(ID_FIELD),
        title=notification.get("title"),
        body=notification.get("body"),
        data=data,
        message=message,
        tag=_tag(message) or name,
        at=datetime.now(UTC),
    )


def _tag(message: Mapping[str, Any]) -> str | None:
    """Return the name under which the screen shows it: Android's tag, APNs' collapse id or the web's tag."""
    for place in (
        ("android", "notification", "tag"),
        ("apns", "headers", "apns-collapse-id"),
        ("webpush", "notification", "tag"),
    ):
        found: Any = message
        for step in place:
            found = found.get(step) if isinstance(found, dict) else None
        if isinstance(found, str) and found:
            return found
    return None


def _message_id() -> str:
    return f"0:{secrets.randbelow(10**16):016d}%{secrets.token_hex(8)}"


def _refused(answer: Answer) -> web.Response:
    code = str(answer.error_code) if answer.error_code else _CODES.get(answer.status or 500)
    status = answer.status or FCM_ERRORS[str(code)][0]
    if answer.foreign:
        return web.Response(text="<h1>Not found</h1>", content_type="text/html", status=status)
    info = _PROJECT_LIMIT if answer.of_project else None
    return _refusal(status, _STATUSES.get(status, "UNKNOWN"), _MESSAGES.get(str(code), "Refused."), code, info)


def _refusal(
    status: int, google: str, message: str, code: str | None, info: Mapping[str, Any] | None = None
) -> web.Response:
    error: dict[str, Any] = {"code": status, "message": message, "status": google}
    details: list[dict[str, Any]] = [{"@type": _ERROR_TYPE, "errorCode": code}] if code else []
    if info:
        details.append({"@type": _INFO_TYPE, **info})
    if details:
        error["details"] = details
    return json_response({"error": error}, status)
