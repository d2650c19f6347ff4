"""Other libraries that do the same job on the same servers: BullMQ (Node) and procrastinate (Python, Postgres alone).

They are no part of a development environment: the benchmarks install them beside the servers they start. Each is
written to be quick within its design: connections kept, many jobs at once, limits in one script or transaction. What
they leave out is what their designs leave out: no ledger, no lease on a message, no second look at anything.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.provider import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HERE = Path(__file__).parent
_BULLMQ = ("bullmq@5", "pg@8")
_PROCRASTINATE = "procrastinate>=3,<4"


@dataclass(frozen=True)
class Program:
    """A program with the commands ``work`` and ``feed COUNT``; see ``bullmq.mjs``.

    Attributes:
        name: the library's.
    """

    name: str

    def install(self, home: Path) -> tuple[list[str], dict[str, str]]:
        """Install the library below a folder; return how the program is started, and with what environment.

        Raises:
            Unavailable: it cannot be had here.
        """
        into = home / self.name
        into.mkdir(exist_ok=True)
        if self.name == "bullmq":
            node, npm = _found("node"), _found("npm")
            program = into / "bullmq.mjs"
            shutil.copy(_HERE / "bullmq.mjs", program)
            _run([npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(into), *_BULLMQ])
            return [node, str(program)], {"NODE_EXTRA_CA_CERTS": str(home / "provider" / "cert.pem")}
        _run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(into), "--upgrade", _PROCRASTINATE])
        return [sys.executable, str(_HERE / "procrastinate_jobs.py")], {"PROCRASTINATE_PATH": str(into)}

    def prepare(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Make the tables of the library, if it has any."""
        if self.name == "procrastinate":
            _run([*argv, "schema"], env)


def _found(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        raise Unavailable(f"not measured: {name} is not installed (on Debian and Ubuntu: apt install nodejs npm)")
    return program


def _run(argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"not measured: {argv[0]} failed: {done.stderr.strip()[-500:]}")
