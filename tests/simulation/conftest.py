"""One installation for all simulations of a process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from simulation.installation import installed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.embedded.servers import Servers
    from simulation.installation import Installation


@pytest.fixture(scope="module")
def here(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation to simulate."""
    with installed(servers, tmp_path_factory.mktemp("simulation")) as built:
        yield built
