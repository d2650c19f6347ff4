"""Who gets in: keys, their scopes, their end, and how fast they may be used."""

from __future__ import annotations

import asyncio
import hmac
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import sqlalchemy as sa

from knocktwice_worker.config import Settings
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.gateway.auth import keys
from knocktwice_worker.gateway.auth.key_pace import KeyPace
from knocktwice_worker.gateway.auth.keyring import FRESH, KeyRing
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.problems import Problem
from knocktwice_worker.gateway.routes import PUBLIC
from knocktwice_worker.services import Services
from support.http_gateway import HttpGateway

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.commands import CommandOutput


class _Seconds:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def _made(here: Services, *scopes: Scope, lifetime: timedelta | None = None) -> str:
    with here.engine.begin() as conn:
        return keys.create(conn, "shop", scopes or (Scope.READ,), secret=secret(here.settings), lifetime=lifetime)


def test_nothing_answers_without_a_key_except_what_is_public(gateway: HttpGateway) -> None:
    stranger = gateway.stranger()
    forged = {"Authorization": f"Bearer kt_{'a' * 12}_{'b' * 32}"}
    document = gateway.client().get("/openapi.json").json()
    tried = 0
    for path, operations in document["paths"].items():
        for method in operations:
            if path.startswith(PUBLIC):
                continue
            for headers in ({}, forged, {"Authorization": "Basic YTpi"}):
                answer = stranger.request(method, path.replace("{id}", "x"), headers=headers)
                assert answer.status_code == 401, (method, path)
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                tried += 1
    assert tried > 60
    assert stranger.get("/openapi.json").status_code == 401
    assert stranger.get("/docs").status_code == 404


@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [
        (Scope.NOTIFY, "POST", "/v1/notifications"),
        (Scope.AUDIENCE, "POST", "/v1/audience"),
        (Scope.TEMPLATES, "PUT", "/v1/templates/t"),
        (Scope.TEMPLATES, "DELETE", "/v1/segments/s"),
        (Scope.READ, "GET", "/v1/messages"),
    ],
)
def test_a_key_opens_what_it_was_made_for(gateway: HttpGateway, scope: Scope, method: str, path: str) -> None:
    others = [other for other in Scope if other not in (scope, Scope.ADMIN)]
    answer = gateway.client(*others).request(method, path)
    assert answer.status_code == 403
    assert f"lacks the scope {scope}" in answer.json()["detail"]
    for fine in (scope, Scope.ADMIN):
        assert gateway.client(fine).request(method, path).status_code not in (401, 403)


def test_what_is_stored_of_a_key_does_not_open_anything(here: Services) -> None:
    key = _made(here)
    with here.engine.connect() as conn:
        row = conn.execute(sa.text("SELECT * FROM api_keys")).one()
    assert key not in str(row)
    assert key.split("_")[2].encode() not in bytes(row.digest)
    assert bytes(row.digest) != keys.digest(key, "another secret")


def test_a_revoked_key_ends_within_seconds(here: Services) -> None:
    clock = _Seconds()
    key = _made(here)

    async def use() -> list[bool]:
        ring = KeyRing(here, clock)
        before = await ring.find(key)
        with here.engine.begin() as conn:
            assert keys.revoke(conn, keys.id_of(key) or "")
        clock.now += FRESH.total_seconds()
        return [before is not None, await ring.find(key) is not None]

    assert asyncio.run(use()) == [True, False]


def test_a_key_whose_time_is_over_is_refused(here: Services) -> None:
    async def find(key: str) -> bool:
        return await KeyRing(here).find(key) is not None

    assert asyncio.run(find(_made(here, lifetime=timedelta(days=1))))
    assert not asyncio.run(find(_made(here, lifetime=timedelta())))


def test_keys_go_on_for_a_while_when_the_database_is_away(here: Services) -> None:
    clock = _Seconds()
    key = _made(here)

    async def use() -> list[bool]:
        ring = KeyRing(here, clock)
        known = await ring.find(key) is not None
        away = Services(Settings(database_url="postgresql://127.0.0.1:1/none", secret="test"))
        ring._services = away
        clock.now += 60
        still = await ring.find(key) is not None
        clock.now += 600
        with pytest.raises(Problem) as refused:
            await ring.find(key)
        away.close()
        return [known, still, refused.value.status == 503]

    assert asyncio.run(use()) == [True, True, True]


