"""FCM's answers: what it says of a device, of the message, of our credentials or of the project's limit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta

from knocktwice_worker.channels.http import Response, retry_after
from knocktwice_worker.channels.outcomes import Outcome, Rejected, Retry, Sent, Unknown

#: The project's limit pauses the pushes of all people, so no answer pauses them for longer than this at a time.
LONGEST_PAUSE = timedelta(seconds=60)
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


def sent(body: bytes) -> Outcome:
    """Read the answer to a push that FCM took."""
    try:
        name = json.loads(body)["name"]
    except (ValueError, KeyError, TypeError):
        name = None
    if isinstance(name, str) and name:
        return Sent(name)
    return Unknown("FCM answered 200 without a message name")


@dataclass(frozen=True, slots=True)
class FcmError:
    """FCM's error; its message may quote the address and is left out.

    Attributes:
        code: FCM's own code, which it gives when it speaks of the device or of the message.
        status: Google's status.
        of_project: a limit of the whole project is used up; FCM limits single devices and topics, too.
    """

    code: str | None = None
    status: str | None = None
    of_project: bool = False


def read_error(body: bytes) -> FcmError:
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
    return FcmError(code, status, of_project)


def refuses_credentials(answer: Response, error: FcmError) -> bool:
    """Return whether FCM refuses our token: it was revoked, or the service account may not send."""
    return answer.status in (401, 403) and error.code not in _REJECTIONS


def failure(answer: Response, error: FcmError) -> Outcome:
    """Return what an answer other than 200 means, with the error that it holds."""
    if error.code in _REJECTIONS:
        return _REJECTIONS[error.code]
    name = error.code or error.status or answer.status
    wait = retry_after(answer)
    if answer.status == 429:
        return _limited(name, wait) if error.of_project else Retry(f"FCM {name}", wait)
    if refuses_credentials(answer, error):
        return Retry(f"FCM refuses our credentials ({name})", wait, operators=True)
    if answer.status >= 500:
        return Unknown(f"FCM {name}", wait)
    if answer.status == 400:
        return _REJECTIONS.get(error.status or "", Rejected("refused", f"FCM {name}"))
    if error.code is None:
        # FCM names an error of its own whenever it speaks of a device. This is a wrong project, a wrong address or a
        # proxy's page, and a person has to mend it.
        why = f"FCM {name} says nothing of the device: check KNOCKTWICE_FCM_PROJECT and KNOCKTWICE_FCM_URL"
        return Retry(why, wait, operators=True)
    return Rejected("refused", f"FCM {name}")


def _limited(name: str | int, wait: timedelta | None) -> Retry:
    """Return that the project gets more than it may send."""
    return Retry(f"FCM {name}", wait and min(wait, LONGEST_PAUSE), too_fast=True)
