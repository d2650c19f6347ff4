"""Databases of their own for tests, copied from the session's migrated one."""

from __future__ import annotations

import itertools
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
    name = f"test_{next(_numbers)}"
    url = sa.make_url(servers.database_url)
    admin = sa.create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as conn:
        conn.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {url.database}"))
    yield url.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as conn:
        conn.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
