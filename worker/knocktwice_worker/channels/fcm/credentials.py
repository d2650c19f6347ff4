"""The service account: its access token, renewed in time, and its Firebase project."""

from __future__ import annotations

import threading
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from knocktwice_worker.channels.outcomes import CredentialsUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from firebase_admin.credentials import Base

#: Google's token server gets this long (seconds).
_TOKEN_TIMEOUT_S = 10


class ServiceAccount:
    """A channel's account at Google. Threads may share it.

    Args:
        file: the service account; ``None`` takes Google's application default credentials.
        project: the Firebase project; ``None`` takes the credentials' own.
    """

    def __init__(self, file: Path | None, project: str | None) -> None:
        self._file = file
        self._named = project
        self._refreshing = threading.Lock()
        self._refused = False

    def authorize(self) -> None:
        """Get an access token if there is none, or a new one a few minutes before it ends.

        Raises:
            CredentialsUnavailable: there are none, Google gives no token, or no project is known.
        """
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

    def _renew_token(self) -> None:
        """Let the next :meth:`authorize` get a new token, because FCM refuses this one."""
        self._refused = True

    @property
    def _token(self) -> str | None:
        token: str | None = self._credential.token
        return token

    @cached_property
    def _project(self) -> str:
        project: str | None = self._named or getattr(self._certificate, "project_id", None)
        if not project:
            raise CredentialsUnavailable("KNOCKTWICE_FCM_PROJECT: the credentials name no Firebase project, so set it")
        return project

    @cached_property
    def _certificate(self) -> Base:
        # Not at import: firebase-admin takes half a second, and the command line does not need it.
        from firebase_admin.credentials import ApplicationDefault, Certificate

        try:
            return Certificate(str(self._file)) if self._file else ApplicationDefault()
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
        # Without a project no push can be sent either, so its lack is told now.
        _ = self._project
