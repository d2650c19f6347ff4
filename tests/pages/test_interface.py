"""The gateway's page about its interface: complete, from this package alone, and it can send."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from knocktwice_shared.names import Queue
from knocktwice_worker.services import Services
from support.http_gateway import HttpGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis
    from playwright.sync_api import Page


@pytest.fixture
def shown(here: Services) -> Iterator[HttpGateway]:
    services = Services(here.settings.model_copy(update={"gateway_docs": True}))
    with HttpGateway(services) as running:
        yield running
    services.close()


def test_the_interface_is_shown_offline_and_can_be_tried(page: Page, shown: HttpGateway, valkey: redis.Redis) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(shown.url)
    expect(page.locator("main[data-ready=yes]")).to_be_visible()
    assert urlsplit(page.url).path == "/docs"
    paths = page.request.get(f"{shown.url}/openapi.json").json()["paths"]
    expect(page.locator("details")).to_have_count(sum(map(len, paths.values())))
    one = page.locator("details", has=page.locator("summary code", has_text="/v1/notifications").first)
    one = one.filter(has=page.locator("summary .method", has_text="POST")).first
    one.locator("summary").click()
    one.locator("textarea").fill(
        '{"registrations": ["a-registration"], "push": {"title": "Hello", "body": "Knock knock"}}'
    )
    page.fill("#key", shown.key())
    one.get_by_role("button", name="Send").click()
    expect(one.locator("pre")).to_contain_text("202")
    assert valkey.llen(Queue.PUSH.value) == 1
    assert {urlsplit(url).hostname for url in asked} == {"127.0.0.1"}
