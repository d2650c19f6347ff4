"""A key of a project sees, cancels and counts only what is its own, and no answer tells what others have."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice import Client, Push, Recipient
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_shared.names import INBOX_MESSAGES, Task
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.gateway.auth import keys
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.routes import PUBLIC, ROUTERS
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline import cancellation
from knocktwice_worker.reporting import rollups
from support.clock import Clock

if TYPE_CHECKING:
    import httpx

    from knocktwice_worker.services import Services
    from support.http_gateway import HttpGateway

PUSH = {"title": "Hello", "body": "Are you there?"}
TEMPLATE = {"default_locale": "en", "contents": {"en": {"push": PUSH}}}
#: Nothing is sent while the tests run.
LATER = (datetime.now(UTC) + timedelta(days=20)).isoformat()
NOBODY = "01939e2b-6b43-7e5a-9f6e-2c7c0d6f8a11"


@dataclass
class World:
    """Two projects that share an installation, and a key of one of them.

    Attributes:
        gateway: the gateway.
        amber: a client with a key of the project amber, with all scopes.
        blue: the ids of what the project blue has: notification and blast.
    """

    gateway: HttpGateway
    amber: httpx.Client
    blue: dict[str, str]

    @property
    def here(self) -> Services:
        return self.gateway.services


def waiting_in(here: Services) -> Any:
    """Return everything that was accepted and not carried out, by message id."""
    return here.redis.hgetall(INBOX_MESSAGES)


def carry_out(here: Services) -> None:
    """Do a worker's part of everything that was accepted."""
    for id_, entry in waiting_in(here).items():
        accepted = json.loads(entry)
        task = Task(accepted["task"])
        here.inbox.carry_out(task, id_.decode(), accepted["message"], here.accepted[task])


def notify(client: httpx.Client, key: str, **fields: Any) -> str:
    body = {"user": "u-1", "key": key, "push": PUSH, "send_at": LATER, **fields}
    answer = client.post("/v1/notifications", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["ids"][0])


def blast(client: httpx.Client, key: str) -> str:
    answer = client.post("/v1/blasts", json={"key": key, "segment": {"everyone": True}, "push": PUSH})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


@pytest.fixture(scope="module")
def world(shared_gateway: HttpGateway) -> World:
    """Amber has nothing. Blue has a notification, a blast and figures; the installation a template and a pause."""
    here = shared_gateway.services
    operator = shared_gateway.client()
    operator.put("/v1/templates/hello", json=TEMPLATE).raise_for_status()
    operator.put("/v1/users/u-1/tags", json={"tags": {"likes": "tea"}}).raise_for_status()
    operator.post("/v1/pauses", params={"channel": "sms", "reason": "a blue reason"}).raise_for_status()
    operator.post("/v1/opt-outs", json={"opt_outs": [{"number": "+16502530002"}]}).raise_for_status()
    blue = shared_gateway.client(project="blue")
    ids = {"notification": notify(blue, "blue-key"), "blast": blast(blue, "blue-blast")}
    carry_out(here)
    Clock(str(here.settings.database_url)).advance(timedelta(minutes=1))
    rollups.refresh(here.engine, "UTC", everything=True)
    assert operator.get("/v1/stats").json()["total"]["accepted"] == 1
    return World(shared_gateway, shared_gateway.client(project="amber"), ids)


