"""An application in development finds the broker of ``knocktwice up`` by itself, and never anybody else's."""

from __future__ import annotations

import shlex
import socket
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from knocktwice import Client, KnocktwiceError, address
from knocktwice_shared.names import HOME, STACK_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def nothing_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The working folder, empty, and an environment that names no broker."""
    for name in ("KNOCKTWICE_BROKER_URL", "KNOCKTWICE_BROKER_URL_FILE", "KNOCKTWICE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("nothing_named")
def test_without_a_broker_the_error_says_how_to_name_one() -> None:
    ways = r"pass Client\(broker_url\) or set KNOCKTWICE_BROKER_URL.* run 'knocktwice up'"
    with pytest.raises(KnocktwiceError, match=ways):
        Client()


def test_without_a_broker_a_running_local_stack_is_taken_and_it_is_said(
    nothing_named: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with _listening(nothing_named) as url, caplog.at_level("WARNING", "knocktwice"):
        below = nothing_named / "ein Ölfass"
        below.mkdir()
        monkeypatch.chdir(below)
        assert address.find(None).url == url
        assert str(nothing_named) in caplog.text
        assert address.find("redis://host/0").url == "redis://host/0"
        monkeypatch.setenv("KNOCKTWICE_BROKER_URL", "redis://host/1")
        assert address.find(None).url == "redis://host/1"
        monkeypatch.delenv("KNOCKTWICE_BROKER_URL")
        monkeypatch.setenv("KNOCKTWICE_HOME", str(below))
        with pytest.raises(KnocktwiceError, match="no broker is named; pass"):
            address.find(None)


def test_a_local_stack_that_has_ended_is_not_taken(nothing_named: Path) -> None:
    with _listening(nothing_named):
        pass
    with pytest.raises(KnocktwiceError, match="does not run; start it with 'knocktwice up', pass Client"):
        address.find(None)


def test_what_somebody_else_could_have_written_is_no_local_stack(nothing_named: Path) -> None:
    with _listening(nothing_named):
        (nothing_named / HOME / STACK_FILE).chmod(0o622)
        with pytest.raises(KnocktwiceError, match="no broker is named; pass"):
            address.find(None)


def test_a_broker_elsewhere_in_the_file_is_no_local_stack(nothing_named: Path) -> None:
    file = nothing_named / HOME / STACK_FILE
    file.parent.mkdir()
    file.write_text("export KNOCKTWICE_BROKER_URL=redis://elsewhere/0\n")
    with pytest.raises(KnocktwiceError, match="no broker is named; pass"):
        address.find(None)


@contextmanager
def _listening(folder: Path) -> Iterator[str]:
    """Listen at a local stack's socket, and name it in the folder. It has a short path, as sockets must."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short, closing(socket.socket(socket.AF_UNIX)) as listener:
        path = Path(short) / "valkey" / "valkey.sock"
        path.parent.mkdir()
        listener.bind(str(path))
        listener.listen()
        (folder / HOME).mkdir()
        url = f"redis+socket://{path}"
        (folder / HOME / STACK_FILE).write_text(f"export KNOCKTWICE_BROKER_URL={shlex.quote(url)}\nexport KEY='a b'\n")
        yield url
