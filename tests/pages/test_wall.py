"""The wall of phones, in a real browser before a real stack: whole stories, played by hand."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Literal

import httpx
import pytest
from playwright.sync_api import expect

from knocktwice_worker.sandbox.accounts import ACCOUNT_SID, AUTH_TOKEN
from support import accessibility

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from support.stack import Stack


@pytest.fixture
def wall(page: Page, stack: Stack) -> Page:
    """The page, with the people of its story."""
    page.goto(f"http://127.0.0.1:{stack.sandbox}/")
    expect(phone(page, "Cleo")).to_be_visible()
    return page


def phone(page: Page, name: str) -> Locator:
    return page.get_by_role("article", name=name, exact=True)


def compose(page: Page, user: str, title: str, *, when: str = "if nobody tapped", after: str = "10 s") -> None:
    expect(page.locator("#compose select[name=user] option", has_text=user)).to_be_attached()
    page.get_by_label("To").select_option(user)
    page.get_by_label("Title").fill(title)
    page.get_by_label("Then an SMS").select_option(label=when)
    page.locator("#compose select[name=after_s]").select_option(label=after)
    page.locator("#compose form").get_by_role("button", name="Send").click()


def pushes(device: Locator, title: str) -> Locator:
    return device.locator(".message.push", has_text=title)


def test_an_ignored_push_is_followed_by_an_sms_and_withdrawn_and_a_tapped_one_by_nothing(wall: Page) -> None:
    wall.get_by_role("button", name="Play the story").click()
    ada, ben, cleo = (phone(wall, name) for name in ("Ada", "Ben", "Cleo"))
    timeline = wall.locator("#timeline")
    expect(pushes(ada, "Your table is ready")).to_contain_text("tapped")
    # The app's receipt of the tap is on its way a moment longer than the tap is shown.
    pushes(ada, "Your table is ready").press("Enter")
    expect(timeline).to_contain_text("ada: reached")
    pushes(ben, "Your table is ready").press("Enter")
    expect(timeline).to_contain_text("ben:")
    expect(cleo.locator(".message.sms")).to_contain_text("delivered")
    expect(pushes(cleo, "Your table is ready")).to_have_count(0)
    expect(pushes(ben, "Your table is ready")).to_contain_text("on the screen")
    wall.get_by_role("button", name="to the next due moment").click()
    expect(ben.locator(".message.sms")).to_contain_text("Your table is ready. We keep it until 19:45.")
    expect(pushes(ben, "Your table is ready")).to_contain_text("withdrawn")
    expect(ada.locator(".message.sms")).to_have_count(0)
    expect(timeline).to_contain_text("ben: texted")
    expect(timeline).to_contain_text("Nobody had clicked the push, so the SMS was due.")
    expect(wall.locator("#webhooks")).to_contain_text("notification.finished")


def test_a_countdown_is_shown_and_a_cancelled_notification_sends_no_sms(wall: Page) -> None:
    compose(wall, "ben", "Cancel me", after="1 h")
    timeline = wall.locator("#timeline")
    expect(timeline).to_contain_text(re.compile(r"SMS decided in (59|1:00):\d\d"))
    texts = phone(wall, "Ben").locator(".message.sms").count()
    timeline.get_by_role("button", name="Cancel").click()
    expect(timeline).to_contain_text("ben: cancelled")
    wall.get_by_role("button", name="+1 h").click()
    expect(timeline).to_contain_text("The application cancelled it.")
    expect(phone(wall, "Ben").locator(".message.sms")).to_have_count(texts)


def test_stop_written_back_ends_texts_to_this_phone(wall: Page) -> None:
    wall.get_by_role("button", name="+ phone").click()
    wall.get_by_label("Whose").fill("Dora <b>")
    wall.get_by_role("button", name="Add", exact=True).click()
    dora = phone(wall, "Dora <b>")
    compose(wall, "dora-<b>", "<img src=x onerror=alert(1)>")
    expect(pushes(dora, "<img src=x onerror=alert(1)>")).to_be_visible()
    dora.get_by_placeholder("Write back").fill("STOP")
    dora.get_by_role("button", name="Send").click()
    expect(dora.locator(".message.reply")).to_contain_text("taken")
    wall.get_by_role("button", name="to the next due moment").click()
    expect(wall.locator("#timeline")).to_contain_text("This number asked not to be texted: no SMS.")
    expect(dora.locator(".message.sms")).to_have_count(0)


def test_a_provider_out_of_order_is_tried_again(wall: Page) -> None:
    wall.get_by_label("FCM").select_option(label="503 for the next push")
    expect(wall.locator("#faults")).to_contain_text("503")
    compose(wall, "ben", "After a fault", when="never")
    expect(pushes(phone(wall, "Ben"), "After a fault")).to_contain_text("on the screen")
    expect(wall.locator("#faults")).to_be_empty()


def test_a_phone_in_airplane_mode_gets_its_push_when_it_lands(wall: Page) -> None:
    ben = phone(wall, "Ben")
    ben.get_by_role("button", name="airplane mode").click()
    expect(ben.get_by_role("button", name="airplane mode")).to_have_attribute("aria-pressed", "true")
    compose(wall, "ben", "On a plane", after="1 day")
    expect(pushes(ben, "On a plane")).to_contain_text("waits for the phone")
    ben.get_by_role("button", name="airplane mode").click()
    push = pushes(ben, "On a plane")
    expect(push).to_contain_text("on the screen")
    push.get_by_role("button", name="Swipe away").click()
    expect(push).to_contain_text("swiped away")
    expect(push.get_by_role("button")).to_have_count(0)


def test_a_message_shows_its_picture_and_the_address_of_what_is_none(page: Page, stack: Stack) -> None:
    dot = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
    page.route("https://shop.example/dot.gif", lambda route: route.fulfill(body=dot, content_type="image/gif"))
    page.route("https://shop.example/menu.pdf", lambda route: route.fulfill(body="x", content_type="application/pdf"))
    urls = ["https://shop.example/dot.gif", "https://shop.example/menu.pdf"]
    number = "+16505550177"
    httpx.post(
        f"http://127.0.0.1:{stack.sandbox}/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json",
        auth=(ACCOUNT_SID, AUTH_TOKEN),
        data={"To": number, "From": "+15005550006", "Body": "Today", "MediaUrl": urls},
    ).raise_for_status()
    page.goto(f"http://127.0.0.1:{stack.sandbox}/")
    message = phone(page, number).locator(".message.sms")
    expect(message.get_by_role("img", name=urls[0])).to_have_js_property("naturalWidth", 1)
    expect(message.get_by_role("link", name=urls[1])).to_be_visible()
    # Other tests' pages could not load the picture.
    httpx.delete(f"http://127.0.0.1:{stack.sandbox}/sandbox?keep=phones").raise_for_status()


def test_an_uninstalled_app_and_a_new_number(wall: Page) -> None:
    ben = phone(wall, "Ben")
    wall.once("dialog", lambda dialog: dialog.accept("+46701740699"))
    ben.get_by_role("button", name="new number").click()
    expect(ben).to_contain_text("+46701740699")
    ben.get_by_role("button", name="uninstall").click()
    expect(ben.get_by_role("button", name="install", exact=True)).to_be_visible()
    before = ben.locator(".message.sms").count()
    compose(wall, "ben", "Without the app", after="1 h")
    expect(ben.locator(".message.sms")).to_have_count(before + 1)
    ben.get_by_role("button", name="install", exact=True).click()
    expect(ben.get_by_role("button", name="uninstall")).to_be_visible()


def test_the_same_call_is_shown_in_python_and_curl(wall: Page) -> None:
    wall.get_by_label("Title").fill('It\'s "ready"')
    code = wall.locator(".code code")
    expect(code).to_contain_text('push=Push("It\'s \\"ready\\"", ')
    wall.get_by_role("tab", name="curl").click()
    expect(code).to_contain_text("/v1/notifications")
    expect(code).to_contain_text("It'\\''s")


def test_search_and_links_find_the_same_again(wall: Page, stack: Stack) -> None:
    wall.get_by_label("Search").fill("cleo")
    expect(phone(wall, "Ada")).to_be_hidden()
    expect(phone(wall, "Cleo")).to_be_visible()
    wall.goto("about:blank")
    wall.goto(f"http://127.0.0.1:{stack.sandbox}/#q=cleo")
    expect(phone(wall, "Cleo")).to_be_visible()
    expect(phone(wall, "Ada")).to_be_hidden()


@pytest.mark.parametrize("width", [390, 768, 1440])
def test_nothing_is_wider_than_the_window(wall: Page, width: int) -> None:
    wall.set_viewport_size({"width": width, "height": 900})
    assert wall.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_and_use_it(wall: Page, scheme: Literal["light", "dark"]) -> None:
    compose(wall, "ben", "Read me", after="1 h")
    expect(pushes(phone(wall, "Ben"), "Read me")).to_be_visible()
    wall.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    assert accessibility.findings(wall) == []


def test_clear_forgets_messages_and_keeps_people(wall: Page) -> None:
    wall.get_by_role("button", name="Clear").click()
    expect(wall.locator(".message")).to_have_count(0)
    expect(phone(wall, "Ada")).to_be_visible()
