"""The channel of pushes: requests to FCM, with an access token, and what its answers mean."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from knocktwice_worker.channels.fcm.answers import REJECTIONS, limited, read_error, sent
from knocktwice_worker.channels.fcm.form import Form, withdrawal
from knocktwice_worker.channels.http import NoResponse, Request, Response, retry_after
from knocktwice_worker.channels.messages import PushMessage, Withdrawal
from knocktwice_worker.channels.outcomes import CredentialsUnavailable, Outcome, Rejected, Retry, Unknown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from firebase_admin.credentials import Base

#: Google's token server gets this long (seconds).
_TOKEN_TIMEOUT_S = 10
#: A device of another project, or credentials of another project: the answer is the same. It is the device's once a
#: push of this process was taken, and of no more devices in a row than so many; else the credentials', which the
#: operator mends.
_MISMATCH, _FEW_MISMATCHES = "SENDER_ID_MISMATCH", 2
#: The wait before another try of what the operator must mend first.
_OPERATORS_PAUSE = timedelta(minutes=1)


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
        self._kept_form: Form | None = None

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
        body = withdrawal(message) if isinstance(message, Withdrawal) else self._body(message)
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
            self._kept_form = kept = Form(message, now)
        return kept.fill(message)

    def outcome(self, answer: Response | NoResponse) -> Outcome:
        """Read FCM's answer."""
        if isinstance(answer, NoResponse):
            return Unknown(answer.reason) if answer.sent else Retry(answer.reason)
        if answer.status == 200:
            self._mismatches = 0
            return sent(answer.body)
        error = read_error(answer.body)
        if error.code == _MISMATCH:
            self._mismatches += 1
            if self._mismatches > _FEW_MISMATCHES:
                # Not one device of the project is known to work with these credentials.
                why = "FCM SENDER_ID_MISMATCH for every device: the credentials are of another Firebase project"
                return Retry(why, _OPERATORS_PAUSE, operators=True)
        if error.code in REJECTIONS:
            return REJECTIONS[error.code]
        name = error.code or error.status or answer.status
        wait = retry_after(answer)
        if answer.status == 429:
            return limited(name, wait) if error.of_project else Retry(f"FCM {name}", wait)
        if answer.status in (401, 403):
            # The token was revoked, or the service account may not send: a person has to mend that.
            self._refused = True
            return Retry(f"FCM refuses our credentials ({name})", wait, operators=True)
        if answer.status >= 500:
            return Unknown(f"FCM {name}", wait)
        if answer.status == 400:
            return REJECTIONS.get(error.status or "", Rejected("refused", f"FCM {name}"))
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
