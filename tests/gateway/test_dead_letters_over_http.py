"""Parked messages over HTTP: found by who may read, handed over or forgotten by who may do everything,
with a reason.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import INBOX_MESSAGES, Task
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.notifications.inbox import dead_letters

if TYPE_CHECKING:
    from support.http_gateway import HttpGateway

URL = "/v1/dead-letters"
WHY = {"reason": "the template exists now"}
USER = "u_17%"


@pytest.fixture
def parked(gateway: HttpGateway) -> HttpGateway:
    """A push for a user, a broken cancellation, and something that names no task."""
    wire = {"v": 1, "id": str(uuid7()), "recipients": [{"id": str(uuid7()), "user": USER}]}
    with gateway.services.engine.begin() as conn:
        for task, reason, payload in (
            (Task.SEND_PUSH, "invalid: no such template: TEA for +16505550100", json.dumps(wire)),
            (Task.CANCEL, "failed 5 times: 100% odd", '{"ids": ["u-17"]}'),
            (None, "message cannot be read", "x"),
        ):
            dead_letters.park(conn, message_id=None, task=task, reason=reason, payload=payload)
    return gateway


def test_parked_messages_are_found_by_error_queue_task_user_and_time(parked: HttpGateway) -> None:
    reader = parked.client(Scope.READ)
    (first, *_) = reader.get(URL).json()["dead_letters"]
    assert (first["id"], first["task"], first["reason"]) == (1, Task.SEND_PUSH, "invalid")
    for given, ids in (
        ({}, [1, 2, 3]),
        ({"error": "TEMPLATE: tea"}, [1]),
        ({"error": "100%"}, [2]),
        ({"error": "%odd"}, []),
        ({"queue": "knocktwice.push"}, [1]),
        ({"queue": "knocktwice.events"}, [2]),
        ({"task": Task.CANCEL}, [2]),
        ({"user": USER}, [1]),
        ({"user": "u-1"}, []),
        ({"since": first["at"]}, [1, 2, 3]),
        ({"until": first["at"]}, []),
        ({"after": 2}, [3]),
    ):
        found = reader.get(URL, params=given).json()
        assert ([one["id"] for one in found["dead_letters"]], found["next"]) == (ids, None), given
    assert reader.get(URL, params={"limit": 2}).json()["next"] == 2
    for wrong in ({"queue": "sms"}, {"task": "x"}, {"since": "yesterday"}, {"limit": 0}, {"colour": "red"}):
        assert reader.get(URL, params=wrong).status_code == 422, wrong


def test_what_may_name_a_person_is_shown_only_to_who_may_see_people(parked: HttpGateway) -> None:
    reader = parked.client(Scope.READ)
    told = reader.get(f"{URL}/1")
    assert (told.json()["payload"], told.json()["reason"], told.json()["characters"] > 50) == (None, "invalid", True)
    assert USER not in told.text + reader.get(URL).text
    assert reader.get(f"{URL}/1", params={"reveal": "true"}).status_code == 403
    shown = parked.client(Scope.READ, Scope.AUDIENCE).get(f"{URL}/1", params={"reveal": "true"}).json()
    assert ("TEA" in shown["reason"], USER in shown["payload"]) == (True, True)
    assert reader.get(f"{URL}/9").status_code == 404


def test_a_parked_message_is_handed_over_or_forgotten_once_with_a_reason(parked: HttpGateway) -> None:
    admin, others = parked.client(Scope.ADMIN), parked.client(*(s for s in Scope if s is not Scope.ADMIN))
    for method, path in (("POST", f"{URL}/1/replay"), ("DELETE", f"{URL}/1")):
        assert others.request(method, path, params=WHY).status_code == 403
        assert admin.request(method, path).status_code == 422
    assert "drop it" in admin.post(f"{URL}/3/replay", params=WHY).text
    assert admin.post(f"{URL}/1/replay", params=WHY).json() == {"id": 1, "task": Task.SEND_PUSH}
    assert admin.post(f"{URL}/1/replay", params=WHY).status_code == 404
    assert parked.services.redis.hlen(INBOX_MESSAGES) == 1
    assert admin.delete(f"{URL}/3", params=WHY).status_code == 204
    assert admin.delete(f"{URL}/3", params=WHY).status_code == 404
    assert [one["id"] for one in admin.get(URL).json()["dead_letters"]] == [2]
    lines = admin.get("/v1/audit").json()["lines"]
    assert [(one["action"], one["subject"]["dead_letter"], one["reason"]) for one in lines] == [
        ("drop", 3, WHY["reason"]),
        ("replay", 1, WHY["reason"]),
    ]
