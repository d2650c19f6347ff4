"""FCM's answers: what it says of a device, of the message, of our credentials or of the project's limit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta

from knocktwice_worker.channels.outcomes import Outcome, Rejected, Retry, Sent, Unknown

#: The project's limit pauses the pushes of all people, so no answer pauses them for longer than this at a time.
LONGEST_PAUSE = timedelta(seconds=60)
#: https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode
REJECTIONS = {
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


def limited(name: str | int, wait: timedelta | None) -> Retry:
    """Return that the project gets more than it may send."""
    return Retry(f"FCM {name}", wait and min(wait, LONGEST_PAUSE), too_fast=True)


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
