"""The embedded servers: they start anywhere, keep their data, stay private, and nothing outlives its supervisor."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psutil
import psycopg2
import pytest
import redis

from knocktwice_worker.embedded import launch
from knocktwice_worker.embedded import servers as embedded
from knocktwice_worker.embedded.server import postgres_program
from knocktwice_worker.embedded.servers import (
    AlreadyRunning,
    EmbeddedServers,
    NotMainThread,
    StartFailed,
    UnsafeDirectory,
)
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg2.extensions import connection

    from knocktwice_worker.embedded.servers import Servers

_T = TypeVar("_T")
ROOT = os.geteuid() == 0
#: For what needs no exact time: long enough for a slow machine, short enough for a person.
PATIENCE_S = 30

RUN = """
import os, sys
from pathlib import Path
from knocktwice_worker.embedded.servers import EmbeddedServers
servers = EmbeddedServers(Path(sys.argv[1]))
servers.start()
print(servers.postgres.pid, servers.valkey.pid, flush=True)
sys.stdin.read()
servers.stop()
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    shutil.rmtree(embedded.addresses(tmp_path / "home").sockets, ignore_errors=True)


def write(servers: Servers, value: str) -> None:
    """Leave something in both."""
    with closing(connect(servers)) as link, link, link.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
        cursor.execute("INSERT INTO kept VALUES (%s)", [value])
    with closing(valkey(servers)) as client:
        client.rpush("kept", value)


def read(servers: Servers) -> tuple[list[str], list[str]]:
    """Return what both were left."""
    with closing(connect(servers)) as link, link.cursor() as cursor:
        cursor.execute("SELECT value FROM kept ORDER BY value")
        rows = [row[0] for row in cursor.fetchall()]
    with closing(valkey(servers)) as client:
        return rows, [str(value) for value in client.lrange("kept", 0, -1)]


def connect(servers: Servers) -> connection:
    return psycopg2.connect(host=str(servers.sockets / "postgres"), port=5432, user="postgres", dbname="knocktwice")


def valkey(servers: Servers) -> redis.Redis:
    return redis.Redis.from_url(servers.redis_url, decode_responses=True)


def family(*pids: int) -> list[psutil.Process]:
    """Return these processes and all below them."""
    return [p for pid in pids for p in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))]


def of_each(look: Callable[[psutil.Process], _T], *pids: int) -> Iterator[_T]:
    """Look at these processes and all below them; PostgreSQL's own come and go meanwhile."""
    for process in family(*pids):
        try:
            yield look(process)
        except psutil.NoSuchProcess:
            assert process.pid not in pids


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


@contextmanager
def supervisor(home: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Run the servers of a home from another process; yield it and all processes of the servers."""
    command = [sys.executable, "-c", RUN, str(home)]
    servers: list[psutil.Process] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            pids = [int(pid) for pid in process.stdout.readline().split()]
            servers = family(*pids)
            yield process, servers
        finally:
            process.kill()
            for server in servers:
                # Only a failed test leaves any.
                with suppress(psutil.NoSuchProcess):
                    server.kill()


def test_the_first_start_makes_an_empty_database_and_stop_leaves_nothing_running(home: Path) -> None:
    servers = EmbeddedServers(home)
    assert not embedded.running(home)
    where = servers.start()
    assert where == embedded.addresses(home)
    assert embedded.running(home)
    processes = family(servers.postgres.pid, servers.valkey.pid)
    assert len(processes) > 2
    write(where, "one")
    assert read(where) == (["one"], ["one"])
    servers.stop()
    servers.stop()
    assert gone(processes)
    assert not embedded.running(home)
    assert not where.sockets.exists()


def test_data_survives_a_stop_a_restart_and_kill_9(home: Path) -> None:
    with EmbeddedServers(home) as where:
        write(where, "1")
    servers = EmbeddedServers(home)
    with servers as where:
        write(where, "2")
        servers.postgres.restart()
        servers.valkey.restart()
        write(where, "3")
        servers.postgres.kill()
        servers.valkey.kill()
        assert not servers.postgres.alive
        servers.postgres.start()
        servers.valkey.start()
        assert read(where) == (["1", "2", "3"], ["1", "2", "3"])
    for _ in range(2):
        with servers as where:
            assert read(where)[0] == ["1", "2", "3"]


def test_only_their_owner_reaches_them(home: Path) -> None:
    servers = EmbeddedServers(home)
    with servers as where:
        made = {path for path in where.sockets.rglob("*") if path.suffix != ".lock"}
        assert {path.name for path in made} == {"postgres", ".s.PGSQL.5432", "valkey", "valkey.sock"}
        for path in {where.sockets, home, *home.glob("*/")} | made:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        connections = of_each(lambda process: process.net_connections("inet"), servers.postgres.pid, servers.valkey.pid)
        assert not any(connections)


@pytest.mark.skipif(not ROOT, reason="only root may become somebody else")
def test_servers_that_root_starts_run_as_nobody(home: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    servers = EmbeddedServers(home)
    with servers:
        users = set(of_each(psutil.Process.uids, servers.postgres.pid, servers.valkey.pid))
    assert users == {(nobody, nobody, nobody)}


@pytest.mark.skipif(not ROOT, reason="only root may become somebody else")
def test_roots_programs_and_data_may_lie_where_only_root_may_enter(tmp_path: Path) -> None:
    done = _run_in(_closed_folder(tmp_path))
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not ROOT or not shutil.which("setpriv"), reason="only root on Linux has capabilities to lose")
def test_a_root_who_may_not_open_that_folder_is_told_what_to_do(tmp_path: Path) -> None:
    closed = _closed_folder(tmp_path)
    done = _run_in(closed, "setpriv", "--bounding-set=-setpcap")
    assert done.returncode == 1
    assert f"may not reach {closed}" in done.stderr
    done = _run_in(closed, "setpriv", "--bounding-set=-setuid,-setgid")
    assert done.returncode == 1
    assert "This root may not become another user" in done.stderr


def _closed_folder(tmp_path: Path) -> Path:
    """Return a folder that only root may enter, with PostgreSQL's programs in it."""
    closed = tmp_path / "ein Ölfass"
    closed.mkdir(mode=0o700)
    package = postgres_program("postgres").parents[2]
    for part in package.parent.glob(f"{package.name}*"):
        shutil.copytree(part, closed / part.name, symlinks=True)
    return closed


def _run_in(folder: Path, *prefix: str) -> subprocess.CompletedProcess[str]:
    """Start and stop servers whose programs and data are in a folder."""
    command = [*prefix, sys.executable, "-c", RUN, str(folder / "home")]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, env=environment, input="", capture_output=True, text=True, check=False)


