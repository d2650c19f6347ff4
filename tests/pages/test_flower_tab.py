"""The tab in Flower, in a real browser before the stock command: what it shows, what it refuses,
and what it writes down.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_shared.names import Task
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.notifications.store.paused import Scope
from knocktwice_worker.services import Services
from knocktwice_worker.switches import audit, pauses
from knocktwice_worker.switches.audit import By
from support.flower import flower, status

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from knocktwice_worker.config import Settings

NUMBER, KEY = "+16505550100", "order 4711 <b>"


HOSTILE = "<script>document.title='hacked'</script>\"'>"


def test_what_others_have_written_is_shown_and_not_run(
    page: Page, settings: Settings, tmp_path: Path, working: Services
) -> None:
    id_ = str(uuid7())
    wire: dict[str, Any] = {"v": 1, "id": str(uuid7()), "content": {"sms": {"text": "Hello"}}, "only": "sms"}
    working.pushes.send(parse_batch({**wire, "recipients": [{"id": id_, "user": HOSTILE}]}))
    with working.engine.begin() as conn:
        pauses.pause(conn, Scope("sms", template=HOSTILE), By(HOSTILE, HOSTILE))
    with flower(settings, tmp_path) as url:
        for path in ("", f"/find?q={quote(HOSTILE)}", "/switches", f"/one/{id_}"):
            page.goto(f"{url}/notifications{path}")
            expect(page.get_by_text("<script>").first).to_be_visible()
            assert page.title() == "Notifications · Flower", path


@pytest.fixture
def texted(working: Services) -> str:
    """A number that was texted, with a key that must be escaped; return its notification."""
    here = Services(working.settings.model_copy(update={"quiet_hours": ""}))
    id_ = str(uuid7())
    wire: dict[str, Any] = {"v": 1, "id": str(uuid7()), "content": {"sms": {"text": "Hello"}}, "only": "sms"}
    here.pushes.send(parse_batch({**wire, "recipients": [{"id": id_, "phone": NUMBER, "key": KEY}]}))
    assert here.later_steps.send(here.fallback.check([id_])) == [id_]
    here.close()
    return id_


def test_one_number_is_found_in_two_clicks_and_told_in_lanes_and_words(
    page: Page, settings: Settings, tmp_path: Path, texted: str
) -> None:
    with flower(settings, tmp_path) as url:
        page.goto(url)
        page.get_by_role("navigation", name="Primary").get_by_role("link", name="Notifications").click()
        expect(page.get_by_role("link", name=texted[-12:])).to_be_visible()
        expect(page.locator(".kt-chart rect")).to_have_count(1)
        page.get_by_role("textbox", name="Search").fill("+1 650 555 0100")
        page.get_by_role("button", name="Search").click()
        expect(page.get_by_role("heading", name="The number +1650•••00")).to_be_visible()
        page.get_by_role("link", name=texted[-12:]).click()
        expect(page.get_by_role("heading", name="A number: texted")).to_be_visible()
        for dot in ("accepted", "due", "first step", "taken up", "sent"):
            expect(page.locator(".kt-lane .kt-dot", has_text=dot).first).to_be_visible()
        expect(page.get_by_text("Nothing comes before it, so it was due at once.").first).to_be_visible()
        # Nobody may unmask without the setting, and numbers are nowhere in the page.
        expect(page.get_by_role("button", name="Show its numbers")).to_have_count(0)
        assert NUMBER not in page.content()
        # By its key it is found at once, whatever stands in it.
        page.get_by_role("textbox", name="Search").fill(KEY)
        page.get_by_role("button", name="Search").click()
        expect(page.get_by_role("heading", name="A number: texted")).to_be_visible()
        page.set_viewport_size({"width": 390, "height": 800})
        page.emulate_media(color_scheme="dark")
        for path in ("", "/find", "/blasts", "/switches", f"/one/{texted}"):
            page.goto(f"{url}/notifications{path}")
            expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        page.goto(f"{url}/notifications")
        # The last column is what one wants to press; nobody should have to scroll to it.
        link = page.get_by_role("link", name=texted[-12:]).bounding_box()
        assert link
        assert link["x"] + link["width"] <= 390
        expect(page.locator("dl > div", has_text="queue sms")).to_contain_text("no workers")
        expect(page.locator("dl > div", has_text="accepted, not yet stored")).to_contain_text("0")


def test_without_data_behind_a_prefix_and_a_password_it_shows_that_nothing_is_there_and_takes_no_action(
    browser: Browser, settings: Settings, tmp_path: Path
) -> None:
    with flower(settings, tmp_path, "ops", FLOWER_BASIC_AUTH="ada:lovelace") as url:
        assert status(f"{url}/notifications") == 401
        context = browser.new_context(http_credentials={"username": "ada", "password": "lovelace"})
        page = context.new_page()
        page.goto(f"{url}/notifications")
        expect(page.get_by_text("Nothing yet.")).to_be_visible()
        page.get_by_role("link", name="Switches").click()
        expect(page.get_by_text("Nothing is paused.")).to_be_visible()
        assert page.url == f"{url}/notifications/switches"
        assert page.locator("main form[method=post]").count() == 0
        cookie = next(one["value"] for one in context.cookies() if one["name"] == "_xsrf")
        context.close()
        login = "Basic " + base64.b64encode(b"ada:lovelace").decode()
        asked = f"_xsrf={cookie}&verb=pause&channel=sms&reason=why".encode()
        assert status(f"{url}/notifications/switches", asked, Authorization=login, Cookie=f"_xsrf={cookie}") == 403
    here = Services(settings)
    with here.engine.connect() as conn:
        assert pauses.list_all(conn) == []
    here.close()


def test_an_operator_pauses_resumes_and_unmasks_with_a_reason_and_forms_of_other_sites_do_not(
    page: Page, settings: Settings, tmp_path: Path, texted: str
) -> None:
    here = Services(settings)
    with flower(settings, tmp_path, KNOCKTWICE_FLOWER_ACTIONS="true") as url:
        page.goto(f"{url}/notifications/switches")
        page.get_by_label("Channel").select_option("sms")
        page.get_by_label("Country").fill("DE")
        page.get_by_label("Reason").last.fill("pumping")
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_text("Pause 1: sms, country DE since")).to_be_visible()
        page.get_by_label("Country").fill("XX")
        page.get_by_label("Reason").last.fill("again")
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("alert")).to_contain_text("country: ")
        page.get_by_label("Reason to resume pause 1").fill("it is over")
        page.get_by_role("button", name="Resume: 0 go").click()
        expect(page.get_by_text("over, what waited is being woken")).to_be_visible()
        page.goto(f"{url}/notifications/one/{texted}")
        page.get_by_label("Reason").fill("she has called")
        page.get_by_role("button", name="Show its numbers").click()
        expect(page.get_by_text(NUMBER)).to_be_visible()
        forged = b"verb=pause&channel=sms&reason=why"
        assert status(f"{url}/notifications/switches", forged) == 403
    with here.engine.connect() as conn:
        lines = [(line.actor, line.action, line.reason) for line in audit.lines(conn)]
        assert pauses.list_all(conn)[0].ended_at is not None
    here.close()
    who = "Flower: not logged in"
    assert lines == [
        (who, "unmask", "she has called"),
        (who, "resume", "it is over"),
        (who, "pause", "pumping"),
    ]


def test_only_the_named_operators_act_and_everybody_else_reads(
    browser: Browser, settings: Settings, tmp_path: Path
) -> None:
    here = Services(settings)
    with here.engine.begin() as conn:
        dead_letters.park(conn, message_id=None, task=Task.CANCEL, reason="failed 5 times: odd", payload="{}")
    logins = {"FLOWER_BASIC_AUTH": "ada:lovelace,bob:builder", "KNOCKTWICE_FLOWER_ACTIONS": "true"}
    with flower(settings, tmp_path, KNOCKTWICE_FLOWER_OPERATORS='["ada"]', **logins) as url:
        pages = {}
        for name, password in (("ada", "lovelace"), ("bob", "builder")):
            context = browser.new_context(http_credentials={"username": name, "password": password})
            pages[name] = context.new_page()
        for path in ("parked", "blasts", "switches"):
            pages["bob"].goto(f"{url}/notifications/{path}")
            expect(pages["bob"].get_by_text("bob is not among KNOCKTWICE_FLOWER_OPERATORS.")).to_be_visible()
            assert pages["bob"].locator("main form[method=post]").count() == 0
        # His own token does not help him.
        cookie = next(one["value"] for one in pages["bob"].context.cookies() if one["name"] == "_xsrf")
        asked, known = f"_xsrf={cookie}&verb=pause&channel=sms&reason=why".encode(), {"Cookie": f"_xsrf={cookie}"}
        for name, code in (("bob:builder", 403), ("ada:lovelace", 200)):
            login = "Basic " + base64.b64encode(name.encode()).decode()
            assert status(f"{url}/notifications/switches", asked, Authorization=login, **known) == code
        pages["ada"].goto(f"{url}/notifications/parked")
        pages["ada"].get_by_label("Reason for 1").fill("it can be read now")
        pages["ada"].get_by_role("button", name="Try again").click()
        expect(pages["ada"].get_by_role("status")).to_contain_text("1 is handed to the workers again")
        for one in pages.values():
            one.context.close()
    with flower(settings, tmp_path, KNOCKTWICE_FLOWER_OPERATORS='["ada", "not logged in"]') as url:
        page = browser.new_page()
        page.goto(f"{url}/notifications/switches")
        expect(page.get_by_text("Nobody has logged in")).to_be_visible()
        assert page.locator("main form[method=post]").count() == 0
        page.close()
    with here.engine.connect() as conn:
        lines = [(line.actor, line.action) for line in audit.lines(conn)]
    here.close()
    assert lines == [("Flower: ada", "replay"), ("Flower: ada", "pause")]


def test_a_pause_of_somebody_else_is_the_first_thing_that_one_sees(
    page: Page, settings: Settings, tmp_path: Path
) -> None:
    here = Services(settings)
    with here.engine.begin() as conn:
        pauses.pause(conn, Scope("sms"), By("ada", "the wrong text went out"))
    here.close()
    with flower(settings, tmp_path) as url:
        page.goto(f"{url}/notifications")
        expect(page.get_by_role("status").first).to_contain_text("sms since")
        expect(page.get_by_role("status").first).to_contain_text("the wrong text went out")
