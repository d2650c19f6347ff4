"""Each command of the runbooks is tried, against an installation in which something is wrong."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch, parse_blast
from knocktwice_shared.names import Task
from knocktwice_worker.blasts import states
from knocktwice_worker.fleet import members
from knocktwice_worker.fleet.members import Member
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.notifications.store.paused import Scope
from knocktwice_worker.switches import pauses
from knocktwice_worker.switches.audit import By
from knocktwice_worker.webhooks import endpoints

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.services import Services
    from support.commands import CommandOutput

RUNBOOKS = Path(__file__).parent.parent.parent / "docs" / "runbooks.md"
COMMANDS = list(dict.fromkeys(re.findall(r"^\$ (.*)$", RUNBOOKS.read_text(), re.MULTILINE)))
OURS = [command for command in COMMANDS if command.startswith("knocktwice ")]
CELERYS = [command for command in COMMANDS if command.startswith("celery ")]


@pytest.fixture
def ids(here: Services) -> dict[str, str]:
    """An installation with something of everything; word in capitals → the id that stands there."""
    notification = str(uuid7())
    person: dict[str, Any] = {"id": notification, "registrations": ["silent-1"], "phone": "+16505550100"}
    said = {"push": {"title": "t", "body": "b"}}
    here.pushes.send(parse_batch({"v": 1, "id": str(uuid7()), "content": said, "recipients": [person]}))
    blast = parse_blast({"v": 1, "key": "sale", "filter": {"everyone": True}, "content": said})
    with here.engine.begin() as conn:
        states.start(conn, blast, {"everyone": True})
        endpoint = endpoints.add(conn, "https://shop.example/hooks", private=True)
        conn.execute(sa.text("UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = 'x'"))
        pauses.pause(conn, Scope(channel="sms"), By("ada", "x"))
        brake = conn.execute(sa.text(_BRAKE)).scalar_one()
        for _ in range(2):
            payload = '{"v": 1, "notifications": []}'
            dead_letters.park(conn, message_id=None, task=Task.CANCEL, reason="x", payload=payload)
        dead, other = (str(one.id) for one in dead_letters.page(conn))
    # doctor fails while something does not work; here nothing is to fail but the commands themselves.
    members.announce(here.redis, Member("w", "worker", "1", ("knocktwice.push",)))
    return {
        "NOTIFICATION": notification,
        "BLAST": "sale",
        "ENDPOINT": endpoint,
        "BRAKE": str(brake),
        "PARKED": dead,
        "OTHER": other,
    }


_BRAKE = """
INSERT INTO brakes (kind, state, counted_from, pushes, share, usual, why)
VALUES ('undelivered', 'on', now(), 100, 0.9, 0.1, 'x') RETURNING id
"""


def test_every_command_is_one_that_is_tried_here() -> None:
    assert OURS
    assert set(COMMANDS) == {*OURS, *CELERYS}


def test_every_section_names_a_command() -> None:
    sections = re.split(r"^## ", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]
    assert [section.split("\n")[0] for section in sections if "\n$ " not in section] == []


# Among them is ``knocktwice migrate``.
@pytest.mark.own_session
def test_each_command_of_ours_works(run: Callable[..., CommandOutput], ids: dict[str, str]) -> None:
    for command in OURS:
        words = [ids.get(word, word) for word in shlex.split(command)[1:]]
        done = run(*words)
        # Looking tells by its code whether it found something wrong.
        assert done.code == 0 or (done.code == 1 and words == ["doctor"]), f"{command}: {done.out}{done.err}"
        assert done.out


@pytest.mark.parametrize("command", CELERYS)
def test_each_command_of_celerys_has_these_options(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    argv = [sys.executable, "-m", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