@pytest.mark.skipif(not ROOT, reason="only root may become somebody else")
def test_a_user_without_rights_runs_them_as_himself() -> None:
    nobody = pwd.getpwnam("nobody")
    directory = Path(tempfile.mkdtemp())
    os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    # With the right to read, because the interpreter may lie where only root may look. Everything else is nobody's.
    user = f"{nobody.pw_uid}:{nobody.pw_gid}"
    become = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(signal.SIGTERM)), user]
    program = f"{RUN}\nassert os.geteuid() == {nobody.pw_uid}"
    command = [*become, sys.executable, "-B", "-c", program, str(directory / "home")]
    try:
        for _ in ("cold", "warm"):
            done = subprocess.run(command, cwd=directory, input="", capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        assert (directory / "home" / "postgres").stat().st_uid == nobody.pw_uid
        # Who now works with sudo leaves the data their owner's, and the lock and the log are no obstacle to root.
        shutil.rmtree(directory / "home" / "log")
        servers = EmbeddedServers(directory / "home")
        with servers:
            assert psutil.Process(servers.postgres.pid).uids().real == nobody.pw_uid
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize(
    "name",
    ["with spaces", "Ümläut 😀", 'quo\'te "d" $HOME', "/".join(["long" * 50] * 3)],
    ids=["spaces", "unicode", "quotes", "long"],
)
def test_a_home_may_have_any_path(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    with EmbeddedServers(home) as where:
        write(where, "one")
        assert len(os.fsencode(where.valkey_socket)) < 100
    with EmbeddedServers(home) as where:
        assert read(where) == (["one"], ["one"])


def test_a_relative_home_is_the_same_home_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "home")
    (tmp_path / "home").mkdir()
    absolute = embedded.addresses(tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    assert embedded.addresses(Path("home")) == absolute
    assert embedded.addresses(Path("link")) == absolute


def test_two_homes_do_not_meet(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path / "a") as a, EmbeddedServers(tmp_path / "b") as b:
        write(a, "in a")
        write(b, "in b")
        assert (read(a)[0], read(b)[0]) == (["in a"], ["in b"])


def test_a_home_is_run_by_one_process_only(home: Path) -> None:
    with supervisor(home) as (process, _):
        with pytest.raises(AlreadyRunning, match=f"already run by process {process.pid}") as caught:
            EmbeddedServers(home).start()
        assert (caught.value.home, caught.value.pid) == (home, process.pid)
        assert embedded.running(home)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
    servers = EmbeddedServers(home)
    with servers:
        for other in (servers, EmbeddedServers(home)):
            with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
                other.start()
        assert embedded.running(home)


def test_a_forked_child_does_not_keep_the_home_occupied(home: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from knocktwice_worker.embedded.servers import EmbeddedServers
servers = EmbeddedServers(Path(sys.argv[1]))
servers.start()
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.close(writing)
    os.read(reading, 1)
    os._exit(0)
servers.stop()
servers.start()
servers.stop()
os.close(writing)
os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-c", program, str(home)], check=True, timeout=PATIENCE_S)


def test_nothing_outlives_a_supervisor_killed_with_kill_9(home: Path) -> None:
    with supervisor(home) as (process, servers):
        write(embedded.addresses(home), "one")
        process.kill()
        process.wait()
        eventually(lambda: gone(servers))
    with EmbeddedServers(home) as where:
        assert read(where) == (["one"], ["one"])


def test_who_comes_right_after_a_killed_supervisor_waits_for_its_servers(home: Path) -> None:
    with supervisor(home) as (process, servers):
        with closing(connect(embedded.addresses(home))) as link, link, link.cursor() as cursor:
            # A shutdown takes a while when there is something to write.
            cursor.execute("CREATE TABLE big AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
        process.kill()
        process.wait()
        with EmbeddedServers(home):
            assert gone(servers)


@pytest.mark.skipif(not ROOT or sys.platform != "linux", reason="only root on Linux has capabilities to lose")
def test_a_containers_root_who_may_not_look_into_processes_finds_them_all_the_same(home: Path) -> None:
    program = """
import sys
from pathlib import Path
from knocktwice_worker.embedded import launch, orphans
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
CAP_SYS_PTRACE = 19
launch.set_capabilities(int(status["CapEff"], 16) & 0xFFFFFFFF & ~(1 << CAP_SYS_PTRACE))
home = Path(sys.argv[1])
print(*orphans.find_in_proc("postgres", home / "postgres"))
print(*orphans.find_in_proc("valkey-server", home / "valkey"))
"""
    servers = EmbeddedServers(home)
    with servers:
        found = subprocess.run([sys.executable, "-c", program, str(home)], capture_output=True, check=True, text=True)
    assert found.stdout.split("\n")[:2] == [str(servers.postgres.pid), str(servers.valkey.pid)]


def test_a_number_left_in_postmaster_pid_is_not_taken_for_the_server(home: Path) -> None:
    servers = EmbeddedServers(home)
    with servers:
        servers.postgres.kill()
        remains = home / "postgres" / "postmaster.pid"
        number, _, rest = remains.read_text().partition("\n")
        assert int(number) == servers.postgres.pid
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as somebody:
        # The number was given to another process meanwhile, as happens after a reboot.
        remains.write_text(f"{somebody.pid}\n{rest}")
        with servers:
            assert embedded.running(home)
        somebody.kill()
    for junk in ("", "garbage"):
        servers.start()
        servers.postgres.kill()
        remains.write_text(junk)
        servers.stop()
        with servers:
            assert embedded.running(home)


def test_an_interrupted_first_start_is_begun_again(home: Path) -> None:
    (home / "postgres.new").mkdir(parents=True)
    (home / "postgres.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedServers(home) as where:
        write(where, "one")


def test_a_server_that_does_not_start_shows_its_log_and_leaves_nothing_running(home: Path) -> None:
    servers = EmbeddedServers(home)
    with servers:
        pass
    (home / "postgres" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(StartFailed, match=r"(?s)postgres ended with code \d+ instead of starting.*not compatible"):
        servers.start()
    assert not servers.valkey.alive
    (home / "postgres" / "PG_VERSION").write_text("18\n")
    with servers:
        assert embedded.running(home)


def test_only_the_main_thread_may_start_them(home: Path) -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(NotMainThread):
        pool.submit(EmbeddedServers(home).start).result()
    with EmbeddedServers(home):
        assert embedded.running(home)


def test_a_folder_in_tmp_that_somebody_else_made_is_not_used(home: Path) -> None:
    sockets = embedded.addresses(home).sockets
    for target in (home, home / "nowhere"):
        sockets.symlink_to(target)
        with pytest.raises(UnsafeDirectory, match="is a link or a file, not a folder"):
            EmbeddedServers(home).start()
        sockets.unlink()
    if ROOT:
        sockets.mkdir()
        os.chown(sockets, pwd.getpwnam("nobody").pw_uid, -1)
        with pytest.raises(UnsafeDirectory, match="belongs to user"):
            EmbeddedServers(home).start()


def test_the_secret_is_made_once_and_private(home: Path) -> None:
    together = threading.Barrier(16)

    def call(_: int) -> str:
        together.wait()
        return embedded.secret(home)

    with ThreadPoolExecutor(16) as pool:
        (secret,) = set(pool.map(call, range(16)))
    assert len(bytes.fromhex(secret)) == 32
    assert embedded.secret(home) == secret
    assert stat.S_IMODE((home / "secret").stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == ["secret"]
    (home / "secret").write_text(secret[:10])
    with pytest.raises(UnsafeDirectory, match="does not hold the 64 hex digits"):
        embedded.secret(home)
