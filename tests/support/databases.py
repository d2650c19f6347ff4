"""Databases of their own for tests, copied from the session's migrated one, or lent again after they were emptied."""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from knocktwice_worker.database.schema import CLOCK
from support.clock import CLOCK_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from knocktwice_worker.embedded.servers import Servers

_numbers = itertools.count()

#: How tests reach their databases: as they are, unless everybody is to take another way (``pytest --pooled``).
way: list[Callable[[str], str]] = []

# A table or index so large is not worth emptying: its database is dropped.
_FULL = """
SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i') AND pg_relation_size(oid) > 1e6
"""

# Everything that a test may change in a schema, as one value.
_SHAPE = """
SELECT md5(string_agg(one, E'\n' ORDER BY one)) FROM (
  SELECT concat_ws(' ', 'class', relname, relkind, relnatts, reloptions::text) FROM pg_class
  WHERE relnamespace = 'public'::regnamespace
  UNION ALL SELECT concat_ws(' ', 'column', attrelid::regclass, attname, atttypid, attnotnull, attisdropped, atthasdef)
  FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'public'::regnamespace
  UNION ALL SELECT concat_ws(' ', 'index', indexrelid::regclass, indisvalid, indisunique) FROM pg_index
  WHERE indrelid::regclass::text !~ '^pg_'
  UNION ALL SELECT concat_ws(' ', 'constraint', conname, pg_get_constraintdef(oid)) FROM pg_constraint
  WHERE connamespace = 'public'::regnamespace
  UNION ALL SELECT concat_ws(' ', 'trigger', tgname, tgenabled) FROM pg_trigger WHERE NOT tgisinternal
  UNION ALL SELECT concat_ws(' ', 'function', proname, prosrc) FROM pg_proc
  WHERE pronamespace = 'public'::regnamespace
  UNION ALL SELECT concat_ws(' ', 'extension', extname) FROM pg_extension
  UNION ALL SELECT concat_ws(' ', 'setting', setconfig::text) FROM pg_db_role_setting
  WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS everything (one)
"""

_TABLES = """
SELECT relname FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND pg_relation_size(oid) > 0 ORDER BY 1
"""
_SEQUENCES = "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL"


@contextmanager
def new_database(servers: Servers) -> Iterator[str]:
    """Make a migrated database, and drop it in the end."""
    pool = _pool(servers)
    name = pool.create()
    yield pool.way_to(name)
    pool.drop(name)


@contextmanager
def lent_database(servers: Servers) -> Iterator[str]:
    """Lend a migrated database that looks like new.

    To copy a database costs more than most tests. So one that a test gave back is emptied and lent again, unless the
    test changed its schema or filled it. It has another name each time, so that nothing that a test left running can
    reach it. A test that looks at plans or sizes wants :func:`new_database`.
    """
    pool = _pool(servers)
    name = pool.take()
    yield pool.way_to(name)
    pool.give_back(name)


@dataclass
class _Pool:
    """The databases of one PostgreSQL that nobody uses at the moment."""

    address: sa.URL
    free: list[str] = field(default_factory=list)
    shape: str = ""
    rows: dict[str, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        address = self.address.set(database="postgres")
        self.admin = sa.create_engine(address, isolation_level="AUTOCOMMIT", pool_pre_ping=True)

    def url(self, name: str) -> str:
        return self.address.set(database=name).render_as_string(hide_password=False)

    def way_to(self, name: str) -> str:
        return way[-1](self.url(name)) if way else self.url(name)

    def create(self) -> str:
        name = _name()
        self._run(f"CREATE DATABASE {name} TEMPLATE {self.address.database}")
        return name

    def drop(self, name: str) -> None:
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def take(self) -> str:
        if self.free:
            return self.free.pop()
        name = self.create()
        if not self.shape:
            self._learn(name)
        return name

    def give_back(self, name: str) -> None:
        emptied = _name()
        try:
            # A connection that a test left open ends here; a process that it left running does not find the new name.
            self._run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            self._run(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'")  # noqa: S608 - our own name
            self._run(f"ALTER DATABASE {name} RENAME TO {emptied}")
            self._run(f"ALTER DATABASE {emptied} ALLOW_CONNECTIONS true")
        except sa.exc.DBAPIError:
            self.drop(name)
            return
        if self._empty(emptied):
            self.free.append(emptied)
        else:
            self.drop(emptied)

    def _learn(self, name: str) -> None:
        """Note how a migrated database looks."""
        with self._opened(name) as conn:
            self.shape = conn.exec_driver_sql(_SHAPE).scalar_one()
            for table in conn.exec_driver_sql(_TABLES).scalars().all():
                found = conn.execute(sa.text(f'SELECT to_jsonb(t)::text FROM "{table}" t')).scalars().all()  # noqa: S608 - from the catalogue
                if found:
                    self.rows[table] = list(found)

    def _empty(self, name: str) -> bool:
        """Make a database look like new; return whether that was possible."""
        with self._opened(name) as conn:
            if conn.exec_driver_sql(f"SELECT to_regclass('{CLOCK_TABLE}') IS NOT NULL").scalar_one():
                conn.exec_driver_sql(CLOCK.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
                conn.exec_driver_sql(f"DROP TABLE {CLOCK_TABLE}")
            if conn.exec_driver_sql(_FULL).first() or conn.exec_driver_sql(_SHAPE).scalar_one() != self.shape:
                return False
            conn.exec_driver_sql("SET LOCAL session_replication_role = replica")
            for table in conn.exec_driver_sql(_TABLES).scalars().all():
                conn.exec_driver_sql(f'DELETE FROM "{table}"')  # noqa: S608 - from the catalogue
                for row in self.rows.get(table, ()):
                    again = f'INSERT INTO "{table}" SELECT * FROM jsonb_populate_record(NULL::"{table}", %s)'  # noqa: S608 - likewise
                    conn.exec_driver_sql(again, (row,))
            for sequence in conn.exec_driver_sql(_SEQUENCES).scalars().all():
                conn.exec_driver_sql(f'ALTER SEQUENCE "{sequence}" RESTART')
        return True

    @contextmanager
    def _opened(self, name: str) -> Iterator[sa.Connection]:
        with sa.create_engine(self.address.set(database=name), poolclass=sa.NullPool).begin() as conn:
            yield conn

    def _run(self, statement: str) -> None:
        with self.admin.connect() as conn:
            conn.exec_driver_sql(statement)


_pools: dict[str, _Pool] = {}


def _pool(servers: Servers) -> _Pool:
    return _pools.setdefault(servers.database_url, _Pool(sa.make_url(servers.database_url)))


def _name() -> str:
    # Processes may use the same servers one after the other, and one that was killed leaves its last one behind.
    return f"test_{os.getpid()}_{next(_numbers)}"
