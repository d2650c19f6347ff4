"""The broker of ``knocktwice up`` on this machine, for an application in development that names none.

``up`` writes what it runs into :data:`STACK_FILE` of its home folder. Three checks keep everybody else's messages at
home: the file must be ours, the socket must be a local one below a folder of ours, and somebody must listen there.
"""

from __future__ import annotations

import logging
import os
import shlex
import socket
from contextlib import closing
from pathlib import Path

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_shared.names import HOME, STACK_FILE

log = logging.getLogger("knocktwice")

_SCHEME = "redis+socket://"


def broker_url(variable: str) -> str | None:
    """Return the broker's URL if a stack of ours runs here; ``None`` if there was none.

    It is looked for in ``KNOCKTWICE_HOME``, else in ``.knocktwice`` of the working folder and of each folder above it.

    Args:
        variable: the name of the URL in the file.

    Raises:
        KnocktwiceError: there was one, and it does not run.
    """
    for home in _homes():
        url = _read(home / STACK_FILE, variable)
        if url is None:
            continue
        if not _answers(Path(url.removeprefix(_SCHEME))):
            raise KnocktwiceError(
                f"no broker is named, and the stack of {home} does not run; start it with 'knocktwice up', "
                f"pass Client(broker_url) or set {variable}"
            )
        # Said aloud: outside of development an address was forgotten.
        log.warning("no broker is named; using that of the local stack in %s", home)
        return url
    return None


def _homes() -> list[Path]:
    if os.name != "posix":
        return []
    if home := os.environ.get("KNOCKTWICE_HOME"):
        return [Path(home)]
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return []
    return [folder / HOME for folder in (here, *here.parents)]


def _read(path: Path, variable: str) -> str | None:
    try:
        with path.open(encoding="utf-8") as file:
            facts = os.fstat(file.fileno())
            # In a folder that others may write to, anybody could have put the address of a broker of his own.
            if facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
                return None
            words = shlex.split(file.read(), comments=True)
    except (OSError, ValueError):
        return None
    prefix = f"{variable}={_SCHEME}"
    return next((word.removeprefix(f"{variable}=") for word in words if word.startswith(prefix)), None)


def _answers(path: Path) -> bool:
    """Whether a server listens at this socket, in a folder that only our user could make."""
    try:
        if path.parents[1].lstat().st_uid != os.geteuid():
            return False
        with closing(socket.socket(socket.AF_UNIX)) as probe:
            probe.settimeout(1)
            probe.connect(str(path))
    except (OSError, IndexError):
        return False
    return True
