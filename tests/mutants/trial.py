"""Tries mutants: each in a scratch copy of the tree, against its own tests, within a time limit."""

from __future__ import annotations

import compileall
import multiprocessing
import os
import shutil
import signal
import sys
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

    import pytest

    from mutants.mutant import Mutant

#: What of the tree is copied, and where in it Python looks for packages.
_COPIED = ("worker", "shared", "producer", "tests", "deploy", "docs", "pyproject.toml", "README.md", "alembic.ini")
_PACKAGES = ("worker", "shared", "producer")
#: What pytest ends with when tests failed; anything else but 0 says that none were run.
_FAILED = 1
#: Libraries that are loaded once: each trial is forked from a process that has them. None of ours may be among them.
_LOADED = [
    "pytest",
    "_hypothesis_pytestplugin",
    "schemathesis.pytest.plugin",
    "_pytest.assertion.rewrite",
    "xml.etree.ElementTree",
    "aiohttp.web",
    "alembic.command",
    "babel.dates",
    "babel.numbers",
    "celery.apps.worker",
    "celery.bin.worker",
    "celery.fixups.django",
    "celery.schedules",
    "celery.worker.strategy",
    "celery.concurrency.thread",
    "cronsim",
    "cryptography.hazmat.primitives.asymmetric.rsa",
    "cryptography.hazmat.primitives.serialization",
    "fastapi.middleware",
    "fastapi.openapi.utils",
    "fastapi.responses",
    "httptools",
    "httpx",
    "jwt",
    "kombu.transport.redis",
    "langcodes",
    "liquid",
    "phonenumbers.timezone",
    "psycopg2.extras",
    "pycurl",
    "pydantic_settings",
    "redis.asyncio",
    "rich.console",
    "rich.progress",
    "rich.table",
    "sqlalchemy.dialects.postgresql.psycopg2",
    "structlog",
    "typer",
    "uvicorn.main",
    "yaml",
]
#: Plugins of pytest that take long to begin and that no test here needs.
_IDLE_PLUGINS = ("cacheprovider", "anyio", "platformdirs", "valkey", "xdist")
#: The servers that trials share, for ``tests/conftest.py``: the home in which they run.
SHARED_SERVERS = "KNOCKTWICE_TESTS_SHARE"


class Verdict(StrEnum):
    """What became of a mutant."""

    #: A test went red.
    KILLED = "killed"
    #: One of its tests ran into the time limit, which is as good as red.
    TIMEOUT = "hung"
    #: All its tests stayed green: a promise that no test holds.
    SURVIVED = "SURVIVED"
    #: Its tests do not run, or are not green without it, or it does not fit the program any more.
    BROKEN = "BROKEN"
    #: Nothing can notice it; the list says why.
    EQUIVALENT = "equivalent"


class Scratch:
    """A copy of the tree in which files are broken and mended.

    Args:
        root: the tree.
        folder: where the copy is made; it must not exist.
        servers: the home of running servers that all trials may use, one after the other; ``None``: each starts its
            own.
    """

    def __init__(self, root: Path, folder: Path, servers: Path | None = None) -> None:
        self._root, self.folder = root, folder
        self._servers = servers
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_LOADED)
        folder.mkdir()
        for name in _COPIED:
            source = root / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(source, folder / name, ignore=ignored)
            elif source.exists():
                shutil.copy2(source, folder / name)
        for package in _PACKAGES:
            # By their content: a file is broken and mended within one second, which its time does not show.
            compileall.compile_dir(folder / package, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)

    def judge(self, mutant: Mutant, limit_s: float) -> tuple[Verdict, str | None]:
        """Break the copy, run the mutant's tests, and mend it; return what became of it and which test went red.

        A test that is red without the mutant says nothing: see :meth:`are_green`.

        Args:
            limit_s: seconds that one test may take.

        Raises:
            ValueError: the mutant does not fit the program any more.
        """
        mutant.apply(self.folder)
        try:
            verdict, red = self.run(mutant.tests, limit_s)
        finally:
            shutil.copy2(self._root / mutant.file, self.folder / mutant.file)
        if verdict is Verdict.BROKEN and self.are_green(["--collect-only", *mutant.tests], limit_s):
            # It is the mutant that cannot even be loaded.
            return Verdict.KILLED, None
        return verdict, red

    def are_green(self, tests: Sequence[str], limit_s: float) -> bool:
        """Whether tests are green on the copy as it stands."""
        return self.run(tests, limit_s)[0] is Verdict.SURVIVED

    def run(self, tests: Sequence[str], limit_s: float) -> tuple[Verdict, str | None]:
        """Run tests on the copy as it stands, to the first that fails, which is returned with the verdict."""
        red, told = self._context.Pipe(duplex=False)
        trial = self._context.Process(target=_run, args=(str(self.folder), list(tests), self._servers, limit_s, told))
        trial.start()
        told.close()
        try:
            trial.join()
        finally:
            if trial.exitcode is None and trial.pid is not None:
                # With its servers and workers it is a group of its own, so that all of it can be ended.
                os.killpg(trial.pid, signal.SIGKILL)
        first = None
        # Without a word its end comes.
        with red, suppress(EOFError):
            first = red.recv()
        if trial.exitcode == 0:
            return Verdict.SURVIVED, None
        if trial.exitcode != _FAILED:
            return Verdict.BROKEN, None
        return (Verdict.KILLED, first) if first else (Verdict.TIMEOUT, None)


class _FirstRed:
    """A plugin of pytest that tells which test failed."""

    def __init__(self, told: Connection) -> None:
        self._told: Connection | None = told

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self._told is not None:
            self._told.send(report.nodeid)
            self._told = None


def _run(folder: str, tests: list[str], servers: Path | None, limit_s: float, told: Connection) -> None:
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    # What pytest makes of a test file is the same each time.
    sys.dont_write_bytecode = False
    os.chdir(folder)
    packages = [str(Path(folder, package)) for package in _PACKAGES]
    sys.path[:0] = packages
    os.environ["PYTHONPATH"] = os.pathsep.join(packages)
    if servers is not None:
        os.environ[SHARED_SERVERS] = str(servers)
    import pytest

    if not any("openapi" in test for test in tests):
        os.environ["PYTEST_ADDOPTS"] = "-p no:schemathesis"
    options = ["-q", "-x", *(option for plugin in _IDLE_PLUGINS for option in ("-p", f"no:{plugin}"))]
    options += ["-o", f"faulthandler_timeout={limit_s}", "-o", "faulthandler_exit_on_timeout=true"]
    # Libraries that are loaded already are no test's fault.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = pytest.main([*options, *tests], plugins=[_FirstRed(told)])
    sys.stdout.flush()
    os._exit(int(code))
