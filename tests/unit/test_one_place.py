"""What is promised about the source itself."""

from __future__ import annotations

import re
from pathlib import Path

import knocktwice_worker

SOURCE = Path(knocktwice_worker.__file__).parent
CHANGES_A_STATE = re.compile(r"UPDATE (?:deliveries|notifications)\b(?:(?!WHERE\b|FROM\b)[\s\S])*?\bstate\s*=")


def test_only_the_store_changes_states() -> None:
    changing = {
        path.parent.relative_to(SOURCE) for path in SOURCE.rglob("*.py") if CHANGES_A_STATE.search(path.read_text())
    }
    assert changing - {Path("database/migrations/versions")} == {Path("notifications/store")}
