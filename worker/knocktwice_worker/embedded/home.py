"""The home folder of the embedded servers: where they are, who owns them, the installation's secret."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_worker.embedded.children import User

#: Sockets live here, because a socket's path is limited to about a hundred bytes and a home's is not. Not
#: ``tempfile.gettempdir()``: a worker with another TMPDIR than the servers must find the same sockets.
SOCKETS = Path("/tmp")  # noqa: S108 - the folder inside is checked before use
#: Only names the socket, but every client has to say the same.
POSTGRES_PORT = 5432
DATABASE = "knocktwice"


class UnsafeDirectory(KnocktwiceError):
    """A folder is not as we left it. Find out who made it, and remove it if it is not needed.

    Attributes:
        path: the folder.
        problem: what is wrong with it.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path} {problem}")
        self.path = path
        self.problem = problem


class AlreadyRunning(KnocktwiceError):
    """Another process runs the servers of this home: use its servers, or stop that process first.

    Attributes:
        home: the home folder.
        pid: the process that runs them, if it has said so.
    """

    def __init__(self, home: Path, pid: int | None) -> None:
        super().__init__(f"the servers of {home} are already run by process {pid or '(unknown)'}")
        self.home = home
        self.pid = pid


@dataclass(frozen=True)
class Servers:
    """The addresses of a home's embedded servers, running or not.

    Attributes:
        sockets: the private folder with both sockets.
    """

    sockets: Path

    @property
    def valkey_socket(self) -> Path:
        """Valkey's socket."""
        return self.sockets / "valkey" / "valkey.sock"

    @property
    def database_url(self) -> str:
        """PostgreSQL, for SQLAlchemy."""
        # Names the port, or a stray PGPORT would.
        return f"postgresql+psycopg2://postgres@/{DATABASE}?host={self.sockets / 'postgres'}&port={POSTGRES_PORT}"

    @property
    def broker_url(self) -> str:
        """Valkey, for kombu and Celery."""
        return f"redis+socket://{self.valkey_socket}"

    @property
    def redis_url(self) -> str:
        """Valkey, for redis-py."""
        return f"unix://{self.valkey_socket}"


def addresses(home: Path) -> Servers:
    """Return where the embedded servers of this home are, running or not. The same for every process and user."""
    digest = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]
    return Servers(SOCKETS / f"knocktwice-{digest}")


def secret(home: Path) -> str:
    """Return this installation's secret, 64 hex digits, made on the first call.

    Simultaneous first callers, in any process, get one and the same.

    Raises:
        UnsafeDirectory: the secret's file holds something else.
    """
    path = home / "secret"
    if not path.exists():
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_secret(path)
    value = path.read_text().strip()
    if len(value) != 64:
        # Signing with a cut-off or empty key would look fine and protect nothing.
        raise UnsafeDirectory(path, "does not hold the 64 hex digits we wrote; restore it from a backup")
    return value


def lock(home: Path) -> int:
    """Become the one process that runs this home's servers, until the returned descriptor is closed or we die.

    Raises:
        AlreadyRunning: somebody else is that process.
    """
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 32).strip()
        os.close(descriptor)
        raise AlreadyRunning(home, int(holder) if holder.isdigit() else None) from error
    # For people and messages only: the lock says who is in charge, not this number.
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def unlock(descriptor: int) -> None:
    """Let others run this home's servers."""
    # Said aloud, because closing alone leaves the lock with any child that was forked meanwhile.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def make_private(directory: Path) -> None:
    """Make a folder that only we may enter, or make sure that the one there is such a folder.

    Raises:
        UnsafeDirectory: it is somebody else's, or a link, or no folder.
    """
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700, parents=True)
    # In /tmp anybody may have been here first, so look at the thing itself and not where it points.
    facts = directory.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        raise UnsafeDirectory(directory, "is a link or a file, not a folder")
    if facts.st_uid != os.geteuid():
        raise UnsafeDirectory(directory, f"belongs to user {facts.st_uid}, not to us")
    directory.chmod(0o700)


def make_for(directory: Path, user: User | None) -> None:
    """Make a folder that only a server may enter, inside a private one."""
    directory.mkdir(mode=0o700, exist_ok=True)
    if user is not None:
        os.chown(directory, user.uid, user.gid, follow_symlinks=False)


def server_user(data: Path) -> User | None:
    """Return whom the server with this data runs as: the data's owner, or ``nobody``, if we are root; else us.

    PostgreSQL refuses to run as root. Data of a user who now works with sudo remains that user's.
    """
    if os.geteuid() != 0:
        return None
    with suppress(FileNotFoundError):
        facts = data.lstat()
        if facts.st_uid != 0:
            return User(facts.st_uid, facts.st_gid)
    nobody = pwd.getpwnam("nobody")
    return User(nobody.pw_uid, nobody.pw_gid)


def _make_secret(path: Path) -> None:
    draft = path.with_name(f"secret.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, replaces nothing: of two simultaneous first calls the earlier one counts.
        with suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()