#: Path parameter → a value that names something of blue's, and one that names nothing. Of what all projects share there
#: is one value.
VALUES = {
    "/v1/notifications/{id}": {"id": ("{notification}", NOBODY)},
    "/v1/blasts/{key}": {"key": ("blue-blast", "nothing")},
    "/v1/blasts/{key}/pause": {"key": ("{blast}", NOBODY)},
    "/v1/blasts/{key}/resume": {"key": ("blue-blast", "nothing")},
    "/v1/blasts/{key}/throttle": {"key": ("{blast}", NOBODY)},
    "/v1/blasts/{key}/abort": {"key": ("{blast}", NOBODY)},
    "*": {
        "name": ("hello", "hello"),
        "template": ("hello", "hello"),
        "user": ("u-1", "u-1"),
        "registration": ("device-1", "device-1"),
        "tag": ("likes", "likes"),
        "number": ("+16502530001", "+16502530001"),
    },
    # Parked messages, brakes and pauses have numbers.
    "/v1/dead-letters/{number}": {"number": ("1", "2")},
    "/v1/dead-letters/{number}/replay": {"number": ("1", "2")},
    "/v1/brakes/{number}/release": {"number": ("1", "2")},
    "/v1/brakes/{number}/drop": {"number": ("1", "2")},
    "/v1/pauses/{number}/resume": {"number": ("1", "2")},
}
_BLAST = {"key": "blue-blast", "segment": {"everyone": True}, "push": PUSH}
#: Operation → the body of a request about something of blue's.
BODIES: dict[tuple[str, str], object] = {
    ("POST", "/v1/notifications"): {"user": "u-1", "key": "blue-key", "push": PUSH, "send_at": LATER},
    ("POST", "/v1/cancellations"): {"ids": ["{notification}"], "keys": ["blue-key"]},
    ("POST", "/v1/blasts"): _BLAST,
    ("POST", "/v1/blasts/preflight"): _BLAST,
    ("PUT", "/v1/users/{user}/devices/{registration}"): {"platform": "web"},
    ("PUT", "/v1/users/{user}/phone"): {"phone": "+16502530001"},
    ("PUT", "/v1/users/{user}/tags"): {"tags": {"likes": "tea"}},
    ("PUT", "/v1/users/{user}/consent"): {"granted": True, "source": "test"},
    ("POST", "/v1/audience"): {"changes": [{"change": "erase_user", "user": "u-1"}]},
    ("POST", "/v1/users/{user}/tokens"): {},
    ("PUT", "/v1/me/devices/{registration}"): {},
    ("PUT", "/v1/me/permission"): {},
    ("POST", "/v1/me/phone"): {},
    ("POST", "/v1/me/phone/verify"): {},
    ("POST", "/gonative/registration"): {},
    ("PUT", "/v1/me/tags"): {},
    ("POST", "/v1/seen"): {"notifications": ["{notification}"]},
    ("POST", "/v1/me/seen"): {"notifications": ["{notification}"]},
    ("POST", "/v1/users/find"): {"phone": "+16502530001"},
    ("POST", "/v1/opt-outs"): {"opt_outs": [{"number": "+16502530002"}]},
    ("PUT", "/v1/opt-outs/{number}"): {},
    ("PUT", "/v1/templates/{name}"): TEMPLATE,
    ("POST", "/v1/templates/{name}/preview"): {},
    ("POST", "/v1/audience/preview"): {"filter": {"everyone": True}},
    ("PUT", "/v1/segments/{name}"): {"filter": {"everyone": True}},
}
#: Query parameter → a value that names something of blue's, and one that names nothing.
QUERIES = {
    "key": ("blue-key", "nothing"),
    "project": ("blue", "green"),
    "blast": ("blue-blast", "nothing"),
    "before": ("{notification}", NOBODY),
    "reason": ("because", "because"),
    "channel": ("sms", "sms"),
    "value": ("1", "1"),
    "per_minute": ("60", "60"),
}
_IDS_AND_TIMES = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+|"
    r"eyJ[A-Za-z0-9_.-]+"
)
OPERATIONS = sorted(
    (method, str(getattr(route, "path", "")))
    for router in ROUTERS
    for route in router.routes
    for method in getattr(route, "methods", ())
    if not str(getattr(route, "path", "")).startswith(PUBLIC)
)
#: Rows that nothing that amber does may change.
UNTOUCHED = """
SELECT jsonb_build_array(
  (SELECT jsonb_agg(n ORDER BY n.id) FROM notifications n WHERE project = 'blue'),
  (SELECT jsonb_agg(d ORDER BY d.notification_id, d.step) FROM deliveries d
   JOIN notifications n ON n.id = d.notification_id WHERE n.project = 'blue'),
  (SELECT jsonb_agg(e) FROM events e JOIN notifications n ON n.id = e.notification_id WHERE n.project = 'blue'),
  (SELECT jsonb_agg(b ORDER BY b.id) FROM blasts b WHERE project = 'blue'),
  (SELECT jsonb_agg(t) FROM templates t), (SELECT jsonb_agg(s) FROM segments s), (SELECT jsonb_agg(p) FROM pauses p),
  (SELECT jsonb_agg(o) FROM overrides o), (SELECT jsonb_agg(a) FROM audit a), (SELECT jsonb_agg(u.id) FROM users u)
)
"""