def test_the_last_use_of_a_key_is_noted(here: Services) -> None:
    key = _made(here)

    async def use() -> None:
        ring = KeyRing(here)
        await ring.find(key)
        await ring.close()

    asyncio.run(use())
    with here.engine.connect() as conn:
        (found,) = keys.list_all(conn)
    assert found.last_used_at is not None


def test_a_key_that_is_used_too_fast_is_told_when_to_come_back(here: Services) -> None:
    slow = Services(here.settings.model_copy(update={"gateway_per_s": 5.0}))

    async def use() -> int:
        pace, taken = KeyPace(slow), 0

        async def take_all() -> None:
            nonlocal taken
            while taken < 50:
                await pace.take("k")
                taken += 1

        with pytest.raises(Problem) as refused:
            await take_all()
        assert refused.value.status == 429
        assert int(refused.value.headers["Retry-After"]) >= 1
        await pace.take("another")
        return taken

    assert 5 <= asyncio.run(use()) < 50
    slow.close()


def test_an_unknown_parameter_is_refused(gateway: HttpGateway) -> None:
    answer = gateway.client().get("/v1/messages", params={"usr": "u-17"})
    assert (answer.status_code, answer.json()["field"]) == (422, "usr")


def test_keys_are_made_listed_and_revoked_on_the_command_line(run: Callable[..., CommandOutput]) -> None:
    made = run("key", "create", "shop", "--scope", "notify", "--scope", "read", "--json").json
    assert made["key"].startswith(f"kt_{made['id']}_")
    listed = run("key", "list", "--json")
    assert made["key"] not in listed.out
    assert [(key["id"], key["name"], key["scopes"]) for key in listed.json] == [
        (made["id"], "shop", ["notify", "read"])
    ]
    assert run("key", "revoke", made["id"]).out == "revoked\n"
    assert run("key", "revoke", made["key"]).out == "it was revoked before\n"
    assert run("key", "revoke", "nobody").code == 1
    wrong = run("key", "create", "shop", "--scope", "everything")
    assert wrong.code == 1
    assert "must be one of notify, audience, templates, blasts, read, admin" in wrong.err


def test_docs_are_shown_to_everybody_only_by_a_setting(here: Services) -> None:
    shown = Services(here.settings.model_copy(update={"gateway_docs": True}))
    with HttpGateway(shown) as gateway, httpx.Client(base_url=gateway.url) as stranger:
        assert stranger.get("/docs").status_code == 200
        assert stranger.get("/openapi.json").json()["openapi"].startswith("3.1")
    shown.close()


def test_a_key_that_is_used_too_fast_is_refused_over_http_and_no_other(here: Services) -> None:
    slow = Services(here.settings.model_copy(update={"gateway_per_s": 1.0}))
    with HttpGateway(slow) as gateway:
        fast, other = gateway.client(), gateway.client()
        answers = [fast.get("/v1/stats") for _ in range(30)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert other.get("/v1/stats").status_code != 429
    slow.close()


def test_a_known_and_an_unknown_id_cost_the_same_work(here: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _made(here)
    counted: list[str] = []

    def count(owner: object, name: str) -> None:
        work = getattr(owner, name)

        def counting(*args: Any, **more: Any) -> Any:
            counted.append(name)
            return work(*args, **more)

        monkeypatch.setattr(owner, name, counting)

    count(keys, "digest")
    count(keys, "working")
    count(hmac, "compare_digest")

    async def work(given: str) -> list[str]:
        ring = KeyRing(here)
        assert await ring.find(made) is not None
        counted.clear()
        assert await ring.find(given) is None
        await ring.close()
        return list(counted)

    known = asyncio.run(work(made[:-32] + "x" * 32))
    unknown = asyncio.run(work(f"kt_{'a' * 12}_{'x' * 32}"))
    assert known == unknown
    assert {"digest", "compare_digest", "working"} <= set(known)
