"""Rules: how a test or a person makes a provider answer late, wrongly or not at all."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from twilio.base.exceptions import TwilioRestException

from knocktwice_worker.sandbox import Answer, Rule, Sandbox
from support.provider_clients import NUMBER, post_push, send_text

if TYPE_CHECKING:
    from twilio.rest import Client


def test_rules_answer_in_their_order_until_they_are_used_up(sandbox: Sandbox, google: httpx.Client) -> None:
    sandbox.rule(Rule("push", match="a", times=2, answer=Answer(status=503, retry_after=7)))
    sandbox.rule(Rule("push", times=1, answer=Answer(status=429)))
    answers = [post_push(google, {"token": token}) for token in ("a", "b", "a", "b", "a")]
    assert [a.status_code for a in answers] == [503, 429, 503, 200, 200]
    assert answers[0].headers["retry-after"] == "7"
    assert answers[0].json()["error"]["details"][0]["errorCode"] == "UNAVAILABLE"
    assert answers[1].json()["error"]["details"][0]["errorCode"] == "QUOTA_EXCEEDED"
    assert [p.registration for p in sandbox.pushes()] == ["b", "a"]


def test_a_rule_without_times_holds_until_rules_are_cleared(sandbox: Sandbox, google: httpx.Client) -> None:
    sandbox.rule(Rule("push", answer=Answer(status=500)))
    assert [post_push(google, {"token": "a"}).status_code for _ in range(3)] == [500] * 3
    sandbox.clear_rules()
    assert post_push(google, {"token": "a"}).status_code == 200


def test_a_message_may_be_accepted_and_answered_500(sandbox: Sandbox, twilio: Client) -> None:
    sandbox.rule(Rule("sms", match=NUMBER, times=1, answer=Answer(status=500, accept=True)))
    with pytest.raises(TwilioRestException) as caught:
        send_text(twilio)
    assert caught.value.status == 500
    assert [t.to for t in sandbox.texts(NUMBER)] == [NUMBER]


@pytest.mark.parametrize("accept", [True, False])
def test_a_connection_may_be_dropped_with_or_without_the_message(
    sandbox: Sandbox, google: httpx.Client, accept: bool
) -> None:
    sandbox.rule(Rule("push", times=1, answer=Answer(drop=True, accept=accept)))
    with pytest.raises(httpx.RemoteProtocolError):
        post_push(google, {"token": "a"})
    assert len(sandbox.pushes()) == accept
    assert sandbox.requests("push") == 1


def test_silence_ends_when_the_client_gives_up(sandbox: Sandbox, google: httpx.Client) -> None:
    sandbox.rule(Rule("push", times=1, answer=Answer(hang=True, accept=True)))
    google.timeout = httpx.Timeout(0.2)
    before = len(asyncio.all_tasks(sandbox._loop))
    with pytest.raises(httpx.ReadTimeout):
        post_push(google, {"token": "a"})
    sandbox.wait_until(lambda: len(asyncio.all_tasks(sandbox._loop)) <= before)
    google.timeout = httpx.Timeout(5)
    assert post_push(google, {"token": "a"}).status_code == 200
    assert len(sandbox.pushes()) == 2


def test_silence_ends_when_the_sandbox_stops(sandbox: Sandbox, google: httpx.Client) -> None:
    sandbox.rule(Rule("push", answer=Answer(hang=True)))
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            post_push(google, {"token": "a"})
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    sandbox.wait_until(lambda: sandbox.requests("push"))
    sandbox.stop()
    assert ended.wait(5)


def test_a_late_answer_is_late(sandbox: Sandbox, google: httpx.Client) -> None:
    sandbox.rule(Rule("push", answer=Answer(latency=0.2)))
    before = time.monotonic()
    assert post_push(google, {"token": "a"}).status_code == 200
    assert time.monotonic() - before >= 0.2
    assert post_push(google, {"token": "gone"}).status_code == 404


def test_the_token_endpoint_can_fail(sandbox: Sandbox, web: httpx.Client) -> None:
    sandbox.rule(Rule("token", times=1, answer=Answer(status=503)))
    assert web.post("/token", data={}).status_code == 503


@pytest.mark.parametrize(
    ("kind", "answer"), [("push", Answer(error_code="NO_SUCH")), ("sms", Answer(error_code="21610"))]
)
def test_a_rule_with_an_error_code_of_the_wrong_provider_is_refused(kind: Any, answer: Answer) -> None:
    with pytest.raises(ValueError, match=r"answer\.error_code"):
        Rule(kind, answer=answer)