def untouched(here: Services) -> object:
    with here.engine.connect() as conn:
        return conn.execute(sa.text(UNTOUCHED)).scalar_one()


def filled(value: object, world: World, place: int) -> Any:
    """Return a request's part with blue's names in it, or in their place names of nothing."""
    written = json.dumps(value)
    for name, id_ in world.blue.items():
        written = written.replace(f"{{{name}}}", id_ if place == 0 else NOBODY)
    if place == 1:
        written = written.replace("blue-key", "nothing").replace("blue-blast", "nothing")
    return json.loads(written)


def asked(world: World, method: str, path: str, query: str | None, place: int) -> tuple[int, str]:
    """Return the answer to a request about something of blue's, or about nothing, without the names and times."""
    values = {**VALUES["*"], **VALUES.get(path, {})}
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    for name in names:
        assert name in values, f"name something of blue's for {{{name}}} of {path}, and something that is not there"
    given = {name: filled(values[name][place], world, place) for name in names}
    where = path.format(**{name: quote(value, safe="") for name, value in given.items()})
    operation = _operation(world, method, path)
    wanted = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "query" and p.get("required")}
    parameters = {name: filled(QUERIES[name][place], world, place) for name in wanted | ({query} if query else set())}
    body = BODIES.get((method, path))
    assert body is not None or "requestBody" not in operation, f"write a body about something of blue's for {path}"
    sent = None if body is None else filled(body, world, place)
    answer = world.amber.request(method, where, params=parameters, json=sent)
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", "content-length")}
    told = json.dumps(headers) + answer.text
    for said in {*given.values(), *parameters.values(), "blue-key", "blue-blast", "nothing"} - {"1", "2"}:
        told = told.replace(said, "…")
    assert not any(id_ in told for id_ in world.blue.values())
    assert "a blue reason" not in told
    return answer.status_code, _IDS_AND_TIMES.sub("…", told)


def _operation(world: World, method: str, path: str) -> dict[str, Any]:
    document = world.amber.get("/openapi.json").json()
    return dict(document["paths"][path][method.lower()])


def queries(world: World, method: str, path: str) -> list[str | None]:
    known = [p["name"] for p in _operation(world, method, path).get("parameters", ()) if p["in"] == "query"]
    return [None, *(name for name in known if name in QUERIES)]


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda part: str(part))
def test_no_request_of_a_project_reaches_another_ones_things(world: World, method: str, path: str) -> None:
    before = untouched(world.here)
    for query in queries(world, method, path):
        theirs, nothing = (asked(world, method, path, query, place) for place in (0, 1))
        assert theirs == nothing, query
    carry_out(world.here)
    assert untouched(world.here) == before


@pytest.fixture
def two(gateway: HttpGateway) -> tuple[httpx.Client, httpx.Client, httpx.Client]:
    """A client with a key of the project amber, one of blue's, and one that sees all."""
    return gateway.client(project="amber"), gateway.client(project="blue"), gateway.client()


