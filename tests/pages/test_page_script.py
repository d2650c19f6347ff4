"""The page of the guide to phones and pages, in a real browser: what it says of its visitor, and what its service
worker reports.

There is no network, so the page gets no registration from FCM: the one file that asks Firebase for it is replaced by
one that names a phone of the sandbox. What the sandbox's FCM then takes for this phone is handed to the browser by its
debugger, in the form in which FCM hands it to a service worker.
"""

from __future__ import annotations

import json
import shlex
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.sync_api import expect
from werkzeug.serving import make_server

from knocktwice_shared.names import STACK_FILE
from support.documents import ROOT, files
from support.ports import free_port
from support.stack import Stack
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Page, Worker

#: Replaces the file that asks Firebase for a registration.
REGISTRATION = 'export const registrationOf = async () => "web-phone-of-eve";\n'
SECRET = "a-secret-of-the-tests-that-is-long-enough"


@pytest.fixture(scope="module")
def origin() -> str:
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, origin: str) -> Iterator[Stack]:
    """``knocktwice up`` that lets the page call."""
    allowed = {"KNOCKTWICE_GATEWAY_ORIGINS": json.dumps([origin]), "KNOCKTWICE_USER_TOKEN_SECRET": SECRET}
    built = Stack(tmp_path_factory.mktemp("stack") / ".knocktwice", **allowed)
    try:
        eventually(lambda: _answers(built.gateway) and _answers(built.sandbox), within=180, why=built.said)
        yield built
    finally:
        built.process.terminate()
        built.process.wait(90)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/").status_code < 500
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def shop(stack: Stack, origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The application of the guide, served at its origin."""
    folder = tmp_path_factory.mktemp("shop")
    told = files(ROOT / "docs" / "phones-and-pages.md") | {"static/firebase.js": REGISTRATION}
    for file, text in told.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GATEWAY", f"http://127.0.0.1:{stack.gateway}")
        environment.setenv("SESSION_SECRET", "test")
        environment.setenv("KNOCKTWICE_USER_TOKEN_SECRET", SECRET)
        app = _load(folder)
        server = make_server("127.0.0.1", int(origin.rpartition(":")[2]), app, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield origin
        server.shutdown()
        thread.join()
        server.server_close()


def _load(folder: Path) -> Any:
    names: dict[str, Any] = {"__name__": "shop", "__file__": str(folder / "app.py")}
    exec((folder / "app.py").read_text(), names)  # noqa: S102 - our own document
    app = names["app"]
    app.root_path, app.template_folder = str(folder), "templates"
    app.static_folder = str(folder / "static")
    return app


@pytest.fixture
def backend(stack: Stack) -> Iterator[httpx.Client]:
    """What the application's backend does, with its key."""
    words = dict(word.split("=", 1) for word in shlex.split((stack.home / STACK_FILE).read_text()) if "=" in word)
    headers = {"Authorization": f"Bearer {words['KEY']}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.gateway}", headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
def sandbox(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.sandbox}", timeout=30) as client:
        yield client


def _visit(browser: Browser, shop: str, user: str, permission: str) -> tuple[BrowserContext, Page]:
    """Log in and open the page, in a browser that has this answer to the question for permission."""
    context = browser.new_context()
    # Whatever is not granted here is denied.
    context.grant_permissions(["notifications" if permission == "granted" else "geolocation"], origin=shop)
    page = context.new_page()
    context.request.post(f"{shop}/login/{user}")
    page.goto(shop)
    return context, page


def _members(backend: httpx.Client) -> list[str]:
    """Who has notifications off and a number, as the segment of the guide says."""
    page = (ROOT / "docs" / "phones-and-pages.md").read_text()
    (filter_,) = [json.loads(line) for line in page.splitlines() if line.startswith('{"and"')]
    found = backend.post("/v1/audience/preview", json={"filter": filter_, "sample": 10}).json()
    return list(found["sample"])


def test_who_denies_notifications_is_tagged_is_in_the_segment_and_is_texted(
    browser: Browser, shop: str, backend: httpx.Client, sandbox: httpx.Client
) -> None:
    backend.put("/v1/users/dora/phone", json={"phone": "+16505550177"})
    context, page = _visit(browser, shop, "dora", "denied")
    expect(page.locator("#state")).to_have_text("off")
    assert page.evaluate("Notification.permission") == "denied"
    eventually(lambda: _members(backend) == ["dora"])
    page.get_by_role("button", name="Switch them on").click()
    expect(page.locator("#state")).to_have_text("off")
    blast = {
        "key": "off-and-texted",
        "segment": {"field": "tags.subscribed_to_push", "op": "=", "value": False},
        "only": "sms",
        "sms": {"text": "Your order waits at the counter."},
        "category": "transactional",
    }
    assert backend.post("/v1/blasts", json=blast).status_code == 202
    eventually(lambda: sandbox.get("/sandbox/texts", params={"to": "+16505550177"}).json()["texts"])
    context.close()


def test_who_grants_notifications_gets_a_push_whose_delivery_and_click_are_reported(
    browser: Browser, shop: str, backend: httpx.Client, sandbox: httpx.Client
) -> None:
    context, page = _visit(browser, shop, "eve", "granted")
    expect(page.locator("#state")).to_have_text("on")
    worker = context.service_workers[0] if context.service_workers else context.wait_for_event("serviceworker")
    eventually(lambda: backend.get("/v1/users/eve").json().get("devices"))
    accepted = backend.post(
        "/v1/notifications",
        json={
            "user": "eve",
            "push": {"title": "Your order is ready", "body": "It waits.", "link": "https://shop.example/orders/4711"},
            "sms": {"text": "It waits.", "when": "not_clicked", "after_s": 3_600},
        },
    ).json()
    (id_,) = accepted["ids"]
    query = {"registration": "web-phone-of-eve"}
    (push,) = eventually(lambda: sandbox.get("/sandbox/pushes", params=query).json()["pushes"])
    _deliver(context, page, shop, push["message"])
    eventually(lambda: "delivered" in _kinds(backend, id_))
    shown = worker.evaluate(
        "async () => (await self.registration.getNotifications()).map(({title, body, tag}) => ({title, body, tag}))"
    )
    assert shown == [{"title": "Your order is ready", "body": "It waits.", "tag": id_}]
    _click(worker)
    story = eventually(lambda: told if (told := _story(backend, id_))["state"] == "reached" else None)
    assert story["state"] == "reached"
    assert worker.evaluate("async () => (await self.registration.getNotifications()).length") == 0
    context.close()


def test_a_visitor_proves_a_number_on_the_page(
    browser: Browser, shop: str, backend: httpx.Client, sandbox: httpx.Client
) -> None:
    context, page = _visit(browser, shop, "fay", "denied")
    expect(page.locator("#state")).to_have_text("off")
    made = "window.knocktwice = new Knocktwice({ token: () => fetch('/push-token', { method: 'POST' }).then((a) => a.text()) })"
    page.evaluate(f"{made}; knocktwice.sendCode('+1 650 555 0178')")
    (text,) = eventually(lambda: sandbox.get("/sandbox/texts", params={"to": "+16505550178"}).json()["texts"])
    refused = page.evaluate("knocktwice.verify('nonsense').catch((error) => [error.name, error.status])")
    assert refused == ["KnocktwiceError", 422]
    page.evaluate(f"knocktwice.verify('{text['body'][:6]}')")
    eventually(lambda: backend.get("/v1/users/fay").json().get("phone") == "+16505550178")
    context.close()


def test_a_push_that_an_sms_has_overtaken_is_closed(browser: Browser, shop: str) -> None:
    context, page = _visit(browser, shop, "eve", "granted")
    expect(page.locator("#state")).to_have_text("on")
    worker = context.service_workers[0] if context.service_workers else context.wait_for_event("serviceworker")
    tags = "async () => (await self.registration.getNotifications()).map(({tag}) => tag).sort()"
    for tag in ("n-1", "n-2"):
        # Chromium closes others by itself after a while.
        web = {"notification": {"tag": tag, "requireInteraction": True}}
        _deliver(context, page, shop, {"notification": {"title": "A"}, "webpush": web})
    eventually(lambda: worker.evaluate(tags) == ["n-1", "n-2"])
    _deliver(context, page, shop, {"data": {"knocktwice_withdraw": "n-1"}})
    eventually(lambda: worker.evaluate(tags) == ["n-2"], within=30)
    context.close()


def _kinds(backend: httpx.Client, id_: str) -> str:
    return json.dumps(_story(backend, id_))


def _story(backend: httpx.Client, id_: str) -> dict[str, Any]:
    told: dict[str, Any] = backend.get(f"/v1/notifications/{id_}").json()
    return told


def _deliver(context: BrowserContext, page: Page, origin: str, message: dict[str, Any]) -> None:
    """Hand a message to the page's service worker as FCM does: what is for the web stands over what is for all."""
    web = message.get("webpush", {})
    payload: dict[str, Any] = {"data": {**message.get("data", {}), **web.get("data", {})}, "fcmMessageId": "1"}
    if "notification" in message:
        payload["notification"] = {**message["notification"], **web.get("notification", {})}
    if "fcm_options" in web:
        payload["fcmOptions"] = web["fcm_options"]
    session = context.new_cdp_session(page)
    seen: list[str] = []
    session.on(
        "ServiceWorker.workerRegistrationUpdated",
        lambda told: seen.extend(one["registrationId"] for one in told["registrations"] if not one["isDeleted"]),
    )
    session.send("ServiceWorker.enable")

    def told_of() -> list[str]:
        # Events come only while the page is waited for.
        page.wait_for_timeout(20)
        return seen

    eventually(told_of)
    told = {"origin": origin, "registrationId": seen[0], "data": json.dumps(payload)}
    session.send("ServiceWorker.deliverPushMessage", told)
    session.detach()


def _click(worker: Worker) -> None:
    """Click the notification that is shown.

    No debugger clicks one, so the event comes from a script, whose waiting is done here.
    """
    worker.evaluate("""async () => {
        const [notification] = await self.registration.getNotifications();
        const event = new NotificationEvent("notificationclick", { notification });
        let done;
        event.waitUntil = (promise) => { done = promise; };
        self.dispatchEvent(event);
        await done;
    }""")
