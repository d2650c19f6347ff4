"""Behind PgBouncer in transaction mode everything works, and no setting of ours reaches anybody else's transaction."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
import sqlalchemy as sa

from knocktwice import Sms
from knocktwice_worker.database import engine
from support.pgbouncer import PROGRAM, PgBouncer
from support.system import System, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.commands import CommandOutput

pytestmark = pytest.mark.own_session


@pytest.fixture
def bouncer(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgBouncer]:
    if PROGRAM is None:
        if os.environ.get("CI"):
            pytest.fail("no pgbouncer: .ci/run installs it")
        pytest.skip("no pgbouncer: apt install pgbouncer")
    with PgBouncer(tmp_path_factory.mktemp("pgbouncer") / "files", database_url) as running:
        yield running


def test_each_transaction_has_its_own_bounds_and_others_have_none(bouncer: PgBouncer) -> None:
    short = engine.create(bouncer.url, pool_size=5, idle=timedelta(seconds=20), pooled=True)
    long = engine.create(bouncer.url, pool_size=5, idle=timedelta(minutes=2), pooled=True)
    names = ("lock_timeout", "idle_in_transaction_session_timeout", "jit")
    asked = sa.text(f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}")
    try:
        for _ in range(5):
            with short.connect() as one, long.connect() as other:
                assert tuple(one.execute(asked).one()) == ("10s", "20s", "off")
                assert tuple(other.execute(asked).one()) == ("10s", "2min", "off")
            with psycopg2.connect(bouncer.url.replace("+psycopg2", "")) as stranger, stranger.cursor() as cursor:
                cursor.execute(str(asked))
                assert (cursor.fetchone() or ())[:2] == ("0", "0")
            stranger.close()
    finally:
        short.dispose()
        long.dispose()


@pytest.mark.parametrize("first", ["many values", "rows that PostgreSQL keeps", "bytes"])
def test_a_transaction_is_bounded_whatever_its_first_statement_is(bouncer: PgBouncer, first: str) -> None:
    pooled = engine.create(bouncer.url, pool_size=1, idle=timedelta(seconds=20), pooled=True)
    try:
        with pooled.connect() as conn:
            if first == "many values":
                conn.execute(sa.text("SELECT CAST(:n AS int)"), [{"n": 1}, {"n": 2}])
            elif first == "bytes":
                driver: Any = conn.connection.dbapi_connection
                with driver.cursor() as cursor:
                    cursor.execute(b"SELECT %s", (1,))
                    assert cursor.fetchall() == [(1,)]
            else:
                kept = conn.execute(sa.text("SELECT generate_series(1, 5)"), execution_options={"yield_per": 2})
                assert kept.scalars().all() == [1, 2, 3, 4, 5]
            assert conn.execute(sa.text("SHOW lock_timeout")).scalar_one() == "10s"
    finally:
        pooled.dispose()


def test_a_worker_sends_by_way_of_a_pooler(bouncer: PgBouncer, valkey_url: str, tmp_path: Path) -> None:
    with System(bouncer.url, valkey_url, tmp_path, {"KNOCKTWICE_DATABASE_POOLED": "true"}) as system:
        system.start_worker()
        ids = [system.notify(f"+1650555{n:04}", sms=Sms("Come soon.", after=timedelta(0))) for n in range(1, 9)]
        for id_ in ids:
            eventually(lambda id_=id_: (told := system.story(id_)) and told.state == "texted", why=system.logs)  # type: ignore[misc]
        assert len(system.sandbox.texts()) == len(ids)


@pytest.mark.usefixtures("configured")
def test_migrations_ask_for_a_session_of_their_own(
    run: Callable[..., CommandOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KNOCKTWICE_DATABASE_POOLED", "true")
    refused = run("migrate")
    assert refused.code == 1
    assert "naming PostgreSQL itself" in refused.err
