"""A click on a short link: where it goes, what is recorded, and what only looks at the link."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_receipts
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.config import Settings
from knocktwice_worker.content.links import link_store
from knocktwice_worker.content.links.link_store import Link
from knocktwice_worker.services import Services
from support.http_gateway import HttpGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from knocktwice_shared.messages import ReceiptEvent

TARGET = "https://shop.example/orders/4711?from=sms#pay"
PHONE = "Mozilla/5.0 (Linux; Android 9; CUBOT X19) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36"


@pytest.fixture
def phone(here: Services) -> Iterator[httpx.Client]:
    """Somebody without a key."""
    with HttpGateway(here) as running:
        browser = running.stranger()
        browser.headers["User-Agent"] = PHONE
        yield browser


@pytest.fixture
def link(here: Services) -> Link:
    made = Link("AbCdEf012345", str(uuid7()), 2, TARGET)
    with here.engine.begin() as conn:
        link_store.insert(conn, [made])
    return made


def clicks(here: Services) -> list[ReceiptEvent]:
    """What is in the inbox."""
    kept: Any = here.redis.hvals(INBOX_MESSAGES)
    return [event for entry in kept for event in parse_receipts(json.loads(entry)["message"])]


def test_a_click_goes_to_the_target_and_is_an_answer_to_its_step(
    here: Services, phone: httpx.Client, link: Link
) -> None:
    answer = phone.get(f"/l/{link.token}")
    assert (answer.status_code, answer.headers["location"]) == (302, TARGET)
    assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == ("no-store", "no-referrer")
    (event,) = clicks(here)
    assert (str(event.notification), event.kind, event.step) == (link.notification_id, "clicked", 2)


def test_nothing_that_the_request_says_changes_where_it_goes(phone: httpx.Client, link: Link) -> None:
    answer = phone.get(
        f"/l/{link.token}?url=https://evil.example&to=//evil.example", headers={"X-Forwarded-Host": "evil.example"}
    )
    assert answer.headers["location"] == TARGET


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("HEAD", {}),
        ("GET", {"Sec-Purpose": "prefetch;prerender"}),
        ("GET", {"Purpose": "prefetch"}),
        ("GET", {"X-Purpose": "preview"}),
        ("GET", {"X-Moz": "prefetch"}),
        # What iMessage, and then WhatsApp, Telegram, Slack and a crawler say.
        (
            "GET",
            {
                "User-Agent": "Mozilla/5.0 (Macintosh) AppleWebKit/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0"
            },
        ),
        ("GET", {"User-Agent": "WhatsApp/2.23.20.0 A"}),
        ("GET", {"User-Agent": "TelegramBot (like TwitterBot)"}),
        ("GET", {"User-Agent": "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"}),
        ("GET", {"User-Agent": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}),
    ],
)
def test_what_only_looks_at_a_link_is_no_click(
    here: Services, phone: httpx.Client, link: Link, method: str, headers: dict[str, str]
) -> None:
    answer = phone.request(method, f"/l/{link.token}", headers=headers)
    assert (answer.status_code, answer.headers["location"]) == (302, TARGET)
    assert clicks(here) == []


@pytest.mark.parametrize(
    "token",
    [
        "AbCdEf012346",
        "AbCdEf01234",
        "AbCdEf0123456",
        "AbCdEf01234%2F",
        "https:%2F%2Fevil.example",
        "'%20OR%201=1--",
        "%00" * 12,
    ],
)
def test_an_unknown_token_is_told_nothing(here: Services, phone: httpx.Client, link: Link, token: str) -> None:
    answer = phone.get(f"/l/{token}")
    assert answer.status_code == 404
    assert "location" not in answer.headers
    assert link.token not in answer.text
    assert clicks(here) == []


def test_a_link_takes_no_other_method(phone: httpx.Client, link: Link) -> None:
    assert phone.post(f"/l/{link.token}").status_code == 405


def test_who_clicks_gets_there_although_the_click_cannot_be_recorded(here: Services, link: Link) -> None:
    away = Settings(**{**here.settings.model_dump(), "broker_url": "redis://127.0.0.1:1/0"})
    broken = Services(away)
    with HttpGateway(broken) as running:
        assert running.stranger().get(f"/l/{link.token}").headers["location"] == TARGET
    broken.close()


def test_guessing_is_slowed_down(here: Services) -> None:
    slow = Services(Settings(**{**here.settings.model_dump(), "gateway_per_s": 2}))
    with HttpGateway(slow) as running:
        guesser = running.stranger()
        answers = [guesser.get(f"/l/{n:012}").status_code for n in range(20)]
    slow.close()
    assert answers[0] == 404
    assert 429 in answers


def test_two_links_that_happen_to_be_the_same_lead_nowhere(here: Services, phone: httpx.Client, link: Link) -> None:
    with here.engine.begin() as conn:
        link_store.insert(conn, [link, link])
    assert phone.get(f"/l/{link.token}").status_code == 302
    with here.engine.begin() as conn:
        link_store.insert(conn, [link._replace(notification_id=str(uuid7()), target="https://shop.example/of-another")])
    assert phone.get(f"/l/{link.token}").status_code == 404
    with here.engine.connect() as conn:
        assert conn.execute(sa.text("SELECT count(*) FROM links")).scalar_one() == 1