Clients = tuple["httpx.Client", "httpx.Client", "httpx.Client"]


def listed(client: httpx.Client, **parameters: str) -> set[str]:
    return {one["id"] for one in client.get("/v1/messages", params=parameters).json()["messages"]}


def state(client: httpx.Client, id_: str) -> str:
    return str(client.get(f"/v1/notifications/{id_}").json()["state"])


def test_two_projects_use_the_same_keys_and_each_sees_its_own(two: Clients, here: Services) -> None:
    amber, blue, operator = two
    theirs, ours, nobodys = (notify(client, "order-1") for client in (amber, blue, operator))
    assert notify(amber, "order-1") == theirs
    assert len({theirs, ours, nobodys}) == 3
    carry_out(here)
    assert [state(operator, id_) for id_ in (theirs, ours, nobodys)] == ["active"] * 3
    assert listed(amber) == listed(amber, key="order-1") == listed(operator, project="amber") == {theirs}
    assert listed(operator) == {theirs, ours, nobodys}
    told = operator.get(f"/v1/notifications/{ours}").json()
    assert told["project"] == blue.get(f"/v1/notifications/{ours}").json()["project"] == "blue"
    assert amber.get(f"/v1/notifications/{ours}").status_code == 404
    assert amber.get(f"/v1/notifications/{nobodys}").status_code == 404


def test_postgresql_alone_keeps_keys_apart_too(two: Clients, here: Services) -> None:
    amber, blue, operator = two
    first = [notify(client, "order-1") for client in two]
    carry_out(here)
    here.redis.flushdb()
    second = [notify(client, "order-1") for client in two]
    carry_out(here)
    told = [operator.get(f"/v1/notifications/{id_}").json() for id_ in second]
    assert [(one["state"], one["reason"]) for one in told] == [
        ("duplicate", f"key already used by {id_}") for id_ in first
    ]
    assert [one["project"] for one in told] == ["amber", "blue", None]
    assert state(amber, second[0]) == state(blue, second[1]) == "duplicate"


@pytest.mark.parametrize("by", ["id", "key"])
@pytest.mark.parametrize("written", [True, False])
def test_a_project_cancels_its_own_and_nothing_else(two: Clients, here: Services, by: str, written: bool) -> None:
    """Also while the notification waits in the queue, and whichever of the two is carried out first."""
    amber, blue, operator = two
    ids = [notify(client, "order-1") for client in two]
    waiting = {} if written else waiting_in(here)
    if written:
        carry_out(here)
    else:
        here.redis.delete(INBOX_MESSAGES)
    for client in (amber, blue):
        body = {"ids": [ids[1]]} if by == "id" else {"keys": ["order-1"]}
        client.post("/v1/cancellations", json=body if client is amber or by == "key" else {"ids": []} | body)
        if client is amber:
            carry_out(here)
            if waiting:
                here.redis.hset(INBOX_MESSAGES, mapping=waiting)
                carry_out(here)
            wanted = "active" if by == "id" else "cancelled"
            assert [state(operator, id_) for id_ in ids] == [wanted, "active", "active"]
        else:
            carry_out(here)
            assert state(operator, ids[1]) == "cancelled"
            assert state(operator, ids[2]) == "active"
    operator.delete(f"/v1/notifications/{ids[0]}")
    operator.post("/v1/cancellations", json={"key": "order-1"})
    carry_out(here)
    assert [state(operator, id_) for id_ in ids] == ["cancelled"] * 3


def test_a_cancellation_that_comes_first_stops_its_own_projects_notification(two: Clients, here: Services) -> None:
    amber, blue, operator = two
    id_ = notify(amber, "order-1")
    waiting = waiting_in(here)
    here.redis.delete(INBOX_MESSAGES)
    for client in (blue, amber):
        client.delete(f"/v1/notifications/{id_}")
        carry_out(here)
    here.redis.hset(INBOX_MESSAGES, mapping=waiting)
    carry_out(here)
    assert state(operator, id_) == "cancelled"


