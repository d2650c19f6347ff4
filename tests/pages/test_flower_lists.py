"""The lists in Flower, in a real browser: each with rows and without, and what their buttons do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import expect

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_shared.names import INBOX_MESSAGES, Queue, Task
from knocktwice_worker.audience import segments
from knocktwice_worker.audience.segment_filter import parse
from knocktwice_worker.content import template_store, templates
from knocktwice_worker.flower import listings
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.services import Services
from knocktwice_worker.switches import audit
from knocktwice_worker.webhooks import endpoints
from support import accessibility
from support.flower import flower, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from knocktwice_worker.config import Settings

HOSTILE = "<script>document.title='hacked'</script>"
HOOK = "http://127.0.0.1:9/hooks"


@pytest.fixture
def here(working: Services) -> Iterator[Services]:
    built = Services(working.settings.model_copy(update={"quiet_hours": ""}))
    yield built
    built.close()


def text_somebody(here: Services) -> str:
    """Text a number whose outcome is lost afterwards; return the notification."""
    id_ = str(uuid7())
    wire: dict[str, Any] = {"v": 1, "id": str(uuid7()), "content": {"sms": {"text": "Hello"}}, "only": "sms"}
    here.pushes.send(parse_batch({**wire, "recipients": [{"id": id_, "phone": "+16505550100"}]}))
    assert here.later_steps.send(here.fallback.check([id_])) == [id_]
    with here.engine.begin() as conn:
        for lost in (
            "UPDATE deliveries SET state = 'unknown', reason = 'no answer' WHERE notification_id = :id AND step = 1",
            "UPDATE notifications SET state = 'unknown', reason = 'no answer' WHERE id = :id",
        ):
            conn.execute(sa.text(lost), {"id": id_})
    return id_


@pytest.fixture
def unknown(here: Services) -> str:
    """Rows on every list; return the notification of unknown outcome."""
    id_ = text_somebody(here)
    people = {"field": "locale", "op": "=", "value": "de"}
    with here.engine.begin() as conn:
        definition = {"default_locale": "en", "contents": {"en": {"push": {"title": "Tea", "body": "It is ready."}}}}
        template_store.put(conn, "tea", templates.check("tea", definition))
        segments.put(conn, "gold", parse(people), HOSTILE)
        hook = endpoints.add(conn, HOOK, private=True)
        gone = "UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = :why WHERE id = :id"
        conn.execute(sa.text(gone), {"why": HOSTILE, "id": hook})
        payload = '{"v": 1, "notifications": []}'
        for reason in (f"invalid: {HOSTILE}", "failed 5 times: it is odd"):
            dead_letters.park(conn, message_id=None, task=Task.CANCEL, reason=reason, payload=payload)
    return id_


def test_every_list_shows_its_rows_at_every_width_and_runs_nothing(
    browser: Browser, settings: Settings, tmp_path: Path, unknown: str
) -> None:
    found = {"content": "tea", "segments": "gold", "webhooks": HOOK, "parked": "failed 5 times", "unknown": unknown}
    found |= {"limits": "capped_daily"}
    with flower(settings, tmp_path) as url:
        for width in (1440, 390):
            context = browser.new_context(viewport={"width": width, "height": 900})
            page = context.new_page()
            for name, (title, _) in listings.PAGES.items():
                page.goto(f"{url}/notifications")
                page.get_by_role("navigation", name="Notifications").get_by_role("link", name=title, exact=True).click()
                expect(page.locator("a[aria-current=page]", has_text=title)).to_be_visible()
                if name in found:
                    expect(page.get_by_text(found[name]).first).to_be_visible()
                    expect(page.locator("main form[method=post], .kt-card form[method=post]")).to_have_count(0)
                assert page.title() == "Notifications · Flower", name
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, width)
            context.close()


def test_without_rows_every_list_says_so(page: Page, settings: Settings, tmp_path: Path) -> None:
    with flower(settings, tmp_path) as url:
        # The limits are always there.
        for name in listings.PAGES.keys() - {"limits"}:
            page.goto(f"{url}/notifications/{name}")
            expect(page.locator(".kt-card p").first).not_to_be_empty()
            expect(page.locator("table")).to_have_count(0)
        page.goto(f"{url}/notifications/content?template=tea")
        expect(page.get_by_role("heading", name="How long tea should wait")).to_be_visible()
        assert status(f"{url}/notifications/nothing") == 404


def test_each_button_does_what_it_says_with_a_reason_and_asks_before_it_costs(
    page: Page, settings: Settings, tmp_path: Path, here: Services, unknown: str
) -> None:
    with flower(settings, tmp_path, KNOCKTWICE_FLOWER_ACTIONS="true") as url:
        page.goto(f"{url}/notifications/webhooks")
        page.get_by_label(f"Reason for {HOOK}").fill("it was moved")
        page.get_by_role("button", name="Send again").click()
        expect(page.get_by_role("status")).to_contain_text("Events are sent there again")

        page.goto(f"{url}/notifications/parked")
        page.get_by_label("Reason for 1").fill("a worker was too old")
        page.get_by_role("button", name="Try again").first.click()
        expect(page.get_by_role("status")).to_contain_text("1 is handed to the workers again")
        page.get_by_label("Reason for 2").fill("nobody needs it")
        forget = page.locator("#ask-0-1").get_by_role("button", name="Forget")
        expect(forget).not_to_be_visible()
        page.get_by_role("button", name="Forget…").press("Enter")
        expect(forget).to_be_visible()
        page.keyboard.press("Escape")
        expect(forget).not_to_be_visible()
        page.get_by_role("button", name="Forget…").press("Space")
        forget.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("2 is forgotten")

        page.goto(f"{url}/notifications/unknown")
        page.get_by_label(f"Reason for {unknown}").fill("she has it")
        page.get_by_role("button", name="Take as settled").click()
        expect(page.get_by_text("None: every outcome is known.")).to_be_visible()
        assert status(f"{url}/notifications/parked", b"verb=drop&id=1&reason=why") == 403
    assert here.redis.hlen(INBOX_MESSAGES) == 1
    with here.engine.connect() as conn:
        assert not endpoints.list_all(conn)[0].disabled_at
        assert dead_letters.page(conn) == []
        lines = [(line.action, line.reason) for line in audit.lines(conn)]
    assert lines == [
        ("close unknown", "she has it"),
        ("drop", "nobody needs it"),
        ("replay", "a worker was too old"),
        ("enable webhook", "it was moved"),
    ]


def test_parked_messages_are_searched_and_a_button_keeps_the_search(
    page: Page, settings: Settings, tmp_path: Path, here: Services
) -> None:
    with here.engine.begin() as conn:
        for n in range(102):
            task, named = (Task.SEND_PUSH, "u_17") if n else (Task.CANCEL, "u-17")
            reason = "invalid: no such template" if n < 101 else "failed 5 times: 100% odd"
            dead_letters.park(conn, message_id=None, task=task, reason=reason, payload=f'{{"user": "{named}"}}')
    rows, note = page.locator("tbody tr"), page.get_by_role("alert")
    with flower(settings, tmp_path, KNOCKTWICE_FLOWER_ACTIONS="true") as url:
        page.goto(f"{url}/notifications/parked")
        expect(rows).to_have_count(100)
        page.get_by_label("Reason holds").fill("TEMPLATE")
        page.get_by_label("Task").select_option(Task.SEND_PUSH)
        page.get_by_label("Names the user").fill("u_17")
        page.get_by_label("Parked since").fill("3h")
        page.locator("form[method=get]").get_by_role("button", name="Search").click()
        expect(rows).to_have_count(100)
        expect(rows.first).to_contain_text("2")
        expect(page.get_by_role("link", name="Later ones")).to_have_count(0)
        page.get_by_label("Reason for 2", exact=True).fill("a worker was too old")
        rows.first.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("status")).to_contain_text("2 is handed to the workers again")
        expect(rows).to_have_count(99)
        expect(page.get_by_label("Reason holds")).to_have_value("TEMPLATE")
        page.goto(f"{url}/notifications/parked?since=3h")
        page.get_by_role("link", name="Later ones").click()
        expect(rows).to_have_count(1)
        expect(rows).to_contain_text("102")
        expect(page.get_by_label("Parked since")).to_have_value("3h")
        page.goto(f"{url}/notifications/parked")
        page.get_by_label("Queue").select_option(Queue.EVENTS)
        page.locator("form[method=get]").get_by_role("button", name="Search").click()
        expect(rows).to_have_count(1)
        expect(rows).to_contain_text(Task.CANCEL)
        expect(page.get_by_label("Queue")).to_have_value(Queue.EVENTS)
        for search, said in (("error=%25odd", "No such message."), ("until=3h", "No such message.")):
            page.goto(f"{url}/notifications/parked?{search}")
            expect(page.get_by_text(said)).to_be_visible()
        page.goto(f"{url}/notifications/parked?since=yesterday&error=%00&after=x")
        expect(note).to_contain_text("since: must be a time like 2h")
        page.goto(f"{url}/notifications/parked?queue=push")
        expect(note).to_contain_text("queue: must be one of knocktwice.push")
        assert accessibility.findings(page) == []


def test_a_blast_is_started_slowed_down_paused_and_resumed_by_keyboard_on_a_phone(
    browser: Browser, settings: Settings, tmp_path: Path, here: Services
) -> None:
    with here.engine.begin() as conn:
        definition = {"default_locale": "en", "contents": {"en": {"push": {"title": "Tea", "body": "It is ready."}}}}
        template_store.put(conn, "tea", templates.check("tea", definition))
        segments.put(conn, "all", parse({"everyone": True}))
        conn.execute(sa.text("INSERT INTO users (id) VALUES ('u-1'), ('u-2')"))
        conn.execute(sa.text("INSERT INTO devices (registration, user_id) VALUES ('silent-1', 'u-1')"))
    with flower(settings, tmp_path, KNOCKTWICE_FLOWER_ACTIONS="true") as url:
        page = browser.new_context(viewport={"width": 390, "height": 800}).new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        page.goto(f"{url}/notifications/blasts")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to main content")).to_be_focused()
        page.get_by_label("Key", exact=True).focus()
        page.keyboard.type("tea-1")
        for name in ("segment", "template", "per_minute"):
            page.keyboard.press("Tab")
            expect(page.locator(f".kt-form [name={name}]")).to_be_focused()
        page.keyboard.type("600")
        page.keyboard.press("Tab")
        page.keyboard.type("tea is cheap")
        page.keyboard.press("Enter")
        asked = page.get_by_role("region", name="Before it goes")
        expect(asked).to_contain_text("Start tea-1?")
        expect(asked.locator("div", has_text="get a push").last).to_contain_text("1")
        expect(asked).to_contain_text("cost, at most")
        with here.engine.connect() as conn:
            assert conn.execute(sa.text("SELECT count(*) FROM blasts")).scalar_one() == 0
        asked.get_by_role("button", name="Start it").press("Enter")
        # Enter in a field does nothing: each button is pressed by itself.
        page.get_by_label("Reason for tea-1").fill("too fast")
        page.get_by_label("People a minute for tea-1").fill("60")
        page.get_by_label("People a minute for tea-1").press("Enter")
        page.get_by_role("button", name="Set pace").press("Space")
        expect(page.get_by_role("cell", name="A minute 60", exact=True)).to_be_visible()
        page.get_by_label("Reason for tea-1").fill("wait")
        page.get_by_role("button", name="Pause").press("Enter")
        page.get_by_label("Reason for tea-1").fill("go on")
        page.get_by_role("button", name="Resume…").press("Enter")
        expect(asked).to_contain_text("Resume tea-1?")
        expect(page.get_by_role("cell", name="paused")).to_be_visible()
        asked.get_by_role("button", name="Resume it").press("Enter")
        expect(page.get_by_role("cell", name="running")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert accessibility.findings(page) == []
        page.context.close()
    assert problems == []
    with here.engine.connect() as conn:
        done = [(line.action, line.reason) for line in audit.lines(conn)]
    assert done == [
        ("resume blast", "go on"),
        ("pause blast", "wait"),
        ("throttle blast", "too fast"),
        ("start blast", "tea is cheap"),
    ]
