"""A sandbox, and the libraries of Google and Twilio pointed at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import firebase_admin
import httpx
import pytest
from firebase_admin import credentials, messaging
from google.auth.transport.requests import Request as TokenRequest
from google.oauth2.service_account import Credentials
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from knocktwice_worker.sandbox import Sandbox
from support.provider_clients import App

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keeps the service account, so that its key is made once."""
    return tmp_path_factory.mktemp("account")


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def sandbox(app: App) -> Iterator[Sandbox]:
    with Sandbox(report=app.report) as running:
        yield running


@pytest.fixture
def environment(sandbox: Sandbox, folder: Path) -> dict[str, str]:
    return sandbox.environment(folder)


@pytest.fixture
def fcm(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[firebase_admin.App]:
    """firebase-admin, pointed at the sandbox."""
    address = environment["KNOCKTWICE_FCM_URL"] + "/v1/projects/{0}/messages:send"
    monkeypatch.setattr(messaging._MessagingService, "FCM_URL", address)
    # Google's library would look up the account's regions at Google, in the background.
    monkeypatch.setattr(Credentials, "_is_regional_access_boundary_lookup_required", lambda _: False)
    certificate = credentials.Certificate(environment["GOOGLE_APPLICATION_CREDENTIALS"])
    built = firebase_admin.initialize_app(certificate, name="sandbox")
    yield built
    messaging._get_messaging_service(built)._client.close()
    firebase_admin.delete_app(built)


@pytest.fixture
def twilio(environment: dict[str, str]) -> Iterator[Client]:
    """Twilio's SDK, pointed at the sandbox."""
    http = TwilioHttpClient(timeout=5)
    client = Client(environment["TWILIO_ACCOUNT_SID"], environment["TWILIO_AUTH_TOKEN"], http_client=http)
    client.api.base_url = environment["KNOCKTWICE_TWILIO_URL"]
    yield client
    if http.session is not None:
        http.session.close()


@pytest.fixture
def web(sandbox: Sandbox) -> Iterator[httpx.Client]:
    """Anybody with HTTP."""
    with httpx.Client(base_url=sandbox.url, timeout=5, trust_env=False) as client:
        yield client


@pytest.fixture
def google(web: httpx.Client, environment: dict[str, str]) -> httpx.Client:
    """HTTP with an access token, got as Google's library gets it."""
    account = Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
        environment["GOOGLE_APPLICATION_CREDENTIALS"],
        scopes=["https://www.googleapis.com/auth/firebase.messaging"],
    )
    session = TokenRequest()
    account.refresh(session)
    session.session.close()
    web.headers["authorization"] = f"Bearer {account.token}"
    return web
