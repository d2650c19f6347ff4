"""Tries mutants: each in a scratch copy of the tree, against its own tests, within a time limit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mutants.mutant import Mutant

#: What of the tree is copied, and where in it Python looks for packages.
_COPIED = ("worker", "shared", "producer", "tests", "deploy", "docs", "pyproject.toml", "README.md", "alembic.ini")
_PACKAGES = ("worker", "shared", "producer")
#: What pytest ends with when tests failed; anything else but 0 says that none were run.
_FAILED = 1


class Verdict(StrEnum):
    """What became of a mutant."""

    #: A test went red.
    KILLED = "killed"
    #: Its tests ran into the time limit, which is as good as red.
    TIMEOUT = "killed by the time limit"
    #: All its tests stayed green: a promise that no test holds.
    SURVIVED = "SURVIVED"
    #: Its tests do not run, or are not green without it, or it does not fit the program any more.
    BROKEN = "BROKEN"


class Scratch:
    """A copy of the tree in which files are broken and mended.

    Args:
        root: the tree.
        folder: where the copy is made; it must not exist.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root, self.folder = root, folder
        self._green: dict[tuple[str, ...], bool] = {}
        folder.mkdir()
        for name in _COPIED:
            source = root / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(source, folder / name, ignore=ignored)
            elif source.exists():
                shutil.copy2(source, folder / name)

    def judge(self, mutant: Mutant, limit_s: float) -> Verdict:
        """Break the copy, run the mutant's tests, and mend it. Tests that are not green before say nothing, and are named.

        Args:
            limit_s: seconds that the tests may take.

        Raises:
            ValueError: the mutant does not fit the program any more.
        """
        if mutant.tests not in self._green:
            self._green[mutant.tests] = self.run(mutant.tests, limit_s) is Verdict.SURVIVED
        if not self._green[mutant.tests]:
            return Verdict.BROKEN
        mutant.apply(self.folder)
        try:
            return self.run(mutant.tests, limit_s)
        finally:
            shutil.copy2(self._root / mutant.file, self.folder / mutant.file)

    def run(self, tests: Sequence[str], limit_s: float) -> Verdict:
        """Run tests on the copy as it stands, to the first that fails."""
        paths = os.pathsep.join(str(self.folder / package) for package in _PACKAGES)
        process = subprocess.Popen(
            [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # With its servers and workers it is a group of its own, so that all of it can be ended.
            start_new_session=True,
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return Verdict.TIMEOUT
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code == 0:
            return Verdict.SURVIVED
        return Verdict.KILLED if code == _FAILED else Verdict.BROKEN
