"""All pages of the tab in a real browser: in both schemes, narrow and wide, behind a prefix and a password,
and by keyboard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest
import sqlalchemy as sa
from playwright.sync_api import ViewportSize

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch, parse_blast
from knocktwice_shared.names import Task
from knocktwice_worker.audience import segments
from knocktwice_worker.audience.segment_filter import parse
from knocktwice_worker.blasts import states
from knocktwice_worker.content import template_store, templates
from knocktwice_worker.flower import listings
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.notifications.store.paused import Scope
from knocktwice_worker.services import Services
from knocktwice_worker.switches import overrides, pauses
from knocktwice_worker.switches.audit import By
from knocktwice_worker.webhooks import endpoints
from support import accessibility
from support.flower import flower

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from knocktwice_worker.config import Settings

WIDE = ViewportSize(width=1440, height=900)
PHONE = ViewportSize(width=390, height=800)
PATHS = ("", "/find", "/blasts", "/switches", *(f"/{name}" for name in listings.PAGES), "/content?template=tea")


@pytest.fixture
def unknown(working: Services) -> str:
    """Rows on every page; return a notification of unknown outcome."""
    return filled(working)


def filled(working: Services) -> str:
    """Write rows for every page; return a notification of unknown outcome."""
    here = Services(working.settings.model_copy(update={"quiet_hours": ""}))
    id_ = str(uuid7())
    wire: dict[str, Any] = {"v": 1, "id": str(uuid7()), "content": {"sms": {"text": "Hello"}}, "only": "sms"}
    here.pushes.send(parse_batch({**wire, "recipients": [{"id": id_, "phone": "+16505550100"}]}))
    assert here.later_steps.send(here.fallback.check([id_])) == [id_]
    by = By("ada", "the wrong text went out")
    with here.engine.begin() as conn:
        definition = {"default_locale": "en", "contents": {"en": {"push": {"title": "Tea", "body": "It is ready."}}}}
        template_store.put(conn, "tea", templates.check("tea", definition))
        segments.put(conn, "gold", parse({"field": "locale", "op": "=", "value": "de"}))
        said = {"push": {"title": "Tea", "body": "It is ready."}}
        blast = {"v": 1, "key": "tea-1", "filter": {"everyone": True}, "content": said}
        states.start(conn, parse_blast(blast), {"everyone": True})
        pauses.pause(conn, Scope("sms"), by)
        overrides.change(conn, here.settings, "sms_per_day", "7", by)
        endpoints.add(conn, "https://shop.example/hooks", private=True)
        conn.execute(sa.text("UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = 'it answers 410'"))
        dead_letters.park(conn, message_id=None, task=Task.CANCEL, reason="failed 5 times: it is odd", payload="{}")
        for lost in (
            "deliveries SET state = 'unknown' WHERE step = 1 AND",
            "notifications SET state = 'unknown' WHERE",
        ):
            column = "notification_id" if lost.startswith("deliveries") else "id"
            conn.execute(sa.text(f"UPDATE {lost} {column} = :id"), {"id": id_})
    here.close()
    return id_


def opened(browser: Browser, scheme: Literal["light", "dark"] = "light", **more: Any) -> tuple[Page, list[str]]:
    """Return an empty tab of a browser, and the list that errors of its console are written to."""
    page = browser.new_context(color_scheme=scheme, viewport=WIDE, **more).new_page()
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    return page, wrong


def walked(browser: Browser, url: str, scheme: Literal["light", "dark"], paths: Iterable[str], **login: str) -> None:
    """Open every page: nothing can be changed, links keep the prefix, everybody can read it,
    and a phone is wide enough.
    """
    page, wrong = opened(browser, scheme, http_credentials=login)
    for path in paths:
        page.goto(f"{url}/notifications{path}")
        assert page.locator("html").get_attribute("data-bs-theme") == scheme
        assert page.locator("main form[method=post], .kt-card form[method=post]").count() == 0, path
        links = page.locator("main a, .kt-tabs a, .kt-card a").evaluate_all("all => all.map(a => a.pathname)")
        assert [link for link in links if not link.startswith("/ops/")] == [], path
        assert accessibility.findings(page) == [], (path, scheme)
        page.set_viewport_size(PHONE)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        page.set_viewport_size(WIDE)
    assert wrong == []
    page.context.close()


def test_behind_a_prefix_and_a_password_every_page_can_be_read_by_everybody_and_changes_nothing(
    browser: Browser, settings: Settings, tmp_path: Path, working: Services
) -> None:
    login = {"username": "ada", "password": "lovelace"}
    with flower(settings, tmp_path, "ops", FLOWER_BASIC_AUTH="ada:lovelace") as url:
        # A new installation has nothing to show.
        walked(browser, url, "dark", PATHS, **login)
        paths = (*PATHS, f"/one/{filled(working)}")
        walked(browser, url, "light", paths, **login)
        walked(browser, url, "dark", paths, **login)


# Everything that Tab stops at, in the order of the document; and whether a stop can be seen.
_STOPS = """() => [...document.querySelectorAll('a[href], button, input, select, [tabindex="0"]')]
  .filter(one => !one.disabled && one.type !== 'hidden' && one.checkVisibility() && one.tabIndex >= 0).length"""
_SEEN = """() => {
  const one = document.activeElement, style = getComputedStyle(one)
  const all = [...document.querySelectorAll('a[href], button, input, select, [tabindex="0"]')]
  const shown = style.outlineStyle !== 'none' && style.outlineWidth !== '0px' || style.boxShadow !== 'none'
  return [all.indexOf(one), shown, one.outerHTML.slice(0, 160)]
}"""


def test_by_keyboard_every_page_is_walked_in_the_order_in_which_it_is_read_and_shows_where_one_is(
    browser: Browser, settings: Settings, tmp_path: Path, unknown: str
) -> None:
    with flower(settings, tmp_path, KNOCKTWICE_FLOWER_ACTIONS="true") as url:
        page, wrong = opened(browser)
        for path in (*PATHS, f"/one/{unknown}"):
            page.goto(f"{url}/notifications{path}")
            assert accessibility.findings(page) == [], path
            places = []
            for _ in range(page.evaluate(_STOPS)):
                page.keyboard.press("Tab")
                place, shown, what = page.evaluate(_SEEN)
                assert shown, (path, what)
                places.append(place)
            assert places == sorted(set(places)), path
        page.goto(f"{url}/notifications/parked")
        opener, dialog = page.get_by_role("button", name="Forget…"), page.get_by_role("dialog")
        opener.press("Enter")
        # Without a reason nothing can be forgotten, and the dialog says so.
        assert dialog.get_by_role("button").all_inner_texts() == ["Leave it"]
        assert "A reason is needed" in dialog.inner_text()
        page.keyboard.press("Escape")
        page.get_by_label("Reason for 1").fill("nobody needs it")
        opener.press("Space")
        assert dialog.get_by_role("button").all_inner_texts() == ["Forget", "Leave it"]
        assert "A reason is needed" not in dialog.inner_text()
        for _ in range(4):
            page.keyboard.press("Tab")
            inside = page.evaluate(
                "document.activeElement.closest('dialog') || document.activeElement === document.body"
            )
            assert inside, "the focus stays in the dialog, or goes to the browser's own buttons"
        assert accessibility.findings(page) == []
        dialog.get_by_role("button", name="Leave it").press("Enter")
        assert opener.evaluate("one => one === document.activeElement")
        assert wrong == []
        page.context.close()
