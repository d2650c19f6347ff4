"""The provider's books say what it did, whatever it told."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from knocktwice_worker.embedded.children import Child
from oracle import provider
from oracle.records import Answer, Listed, PushAsked, SmsAsked, read
from oracle.trouble import Mood
from support.ports import free_port
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NUMBER = "+16502300001"
MESSAGES = f"/2010-04-01/Accounts/{provider.ACCOUNT}/Messages.json"
PUSH = "/v1/projects/p/messages:send"


class Asked:
    """Asks the provider and reads its books."""

    def __init__(self, url: str, books: Path) -> None:
        self._client = httpx.Client(base_url=url, timeout=1)
        self._books = books

    def is_there(self) -> bool:
        """Whether it answers."""
        try:
            return self._client.post("/oracle/trouble", json={}).is_success
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """Ask no more."""
        self._client.close()

    def trouble(self, door: str, mood: Mood) -> None:
        """Put it in a mood."""
        body = {"door": door, "mood": mood, "seconds": 60, "wait_s": 7}
        self._client.post("/oracle/trouble", json=body).raise_for_status()

    def sms(self, token: str) -> int | None:
        """Ask for an SMS; return the status, or ``None`` if there was no answer."""
        form = {"To": NUMBER, "From": provider.SENDER, "Body": f"Hello. [{token}]"}
        return self._status("POST", MESSAGES, data=form)

    def push(self, token: str, registration: str) -> int | None:
        """Ask for a push, likewise."""
        shown = {"title": "Hello", "body": f"Hello. [{token}]"}
        message = {"token": registration, "notification": shown, "data": {"knocktwice_id": token}}
        return self._status("POST", PUSH, json={"message": message})

    def listed(self) -> list[str]:
        """Return the texts that the list has for the number."""
        answer = self._client.get(MESSAGES, params={"To": NUMBER}).raise_for_status().json()
        return [message["body"] for message in answer["messages"]]

    def booked(self, token: str) -> SmsAsked | PushAsked:
        """Return what the books say of a request."""
        records = [one for one in read(self._books) if isinstance(one, SmsAsked | PushAsked) and one.token == token]
        (record,) = records
        return record

    def lists(self) -> list[bool]:
        """Return for each list that was asked for whether it was told whole."""
        return [one.told for one in read(self._books) if isinstance(one, Listed)]

    def _status(self, method: str, path: str, **options: Any) -> int | None:
        try:
            return self._client.request(method, path, **options).status_code
        except httpx.TransportError:
            return None


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """The provider, in a process of its own."""
    home, port = tmp_path_factory.mktemp("provider"), free_port()
    argv = [sys.executable, *provider.command(port, home / "books.jsonl", home / "log.jsonl")]
    child = Child("provider", argv, home / "provider.log", env={"PYTHONPATH": ":".join(p for p in sys.path if p)})
    child.start()
    here = Asked(f"http://127.0.0.1:{port}", home / "books.jsonl")
    eventually(here.is_there, why=child.log_tail)
    yield here
    here.close()
    child.kill()


@pytest.fixture(autouse=True)
def no_trouble(asked: Asked) -> None:
    """Each test begins with a provider that behaves."""
    assert asked.is_there()


@pytest.mark.parametrize(
    ("mood", "status", "answer"),
    [
        (Mood.BUSY, 429, Answer.LATER),
        (Mood.BROKEN, 503, Answer.LATER),
        (Mood.BROKEN_TAKEN, 500, Answer.TAKEN_UNTOLD),
        (Mood.RESET, None, Answer.UNANSWERED),
        (Mood.LOST, None, Answer.TAKEN_UNTOLD),
        (Mood.HOLE, None, Answer.UNANSWERED),
        (Mood.HOLE_TAKEN, None, Answer.TAKEN_UNTOLD),
        (Mood.SLOW, None, Answer.TAKEN_UNTOLD),
    ],
)
def test_what_it_takes_is_booked_and_listed_whatever_it_says(
    asked: Asked, mood: Mood, status: int | None, answer: Answer
) -> None:
    token = f"sms{mood.name.lower()}"
    asked.trouble("sms", mood)
    assert asked.sms(token) == status
    booked = asked.booked(token)
    assert booked.answer is answer
    assert (f"Hello. [{token}]" in asked.listed()) == (answer is Answer.TAKEN_UNTOLD)


def test_an_ordinary_sms_and_an_ordinary_push_are_taken(asked: Asked) -> None:
    assert (asked.sms("fine"), asked.push("shown", "device-1")) == (201, 200)
    assert asked.booked("fine").answer is asked.booked("shown").answer is Answer.TAKEN


def test_a_device_that_is_gone_is_refused_and_one_that_is_busy_only_once(asked: Asked) -> None:
    assert asked.push("gone", f"{provider.GONE}1") == 404
    assert asked.booked("gone").answer is Answer.REFUSED
    assert [asked.push(f"busy{n}", f"{provider.BUSY}1") for n in (1, 2)] == [429, 200]


def test_a_list_that_is_behind_leaves_out_what_is_new(asked: Asked) -> None:
    asked.sms("new")
    assert "Hello. [new]" in asked.listed()
    asked.trouble("list", Mood.BEHIND)
    assert "Hello. [new]" not in asked.listed()
    assert asked.lists()[-2:] == [True, False]