def _accept(here: Services, id_: str) -> list[store.PushWork]:
    """Write the rows of a notification of amber's as a worker does, and return the pushes to be made at once."""
    recipient = {"id": id_, "registrations": ["phone-1"]}
    wire = {"v": 1, "id": str(uuid7()), "content": {"push": PUSH}, "project": "amber", "recipients": [recipient]}
    with here.engine.begin() as conn:
        intake = store.Intake(parse_batch(wire), {}, timedelta(hours=1))
        work = store.accept(conn, [intake], lease=timedelta(minutes=1))
    with here.engine.begin() as conn:
        store.adopt_cancelled(conn, {id_: "amber"})
    return work


def test_what_its_project_cancelled_before_is_not_pushed_at_all(two: Clients, here: Services) -> None:
    theirs, ours = str(uuid7()), str(uuid7())
    two[0].delete(f"/v1/notifications/{theirs}")
    two[1].delete(f"/v1/notifications/{ours}")
    carry_out(here)
    assert _accept(here, theirs) == []
    assert len(_accept(here, ours)) == 1
    assert [state(two[0], id_) for id_ in (theirs, ours)] == ["cancelled", "active"]


def test_writer_and_canceller_that_do_not_see_each_other_agree(here: Services) -> None:
    id_ = str(uuid7())

    def commit_rows(_: sa.Connection) -> None:
        """Commit the rows while the cancellation is not committed."""
        _accept(here, id_)

    cancellation.cancel(here.engine, [id_], (), "amber", also=commit_rows)
    with here.engine.connect() as conn:
        found = conn.execute(sa.text("SELECT kind FROM events WHERE notification_id = :id"), {"id": id_}).scalars()
        assert list(found) == ["cancelled"]


def test_blasts_of_two_projects_with_one_key_are_two(two: Clients, here: Services) -> None:
    amber, blue, operator = two
    ids = [blast(client, "sale") for client in (amber, blue)]
    assert len(set(ids)) == 2
    assert [one["id"] for one in amber.get("/v1/blasts").json()["blasts"]] == [ids[0]]
    assert [amber.get(f"/v1/blasts/{name}").status_code for name in ("sale", ids[0], ids[1])] == [200, 200, 404]
    # Both have a project, and nobody says whose is meant.
    assert operator.get("/v1/blasts/sale").status_code == 404
    nobodys = blast(operator, "sale")
    assert operator.get("/v1/blasts/sale").json()["id"] == nobodys
    assert amber.post(f"/v1/blasts/{ids[1]}/abort").status_code == 404
    assert amber.post("/v1/blasts/sale/abort").json()["id"] == ids[0]
    with Client(here.settings.broker_url, project="blue") as client:
        client.cancel(blast="sale")
    carry_out(here)
    states = {one["id"]: one["state"] for one in operator.get("/v1/blasts").json()["blasts"]}
    assert states == {ids[0]: "aborted", ids[1]: "aborted", nobodys: "running"}


def test_notifications_of_a_blast_belong_to_its_project(two: Clients, here: Services) -> None:
    two[2].put("/v1/users/u-1/tags", json={"tags": {"likes": "tea"}})
    carry_out(here)
    body = {"key": "sale", "segment": {"everyone": True}, "push": PUSH, "send_at": LATER}
    id_ = two[0].post("/v1/blasts", json=body).json()["id"]
    published: list[tuple[Task, Any]] = []
    here.expansion.step(id_, lambda task, ids: published.append((task, ids)))
    for _, ids in [one for one in published if one[0] is Task.SEND_PAGE]:
        here.expansion.send_page(ids[0], lambda *_: None)
    assert len(listed(two[0])) == 1
    assert listed(two[1]) == set()
    assert two[0].get("/v1/blasts/sale").json()["outcomes"] == {"active": 1}


