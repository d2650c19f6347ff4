"""Migrations run beside workers that are at work: squawk looks for statements that would hold these up,
or break them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from knocktwice_worker.database import migrations

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(migrations.__file__).parent

#: Rules that are no rules of this house.
NOT_OURS = {
    "prefer-bigint-over-int": "about the type, not about locks; what is counted here stays small",
    "prefer-bigint-over-smallint": "about the type, not about locks; a step's number is small, and there are many rows",
    "prefer-text-field": "Alembic's own table",
    "require-statement-timeout": "the wait for a lock is bounded (lock_timeout); the work itself may take its time",
}

_SMALL = "made before the first release: there was no installation to hold up"

#: Migration → rule → why it is allowed there. They were made before anything checked them and cannot be changed any
#: more. A new one has no place in this list unless workers are stopped for it: an index is made CONCURRENTLY, in an
#: ``autocommit_block()``; a constraint is added NOT VALID, and validated in the next migration.
EXCUSED: dict[str, dict[str, str]] = {
    "0002": {
        "require-concurrent-index-creation": _SMALL,
        "adding-field-with-default": "knocktwice_now() is STABLE: PostgreSQL computes it once and rewrites nothing",
    },
    "0005": {"require-concurrent-index-creation": _SMALL},
    "0006": {"require-concurrent-index-creation": _SMALL},
    "0008": {"constraint-missing-not-valid": _SMALL},
    "0009": {"require-concurrent-index-creation": _SMALL},
    "0010": {"require-concurrent-index-creation": _SMALL},
    "0011": {
        "require-concurrent-index-creation": _SMALL,
        "ban-drop-default": "the defaults were there for the statements before; no worker relied on them",
    },
    "0014": {
        "require-concurrent-index-creation": _SMALL,
        "require-concurrent-index-deletion": _SMALL,
        "ban-drop-constraint": "foreign keys that no worker relied on: one function writes parents and children together",
    },
    "0015": {"ban-drop-default": "the defaults were there for the statements before; no worker relied on them"},
    "0016": {"require-concurrent-index-creation": _SMALL, "require-concurrent-index-deletion": _SMALL},
    "0018": {"renaming-column": "the column is renamed at once; workers of the release before are stopped first"},
    "0021": {
        "adding-not-nullable-field": "provider_reports holds what waits for seconds",
        "ban-drop-column": "rollups is small, and workers of the release before are stopped first",
        "ban-drop-default": "the default was there for the statements before; no worker relied on it",
    },
    "0027": {"ban-drop-default": "made in the same statement for the rows that there are; no worker relied on it"},
    "0034": {
        "ban-drop-constraint": "made anew at once from an index that was built before, and a rule that became an index"
    },
    "0036": {
        "ban-drop-constraint": "made anew at once, for one kind more; brakes has a handful of rows",
        "constraint-missing-not-valid": "brakes has a handful of rows",
    },
    "0039": {"ban-drop-constraint": "made anew in the same transaction, for two kinds more, and validated afterwards"},
}


def _scripts() -> Iterator[tuple[str, str]]:
    """Yield each migration's number and its SQL, from the first on."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    for revision in reversed(list(ScriptDirectory(str(FOLDER)).walk_revisions())):
        config.output_buffer = sql = StringIO()
        command.upgrade(config, f"{revision.down_revision or 'base'}:{revision.revision}", sql=True)
        yield revision.revision, sql.getvalue()


def _complaints(*files: Path) -> set[tuple[str, str]]:
    """Return file name and rule of all that squawk finds."""
    squawk = Path(sys.executable).with_name("squawk")
    rules = [f"--exclude={rule}" for rule in NOT_OURS]
    # The oldest PostgreSQL that is not out of date; a later one holds fewer locks.
    done = subprocess.run(
        [squawk, "--pg-version=14", "--reporter=json", *rules, *files], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return {(Path(found["file"]).stem, found["rule_name"]) for found in json.loads(done.stdout)}


def test_no_migration_holds_up_workers_unless_it_is_excused_here(tmp_path: Path) -> None:
    for number, sql in _scripts():
        (tmp_path / f"{number}.sql").write_text(sql)
    excused = {(number, rule) for number, rules in EXCUSED.items() for rule in rules}
    # An excuse that nothing needs is one that nobody should copy.
    assert _complaints(*tmp_path.iterdir()) == excused


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("CREATE INDEX later_idx ON deliveries (price)", "require-concurrent-index-creation"),
        ("ALTER TABLE deliveries ALTER COLUMN tries TYPE bigint", "changing-column-type"),
        ("ALTER TABLE deliveries ADD CHECK (tries >= 0)", "constraint-missing-not-valid"),
        ("ALTER TABLE deliveries DROP COLUMN sender", "ban-drop-column"),
    ],
)
def test_what_would_hold_up_or_break_workers_is_found(tmp_path: Path, sql: str, rule: str) -> None:
    script = tmp_path / "next.sql"
    script.write_text(f"{migrations.set_lock_timeout(migrations.LOCK_TIMEOUT)}; BEGIN; {sql}; COMMIT;")
    assert _complaints(script) == {("next", rule)}
