"""The channel of pushes: requests to FCM, with an access token, and what its answers mean."""

from __future__ import annotations

import time
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from knocktwice_worker.channels.fcm.answers import failure, read_error, refuses_credentials, sent
from knocktwice_worker.channels.fcm.credentials import ServiceAccount
from knocktwice_worker.channels.fcm.form import Form, withdrawal
from knocktwice_worker.channels.http import NoResponse, Request, Response
from knocktwice_worker.channels.messages import PushMessage, Withdrawal
from knocktwice_worker.channels.outcomes import Outcome, Retry, Unknown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: A device of another project, or credentials of another project: the answer is the same. It is the device's once a
#: push of this process was taken, and of no more devices in a row than so many; else the credentials', which the
#: operator mends.
_MISMATCH, _FEW_MISMATCHES = "SENDER_ID_MISMATCH", 2
#: The wait before another try of what the operator must mend first.
_OPERATORS_PAUSE = timedelta(minutes=1)


class FcmChannel(ServiceAccount):
    """Firebase Cloud Messaging.

    Args:
        url: FCM's address.
        credentials_file: the service account; ``None`` takes Google's application default credentials.
        project: the Firebase project; ``None`` takes the credentials' own.
    """

    name = "push"

    def __init__(self, *, url: str, credentials_file: Path | None, project: str | None) -> None:
        super().__init__(credentials_file, project)
        self._url = url.rstrip("/")
        #: Devices of another project since the last push that was taken; before the first one, nobody's fault is known.
        self._mismatches = _FEW_MISMATCHES
        self._kept_headers: tuple[str | None, Mapping[str, str]] | None = None
        self._kept_form: Form | None = None

    def request(self, message: PushMessage | Withdrawal) -> Request:
        """Encode one push, or the silent one that withdraws it."""
        body = withdrawal(message) if isinstance(message, Withdrawal) else self._body(message)
        return Request(url=self._endpoint, headers=self._headers(), body=body, repeatable=True)

    @cached_property
    def _endpoint(self) -> str:
        return f"{self._url}/v1/projects/{self._project}/messages:send"

    def _headers(self) -> Mapping[str, str]:
        # The same object as long as it says the same: the HTTP engine then need not read it again.
        token = self._token
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
        if refuses_credentials(answer, error):
            self._renew_token()
        return failure(answer, error)