def test_a_project_counts_its_own(two: Clients, here: Services, clock: Clock) -> None:
    amber, _, operator = two
    for client, count in zip(two, (1, 2, 3), strict=True):
        for n in range(count):
            notify(client, f"order-{n}")
    carry_out(here)
    clock.advance(timedelta(minutes=1))
    rollups.refresh(here.engine, "UTC", everything=True)
    assert [client.get("/v1/stats").json()["total"]["accepted"] for client in two] == [1, 2, 6]
    assert operator.get("/v1/stats", params={"project": "blue"}).json()["total"]["accepted"] == 2
    lines = operator.get("/v1/stats", params={"by": "project"}).json()["lines"]
    assert {line["project"]: line["accepted"] for line in lines} == {"amber": 1, "blue": 2, None: 3}
    assert amber.get("/v1/stats", params={"by": "project"}).json()["lines"][0]["project"] == "amber"
    with here.engine.begin() as conn:
        conn.execute(sa.text("UPDATE notifications SET created_at = created_at - interval '50 days'"))
        conn.execute(sa.text("UPDATE rollup_slices SET starts_at = starts_at - interval '50 days'"))
        conn.execute(sa.text("UPDATE rollups SET slice = slice - interval '50 days', day = day - 50"))
    rollups.close(here.engine, "UTC")
    since = (datetime.now(UTC) - timedelta(days=60)).date().isoformat()
    told = [client.get("/v1/stats", params={"since": since}).json()["total"]["accepted"] for client in two]
    assert told == [1, 2, 6]


def test_a_key_says_its_project_by_itself_and_no_other(two: Clients, here: Services) -> None:
    amber, _, operator = two
    notify(operator, "order-1", project="amber")
    carry_out(here)
    assert len(listed(amber)) == 1
    body = {"user": "u-1", "push": PUSH, "project": "blue"}
    refused = [
        amber.post("/v1/notifications", json=body),
        amber.post("/v1/cancellations", json={"key": "order-1", "project": "blue"}),
        amber.get("/v1/messages", params={"project": "blue"}),
        amber.get("/v1/stats", params={"project": "blue"}),
        operator.post("/v1/notifications", json={**body, "project": "Blue!"}),
        operator.get("/v1/messages", params={"project": "Blue!"}),
    ]
    assert [(answer.status_code, answer.json()["field"]) for answer in refused] == [(422, "project")] * 6


def test_a_project_cannot_change_what_all_share(two: Clients, here: Services) -> None:
    with here.engine.begin() as conn, pytest.raises(InvalidMessage, match="all projects share"):
        keys.create(conn, "shop", {Scope.TEMPLATES}, secret=secret(here.settings), project="amber")
    changes = [{"change": "erase_user", "user": "u-1"}, {"change": "set_tags", "user": "u-2", "tags": {"a": 1}}]
    answer = two[0].post("/v1/audience", json={"changes": changes}).json()
    assert (answer["accepted"], answer["refused"][0]["field"]) == (1, "changes[0].change")
    assert two[2].post("/v1/audience", json={"changes": changes}).json()["accepted"] == 2


def test_the_library_sends_for_a_project(two: Clients, here: Services) -> None:
    push = Push("Hello", "Are you there?")
    at = datetime.fromisoformat(LATER)
    with Client(here.settings.broker_url, project="amber") as client:
        first = client.notify(user="u-1", push=push, key="order-1", send_at=at)
        again = client.notify(user="u-1", push=push, key="order-1", send_at=at)
        client.notify_many([Recipient("u-2", key="order-2")], push=push, send_at=at)
    with pytest.raises(InvalidMessage, match="project"):
        Client(here.settings.broker_url, project="Am ber")
    assert again.duplicate
    assert notify(two[0], "order-1") == str(first)
    assert notify(two[1], "order-1") != str(first)
    carry_out(here)
    assert len(listed(two[0])) == 2
    assert UUID(str(first)) == first
