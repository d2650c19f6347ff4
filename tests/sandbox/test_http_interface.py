"""What another process, a web page and a browser can do with the sandbox over HTTP."""

from __future__ import annotations

import json
import re
import uuid
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from knocktwice_worker.sandbox import Phone, Sandbox
from support.provider_clients import NUMBER, post_push, send_text

if TYPE_CHECKING:
    import httpx
    from twilio.rest import Client


def test_another_process_can_do_all_of_it(web: httpx.Client, google: httpx.Client, twilio: Client) -> None:
    put = web.put("/sandbox/phones/a%2Fb", json={"delivered_after": None, "number": NUMBER})
    assert put.json()["registration"] == "a/b"
    assert web.get("/sandbox/phones").json()["phones"] == [put.json()]
    assert web.post("/sandbox/phones/a%2Fb/tap").status_code == 404
    assert web.post("/sandbox/rules", json={"kind": "push", "times": 1, "answer": {"status": 429}}).status_code == 201
    message = {"token": "a/b", "notification": {"title": "T"}, "data": {"knocktwice_id": str(uuid.uuid4())}}
    assert [post_push(google, message).status_code for _ in range(2)] == [429, 200]
    assert web.post("/sandbox/phones/a%2Fb/tap").status_code == 204
    (pushed,) = web.get("/sandbox/pushes", params={"registration": "a/b"}).json()["pushes"]
    assert (pushed["title"], pushed["message"]) == ("T", message)
    assert datetime.fromisoformat(pushed["clicked_at"]).tzinfo is not None
    send_text(twilio)
    assert [t["to"] for t in web.get("/sandbox/texts", params={"to": NUMBER}).json()["texts"]] == [NUMBER]
    assert web.get("/sandbox/texts", params={"to": "+1"}).json() == {"texts": []}
    assert web.get("/sandbox/callbacks").json() == {"callbacks": []}
    rule = {"kind": "sms", "answer": {"statuses": ["sent"], "error_code": 30003}}
    assert web.post("/sandbox/rules", json=rule).json()["answer"]["statuses"] == ["sent"]
    assert web.delete("/sandbox/rules").status_code == 204
    assert web.delete("/sandbox").status_code == 204
    assert web.get("/sandbox/pushes").json() == {"pushes": []}


@pytest.mark.parametrize(
    ("method", "path", "body", "named"),
    [
        ("PUT", "/sandbox/phones/x", {"delivered_after": -1}, "delivered_after"),
        ("PUT", "/sandbox/phones/x", {"clicked_after": "soon"}, "clicked_after"),
        ("PUT", "/sandbox/phones/x", {"colour": "red"}, "colour"),
        ("PUT", "/sandbox/phones/x", {"registration": "y"}, "registration"),
        ("PUT", "/sandbox/phones/x", [], "body"),
        ("POST", "/sandbox/rules", {}, "kind"),
        ("POST", "/sandbox/rules", {"kind": "pigeon"}, "kind"),
        ("POST", "/sandbox/rules", {"kind": "push", "times": 0}, "times"),
        ("POST", "/sandbox/rules", {"kind": "push", "answer": {"status": 200}}, "answer.status"),
        ("POST", "/sandbox/rules", {"kind": "push", "answer": {"error_code": "X"}}, "answer.error_code"),
        ("POST", "/sandbox/rules", {"kind": "sms", "answer": {"statuses": ["lost"]}}, "answer.statuses.0"),
        ("GET", "/sandbox/pushes?registraton=x", None, "registraton"),
        ("DELETE", "/sandbox/rules?kind=push", None, "kind"),
    ],
)
def test_wrong_input_is_answered_with_the_name_of_the_field(
    web: httpx.Client, method: str, path: str, body: object, named: str
) -> None:
    answer = web.request(method, path, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"{named}: ")


def test_a_body_that_is_no_json_is_named(web: httpx.Client) -> None:
    assert web.post("/sandbox/rules", content="{").json() == {"error": "body: must be JSON"}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "127.0.0.1@evil.example", ""]
)
@pytest.mark.parametrize("path", ["/", "/sandbox/texts", "/token"])
def test_a_name_bound_to_this_machine_gets_nothing(web: httpx.Client, host: str, path: str) -> None:
    assert web.get(path, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://evil.example:8025"])
def test_a_web_page_elsewhere_can_tap_nothing(web: httpx.Client, origin: str) -> None:
    assert web.post("/sandbox/phones/clicks/tap", headers={"Origin": origin}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "LOCALHOST:80"])
def test_this_machine_is_served(web: httpx.Client, host: str) -> None:
    assert web.get("/", headers={"Host": host}).status_code == 200


def test_the_page_runs_no_script_but_its_own(web: httpx.Client) -> None:
    page = web.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert re.findall(r"<script[^>]*>(.*?)</script>", page.text) == [""]
    assert [web.get(f"/wall.{kind}").headers["content-type"].partition(";")[0] for kind in ("css", "js")] == [
        "text/css",
        "text/javascript",
    ]


def test_the_stream_tells_of_phones_and_messages_as_they_are(
    sandbox: Sandbox, web: httpx.Client, google: httpx.Client, twilio: Client
) -> None:
    evil = "<script>alert(1)</script>"
    sandbox.add_phone(Phone(f'"{evil}', number=NUMBER))
    post_push(google, {"token": f'"{evil}', "notification": {"title": evil, "body": f"'{evil}"}})
    send_text(twilio, body=f"sms {evil}")
    send_text(twilio, to="+4915100000000", body="to a number without a phone")
    with web.stream("GET", "/sandbox/stream") as stream:
        told = json.loads(next(line for line in stream.iter_lines() if line).removeprefix("data: "))
    known, stranger = told["phones"]
    assert [(m["kind"], m.get("title"), m["body"]) for m in known["messages"]] == [
        ("push", evil, f"'{evil}"),
        ("sms", None, f"sms {evil}"),
    ]
    assert (stranger["number"], stranger["messages"][0]["body"]) == ("+4915100000000", "to a number without a phone")
    assert told["application"] is False


def test_a_shown_push_can_be_tapped_once(sandbox: Sandbox, web: httpx.Client, google: httpx.Client) -> None:
    sandbox.add_phone(Phone("phone/1"))
    post_push(google, {"token": "phone/1", "notification": {"title": "Hello"}})
    (push,) = sandbox.pushes()
    answers = [web.post("/sandbox/phones/phone%2F1/tap", json={"push": push.name}).status_code for _ in range(2)]
    assert answers == [204, 404]
    assert sandbox.pushes()[0].clicked_at is not None


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/sandbox/people", {"name": " "}, "name: must be a text of 1 to 60 characters"),
        ("/sandbox/people", {"name": "Ada"}, "application: there is no application behind this sandbox"),
        ("/sandbox/notifications", {"user": "u", "title": "t", "body": "b", "when": "not_clicked", "after_s": -1}, "after_s"),
        ("/sandbox/phones/p/settings", {"colour": "red"}, "colour: is no setting"),
        ("/sandbox/clock", {"advance_s": 60}, "clock: it moves only under 'knocktwice up'"),
    ],
)  # fmt: skip
def test_what_a_button_cannot_do_is_said(web: httpx.Client, path: str, body: dict[str, object], told: str) -> None:
    answer = web.post(path, json=body)
    assert answer.status_code == 400
    assert told in answer.json()["error"]
