"""One gateway for tests that need nothing of their own in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from knocktwice_worker import services
from knocktwice_worker.config import Settings
from support.databases import new_database
from support.http_gateway import HttpGateway
from support.redis_keys import without_end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.embedded.servers import Servers


@pytest.fixture(scope="module")
def shared_gateway(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpGateway]:
    """A gateway that all tests of a module use, with a database and a keyspace that no other test uses."""
    with new_database(servers) as database_url:
        settings = Settings(
            database_url=database_url,
            broker_url=f"{servers.broker_url}?virtual_host=2",
            secret="test",
            home=tmp_path_factory.mktemp("home"),
            gateway_per_s=0,
            user_token_per_s=0,
        )
        built = services.Services(settings)
        built.redis.flushdb()
        with HttpGateway(built) as running:
            yield running
        assert without_end(built.redis) == []
        built.close()
