"""A real browser, and the whole stack behind the pages."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect, sync_playwright

from support.stack import Stack
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

#: Milliseconds until something that never comes fails a test; only a failing test waits that long.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


# Per module: while Playwright runs, no other test of this process can have an event loop of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. In CI a missing browser is a failure."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium: .ci/run installs it")
        pytest.skip("no chromium: apt install chromium")
    with sync_playwright() as playwright:
        # Its sandbox needs rights that root in a container lacks; the pages are our own.
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """``knocktwice up``, for all tests of a file."""
    built = Stack(tmp_path_factory.mktemp("stack") / ".knocktwice")
    eventually(lambda: "Ctrl-C ends everything" in built.said(), why=built.said)
    yield built
    built.process.terminate()
    built.process.wait(90)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty tab; an error in its console or its script fails the test."""
    context = browser.new_context(viewport={"width": 1440, "height": 950})
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    opened.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    yield opened
    context.close()
    assert wrong == []
