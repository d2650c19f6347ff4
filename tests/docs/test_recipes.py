"""The applications of the recipes: the files that a page shows are written down,
and the application's own tests run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from support.documents import PAGES, files, name

if TYPE_CHECKING:
    from pathlib import Path

#: Every page that shows an application with tests.
APPLICATIONS = [page for page in PAGES if any("test" in file for file in files(page))]


def test_there_is_one_for_each_usual_framework() -> None:
    assert {page.stem for page in APPLICATIONS} >= {"celery", "django", "fastapi", "flask"}


# Django makes a database for its tests and drops it, which nobody may be connected to.
@pytest.mark.own_session
@pytest.mark.parametrize("page", APPLICATIONS, ids=name)
def test_its_tests_pass(page: Path, tmp_path: Path, database_url: str) -> None:
    for file, text in files(page).items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    shown = files(page)
    if "settings.py" in shown:
        (tmp_path / "shop" / "migrations" / "__init__.py").touch()
        (tmp_path / "shop" / "__init__.py").touch()
        done = _run(
            ["-W", "error", "-m", "django", "test", "--settings", "settings"], tmp_path, _postgres(database_url)
        )
    else:
        # Without the plugins of our own tests, which take seconds to load.
        alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        plugins = ["-p", "knocktwice.pytest_plugin", "-p", "no:cacheprovider"]
        done = _run(["-m", "pytest", "-q", "-W", "error", *plugins], tmp_path, alone)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    there = sum(len(re.findall(r"^ *(?:async )?def test_", text, re.MULTILINE)) for text in shown.values())
    ran = re.search(r"(\d+) passed|Ran (\d+) tests", told)
    assert ran, told
    assert int(ran[1] or ran[2]) == there


def _run(arguments: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("KNOCKTWICE_", "PYTEST_", "DJANGO_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _postgres(url: str) -> dict[str, str]:
    """Return libpq's variables for a database, as the recipe's settings read them."""
    parts = sa.make_url(url)
    host = parts.host or str(parts.query["host"])
    named = {"PGDATABASE": parts.database, "PGHOST": host, "PGUSER": parts.username, "PGPORT": parts.port}
    return {variable: str(value) for variable, value in named.items() if value}
