"""A blast texts a number once, however many of its people share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import blast_id
from knocktwice_shared.messages import Blast, parse_blast
from knocktwice_shared.names import Task
from knocktwice_worker.audience import segments
from knocktwice_worker.audience.segment_filter import parse
from knocktwice_worker.blasts import pages, preflight, request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services

SHARED, OWN = "+16505550100", "+16505550101"
PEOPLE = {"ada": SHARED, "bob": SHARED, "cleo": OWN, "dan": SHARED, "eve": None}


def _ask(key: str, **more: Any) -> Blast:
    content = {"push": {"title": "Tea", "body": "{{ name }}, tea is cheaper."}}
    plan = [{"channel": "sms", "when": "not_clicked", "after_s": 0}]
    return parse_blast(
        {"v": 1, "key": key, "segment": "all", "content": content, "plan": plan, "params": {"name": "x"}, **more}
    )


@pytest.fixture
def crowd(working: Services, monkeypatch: pytest.MonkeyPatch) -> Services:
    """Five people of whom three share a number, and pages of one person."""
    monkeypatch.setattr(pages, "BATCH_LIMIT", 2)
    with working.engine.begin() as conn:
        for user, number in PEOPLE.items():
            conn.execute(sa.text("INSERT INTO users (id) VALUES (:user)"), {"user": user})
            conn.execute(
                sa.text("INSERT INTO devices (registration, user_id) VALUES (:device, :user)"),
                {"device": f"silent-{user}", "user": user},
            )
            if number:
                conn.execute(
                    sa.text("INSERT INTO phones (user_id, number, region) VALUES (:user, :number, 'US')"),
                    {"user": user, "number": number},
                )
        segments.put(conn, "all", parse({"everyone": True}))
    return working


def _run(here: Services, blast: Blast) -> list[str]:
    """Send a blast to its end; return the ids of its notifications."""
    waiting: list[tuple[Task, str]] = []

    def publish(task: Task, ids: Sequence[str]) -> None:
        waiting.extend((task, id_) for id_ in ids)

    with here.engine.begin() as conn:
        request.start(conn, blast)
    here.expansion.step(str(blast_id(blast.key)), publish)
    here.expansion.step(str(blast_id(blast.key)), publish)
    while waiting:
        task, id_ = waiting.pop(0)
        {Task.EXPAND_BLAST: here.expansion.step, Task.SEND_PAGE: here.expansion.send_page}[task](id_, publish)
        here.expansion.step(str(blast_id(blast.key)), publish) if not waiting else None
    with here.engine.connect() as conn:
        found = conn.execute(
            sa.text(
                "SELECT n.id FROM notifications n JOIN blast_pages p ON p.id = n.batch_id "
                "WHERE p.blast_id = :blast ORDER BY n.user_id"
            ),
            {"blast": blast_id(blast.key)},
        )
        return [str(row.id) for row in found]


def test_a_number_gets_a_blast_once_and_everybody_their_push(crowd: Services, sandbox: Sandbox) -> None:
    ids = _run(crowd, _ask("k"))
    assert len(ids) == len(PEOPLE)
    # Decided one by one, as pages of a throttled blast are.
    for id_ in ids:
        crowd.later_steps.send(crowd.fallback.check([id_]))
    assert [len(sandbox.pushes(f"silent-{user}")) for user in PEOPLE] == [1] * 5
    assert [text.to for text in sandbox.texts()] == [SHARED, OWN]
    with crowd.engine.connect() as conn:
        reasons = conn.execute(
            sa.text("SELECT user_id, reason FROM notifications WHERE state = 'suppressed' ORDER BY 1")
        )
        assert [tuple(row) for row in reasons] == [
            ("bob", "shared_number"),
            ("dan", "shared_number"),
            ("eve", "no_phone"),
        ]


def test_the_same_holds_when_all_are_decided_at_once_or_again(crowd: Services, sandbox: Sandbox) -> None:
    ids = _run(crowd, _ask("k"))
    reserved = crowd.fallback.check(ids)
    assert len(reserved) == 2
    assert crowd.fallback.check(ids) == []
    crowd.later_steps.send(reserved)
    assert sorted(text.to for text in sandbox.texts()) == [SHARED, OWN]


def test_another_blast_texts_the_number_again(crowd: Services, sandbox: Sandbox) -> None:
    for key, name in (("one", "Ada"), ("two", "Bob")):
        crowd.later_steps.send(crowd.fallback.check(_run(crowd, _ask(key, params={"name": name}))))
    assert [text.to for text in sandbox.texts()].count(SHARED) == 2


def test_the_dry_run_says_how_many_share_a_number(crowd: Services) -> None:
    with crowd.engine.begin() as conn:
        found = preflight.examine(conn, _ask("k"), crowd.settings, crowd.limits.limits, crowd.channels)
    assert (found.users, found.push, found.no_phone, found.shared_number) == (5, 5, 1, 2)
    assert found.worst_parts == 2
    assert found.as_json()["shared_number"] == 2


def test_people_who_cannot_be_texted_take_no_number_from_others(crowd: Services) -> None:
    with crowd.engine.begin() as conn:
        conn.execute(sa.text("UPDATE phones SET consented_at = now() WHERE user_id = 'dan'"))
        blast = _ask("k", category="marketing")
        found = preflight.examine(conn, blast, crowd.settings, crowd.limits.limits, crowd.channels)
    assert (found.no_consent, found.shared_number, found.worst_parts) == (3, 0, 1)
