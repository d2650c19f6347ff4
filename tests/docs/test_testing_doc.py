"""``docs/testing.md`` knows every folder of tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_folder_of_tests_is_named_with_what_it_proves() -> None:
    table = re.findall(r"^\| `tests/(\w+)/` \|", (ROOT / "docs" / "testing.md").read_text(), re.MULTILINE)
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/**/*.py")}
    assert sorted(table) == sorted(folders - {"support"})
