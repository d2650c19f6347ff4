"""Databases of their own for tests, copied from the session's migrated one."""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.embedded.servers import Servers

_numbers = itertools.count()


@contextmanager
def new_database(servers: Servers) -> Iterator[str]:
    """Make a migrated database, and drop it in the end."""
    # Processes may use the same servers one after the other, and one that was killed leaves its last one behind.
    name = f"test_{os.getpid()}_{next(_numbers)}"
    url = sa.make_url(servers.database_url)
    admin = sa.create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as conn:
        conn.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {url.database}"))
    yield url.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as conn:
        conn.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
