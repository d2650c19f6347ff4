"""Opt-outs over HTTP: one, many with an account of each, page by page; and what people wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from knocktwice_worker.gateway.auth.keys import Scope

if TYPE_CHECKING:
    import httpx

    from support.http_gateway import HttpGateway

ADA, BEN = "+16505550100", "+16505550101"


@pytest.fixture
def client(gateway: HttpGateway) -> httpx.Client:
    return gateway.client(Scope.AUDIENCE)


def _path(number: str) -> str:
    return f"/v1/opt-outs/{quote(number, safe='')}"


def test_a_number_is_put_on_the_list_found_there_and_taken_off(client: httpx.Client) -> None:
    assert client.get(_path(ADA)).status_code == 404
    put = client.put(_path("+1 (650) 555-0100"), json={"source": "letter of 3 May"})
    assert put.status_code == 200
    assert (put.json()["number"], put.json()["source"]) == (ADA, "letter of 3 May")
    # A repeat keeps who said it first, and needs no body.
    assert client.put(_path(ADA)).json() == put.json()
    assert client.get(_path(ADA)).json() == put.json()
    assert client.delete(_path(ADA)).status_code == 204
    again = client.delete(_path(ADA))
    assert (again.status_code, again.json()["field"]) == (404, "number")
    assert client.put(_path(ADA)).json()["source"] == "application"


def test_every_entry_is_accounted_for_and_the_fit_ones_are_kept(client: httpx.Client) -> None:
    client.put(_path(BEN))
    entries = [
        {"number": "+1 650 555 0100", "source": "letter"},
        {"number": "nonsense"},
        {"number": BEN},
        {"number": ADA},
        "+16505550102",
        {"number": "+16505550103", "note": "x"},
        {"number": "+16505550103", "source": ""},
        {},
    ]
    answer = client.post("/v1/opt-outs", json={"opt_outs": entries})
    assert answer.status_code == 200
    told = answer.json()
    assert (told["added"], told["present"], told["refused"]) == (1, 2, 5)
    assert [r["status"] for r in told["results"]] == [
        "added", "refused", "present", "present", "refused", "refused", "refused", "refused",
    ]  # fmt: skip
    assert [r["field"] for r in told["results"] if r["status"] == "refused"] == [
        "opt_outs[1].number", "opt_outs[4]", "opt_outs[5].note", "opt_outs[6].source", "opt_outs[7].number",
    ]  # fmt: skip
    assert client.get(_path(ADA)).json()["source"] == "letter"
    repeat = client.post("/v1/opt-outs", json={"opt_outs": entries}).json()
    assert (repeat["added"], repeat["present"], repeat["refused"]) == (0, 3, 5)


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "opt_outs"), ({"opt_outs": []}, "opt_outs"), ({"opt_outs": "x"}, "opt_outs"), ({"a": 1}, "a")],
)
def test_a_wrong_request_is_told_its_field(client: httpx.Client, body: object, field: str) -> None:
    answer = client.post("/v1/opt-outs", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_the_list_comes_page_by_page(client: httpx.Client) -> None:
    numbers = [f"+165055501{n:02}" for n in range(7)]
    client.post("/v1/opt-outs", json={"opt_outs": [{"number": n} for n in reversed(numbers)]})
    listed, after = [], None
    for _ in range(4):
        page = client.get("/v1/opt-outs", params={"limit": 2} | ({"after": after} if after else {})).json()
        listed += [one["number"] for one in page["opt_outs"]]
        after = page["next"]
        assert after is None or "650" not in after
    assert listed == numbers
    assert after is None
    assert client.get("/v1/opt-outs?after=%2B%2B").status_code == 422


@pytest.mark.parametrize("number", ["x", "%00", "+", "+1650", "1" * 40, "\u0661"])
def test_what_is_no_number_is_refused(client: httpx.Client, number: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = client.request(method, _path(number) if number != "%00" else "/v1/opt-outs/%00")
        assert (answer.status_code, answer.json()["field"]) == (422, "number")


def test_the_list_needs_a_key_that_may_know_people(gateway: HttpGateway) -> None:
    reader = gateway.client(Scope.READ)
    for method, path in (("GET", "/v1/opt-outs"), ("GET", _path(ADA)), ("PUT", _path(ADA)), ("DELETE", _path(ADA))):
        assert reader.request(method, path).status_code == 403


def test_an_opt_out_is_a_change_of_the_audience_too(gateway: HttpGateway) -> None:
    client = gateway.client(Scope.AUDIENCE)
    changes = [{"change": "opt_out", "phone": ADA, "source": "form"}, {"change": "opt_in", "phone": BEN}]
    assert client.post("/v1/audience", json={"changes": changes}).status_code == 202
    wrong = client.post("/v1/audience", json={"changes": [{"change": "opt_out"}]})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "changes[0].phone")
