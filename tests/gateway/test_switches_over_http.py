"""Pauses and changed settings over HTTP: listed by who may read, changed by who may do everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_worker.gateway.auth.keys import Scope

if TYPE_CHECKING:
    from support.http_gateway import HttpGateway

WHY = {"reason": "the operator there is down"}


def test_a_pause_is_set_listed_and_ended_by_a_key_for_everything(gateway: HttpGateway) -> None:
    admin, reader = gateway.client(Scope.ADMIN), gateway.client(Scope.READ)
    answer = admin.post("/v1/pauses", params={"channel": "sms", "country": "DE", "for_s": 60, **WHY})
    assert answer.json() == {"id": 1}
    (one,) = reader.get("/v1/switches").json()["pauses"]
    assert (one["channel"], one["country"], one["waiting"], one["reason"]) == ("sms", "DE", 0, WHY["reason"])
    for path in ("/v1/pauses", "/v1/pauses/1/resume"):
        assert reader.post(path, params={"channel": "sms", **WHY}).status_code == 403
    assert admin.post("/v1/pauses/1/resume", params=WHY).json() == {"ended": [1]}
    assert admin.post("/v1/pauses/1/resume", params=WHY).status_code == 404
    lines = admin.get("/v1/audit", params={"limit": 1}).json()
    assert (lines["lines"][0]["action"], lines["next"]) == ("resume", 2)
    assert lines["lines"][0]["actor"].startswith("key ")
    assert admin.get("/v1/audit", params={"before": 2}).json()["lines"][0]["action"] == "pause"


def test_a_pause_that_says_nothing_or_something_that_does_not_exist_is_refused(gateway: HttpGateway) -> None:
    admin = gateway.client(Scope.ADMIN)
    for given, field in (({}, "channel"), ({"channel": "smoke"}, "channel"), ({"template": "gone"}, "template")):
        answer = admin.post("/v1/pauses", params={**given, **WHY})
        assert (answer.status_code, field in answer.text) == (422, True)
    for wrong in (
        {"for_s": "0"},
        {"for_s": "-1"},
        {"for_s": "soon"},
        {"for_s": "nan"},
        {"drain": "perhaps"},
        {"country": ""},
    ):
        assert admin.post("/v1/pauses", params={"channel": "sms", **wrong, **WHY}).status_code == 422, wrong
    for reason in ("", " ", "x" * 10_000, "two\nlines", "\x1b[2J", "\0"):
        assert admin.post("/v1/pauses", params={"channel": "sms", "reason": reason}).status_code == 422, reason
    for number in ("0", "-1", "first", "9" * 30):
        assert admin.post(f"/v1/pauses/{number}/resume", params=WHY).status_code == 422, number
    assert admin.post("/v1/pauses", params={"channel": "sms"}).status_code == 422
    assert admin.post("/v1/pauses", params={"channel": "all", **WHY}).status_code == 200


def test_a_setting_is_changed_and_restored(gateway: HttpGateway) -> None:
    admin = gateway.client(Scope.ADMIN)
    changed = admin.put("/v1/settings/KNOCKTWICE_SMS_BUDGET", params={"value": "5000", **WHY})
    assert (changed.json()["name"], changed.json()["value"]) == ("KNOCKTWICE_SMS_BUDGET", "5000")
    assert admin.put("/v1/settings/KNOCKTWICE_SECRET", params={"value": "x", **WHY}).status_code == 422
    assert admin.put("/v1/settings/KNOCKTWICE_SMS_BUDGET", params={"value": "many", **WHY}).status_code == 422
    assert [one["value"] for one in admin.get("/v1/switches").json()["settings"]] == ["5000"]
    assert admin.delete("/v1/settings/KNOCKTWICE_SMS_BUDGET", params=WHY).status_code == 204
    assert admin.get("/v1/switches").json()["settings"] == []
