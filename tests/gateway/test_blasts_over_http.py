"""Blasts and numbers over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_worker.audience import segment_filter, segments
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.services import Services
from knocktwice_worker.switches import audit
from support.http_gateway import HttpGateway

if TYPE_CHECKING:
    import httpx


BLAST: dict[str, Any] = {
    "key": "tea/47",
    "segment": "tea",
    "push": {"title": "Tea", "body": "{{ what }} is here."},
    "sms": {"when": "not_clicked", "after_s": 60},
    "params": {"what": "Assam"},
}


@pytest.fixture
def client(gateway: HttpGateway, here: Services) -> httpx.Client:
    """A client for blasts; there is a segment of two people, one of whom has a number."""
    with here.engine.begin() as conn:
        segments.put(conn, "tea", segment_filter.parse({"everyone": True}))
        conn.execute(sa.text("INSERT INTO users (id) VALUES ('a'), ('b')"))
        conn.execute(sa.text("INSERT INTO phones (user_id, number, region) VALUES ('a', '+436601234567', 'AT')"))
    return gateway.client(Scope.BLASTS, Scope.READ)


def test_a_key_starts_one_blast_and_gets_the_same_answer_again(client: httpx.Client) -> None:
    first = client.post("/v1/blasts", json=BLAST)
    again = client.post("/v1/blasts", json=BLAST)
    assert (first.status_code, again.status_code) == (202, 202)
    assert (first.json()["duplicate"], again.json()) == (False, {**first.json(), "duplicate": True})
    others: list[dict[str, Any]] = [
        {"params": {"what": "Darjeeling"}},
        {"segment": {"everyone": True}},
        {"reference": {"try": 2}},
    ]
    told = [client.post("/v1/blasts", json={**BLAST, **other}).json() for other in others]
    assert [(one["duplicate"], one["differs"]) for one in told] == [(True, True), (True, True), (True, False)]
    assert first.headers["Location"] == again.headers["Location"] == f"/v1/blasts/{first.json()['id']}"
    (listed,) = client.get("/v1/blasts").json()["blasts"]
    assert (listed["key"], listed["state"], listed["segment"]) == ("tea/47", "running", "tea")
    assert client.get(first.headers["Location"]).json()["outcomes"] == {}


def test_a_dry_run_counts_people_and_leaves_the_key_free(client: httpx.Client) -> None:
    found = client.post("/v1/blasts/preflight", json={**BLAST, "budget_parts": 0}).json()
    assert (found["users"], found["sms_only"], found["worst_parts"]) == (2, 1, 1)
    assert "budget is 0" in found["over_budget"]
    assert client.get("/v1/blasts").json()["blasts"] == []


def test_a_plan_of_its_own_is_counted_and_kept(client: httpx.Client, here: Services) -> None:
    plan = [{"channel": "sms", "when": "not_clicked", "after_s": 60, "text": "x" * n} for n in (160, 161)]
    body = {**BLAST, "sms": None, "plan": plan}
    assert client.post("/v1/blasts/preflight", json=body).json()["worst_parts"] == 3
    assert client.post("/v1/blasts", json=body).status_code == 202
    with here.engine.connect() as conn:
        assert conn.execute(sa.text("SELECT message -> 'plan' FROM blasts")).scalar_one() == plan


def test_a_delay_that_operators_do_not_allow_is_refused_and_the_key_stays_free(here: Services) -> None:
    with here.engine.begin() as conn:
        segments.put(conn, "tea", segment_filter.parse({"everyone": True}))
    strict = Services(here.settings.model_copy(update={"min_after_s": 120.0}))
    with HttpGateway(strict) as running:
        client = running.client(Scope.BLASTS, Scope.READ)
        for path in ("/v1/blasts", "/v1/blasts/preflight"):
            answer = client.post(path, json=BLAST)
            assert (answer.status_code, answer.json()["field"]) == (422, "sms.after_s")
            assert "KNOCKTWICE_MIN_AFTER_S (120)" in answer.json()["detail"]
        assert client.get("/v1/blasts").json()["blasts"] == []
    strict.close()


def test_a_blast_over_its_budget_is_not_started_and_one_that_runs_is_not_looked_at_again(client: httpx.Client) -> None:
    refused = client.post("/v1/blasts", json={**BLAST, "budget_parts": 0})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:knocktwice:problem:over-budget")
    assert client.get("/v1/blasts").json()["blasts"] == []
    assert client.post("/v1/blasts", json={**BLAST, "budget_parts": 1}).status_code == 202
    assert client.post("/v1/blasts", json={**BLAST, "budget_parts": 0}).status_code == 202


def test_a_blast_is_paused_resumed_and_aborted_and_repeats_do_no_harm(client: httpx.Client, here: Services) -> None:
    path = client.post("/v1/blasts", json=BLAST).headers["Location"]

    def ask(word: str) -> tuple[int, str | None]:
        answer = client.post(f"{path}/{word}", params={"reason": f"they asked to {word} it"})
        return answer.status_code, answer.json().get("state")

    assert [ask("pause"), ask("pause")] == [(200, "paused")] * 2
    assert [ask("resume"), ask("resume")] == [(200, "running")] * 2
    assert [ask("abort"), ask("abort")] == [(200, "aborted")] * 2
    assert ask("pause") == (409, None)
    assert client.post("/v1/blasts/nobody/abort").status_code == 404
    assert client.post(f"{path}/pause", params={"reason": "two\nlines"}).status_code == 422
    with here.engine.connect() as conn:
        found = [(line.action, line.reason) for line in audit.lines(conn)]
    verbs = ("abort", "resume", "pause")
    assert found == [(f"{verb} blast", f"they asked to {verb} it") for verb in verbs]


def test_the_pace_of_a_blast_is_changed_with_a_reason_and_an_audit_line(client: httpx.Client, here: Services) -> None:
    path = client.post("/v1/blasts", json=BLAST).headers["Location"]
    why = {"reason": "the shop cannot answer so many"}
    slow = client.post(f"{path}/throttle", params={"per_minute": 600, **why})
    assert (slow.status_code, slow.json()["throttle_per_min"]) == (200, 600)
    assert client.post(f"{path}/throttle", params={"per_minute": 0, **why}).json()["throttle_per_min"] is None
    for wrong in ("per_minute=60", "per_minute=-1&reason=x", "reason=x"):
        assert client.post(f"{path}/throttle?{wrong}").status_code == 422
    client.post(f"{path}/abort")
    assert client.post(f"{path}/throttle", params={"per_minute": 60, **why}).status_code == 409
    with here.engine.connect() as conn:
        lines = [line for line in audit.lines(conn) if line.action == "throttle blast"]
    found = [(line.action, line.subject["per_minute"], line.reason) for line in lines]
    assert found == [("throttle blast", "all", why["reason"]), ("throttle blast", 600, why["reason"])]


def test_blasts_want_a_scope_of_their_own(gateway: HttpGateway) -> None:
    client = gateway.client(Scope.NOTIFY, Scope.READ)
    assert client.post("/v1/blasts", json=BLAST).status_code == 403
    assert client.post("/v1/blasts/preflight", json=BLAST).status_code == 422


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**BLAST, "segment": "coffee"}, "segment"),
        ({**BLAST, "segment": None}, "segment"),
        ({**BLAST, "key": ""}, "key"),
        ({**BLAST, "template": "none", "push": None, "sms": None}, "template"),
        ({**BLAST, "params": {}}, "params.what"),
        ({**BLAST, "throttle_per_min": 0}, "throttle_per_min"),
        ({**BLAST, "budget_parts": True}, "budget_parts"),
        ({**BLAST, "expected_fallback_share": 2}, "expected_fallback_share"),
        ({**BLAST, "recipients": []}, "recipients"),
        ({**BLAST, "sms": {"when": "never"}}, "sms.when"),
        ({**BLAST, "sms": {"after_s": 31 * 86_400}}, "sms.after_s"),
    ],
)
def test_an_error_names_the_field(client: httpx.Client, body: dict[str, Any], field: str) -> None:
    answer = client.post("/v1/blasts", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert "[0]" not in answer.json()["detail"]


def test_the_numbers_of_some_days_are_told_by_one_dimension(gateway: HttpGateway) -> None:
    client = gateway.client(Scope.READ)
    told = client.get("/v1/stats", params={"by": "country"}).json()
    assert (told["by"], told["lines"], told["total"]["accepted"], told["zone"]) == ("country", [], 0, "UTC")
    today = datetime.now(UTC).date().isoformat()
    assert client.get("/v1/stats", params={"until": "2020-01-01"}).json()["total"]["accepted"] == 0
    assert client.get("/v1/stats", params={"since": today, "template": "coffee"}).json()["lines"] == []
    wrong = client.get("/v1/stats", params={"since": "2026-02-02", "until": "2026-01-01"})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "until")
    assert client.get("/v1/stats", params={"since": "20260101"}).status_code == 422


def test_advice_needs_history(gateway: HttpGateway) -> None:
    answer = gateway.client(Scope.READ).get("/v1/advice/tea")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:knocktwice:problem:too-little-history")
