"""Values of each person for a blast, from a file: checked before anything starts, and everybody gets their own."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice_shared.names import Task
from knocktwice_worker.audience import segments
from knocktwice_worker.audience.segment_filter import parse
from knocktwice_worker.blasts import expansion, forgetting, pages
from knocktwice_worker.privacy.notifications import first_id_after

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from knocktwice_worker.services import Services
    from support.commands import CommandOutput

    Run = Callable[..., CommandOutput]

#: Of everybody, who belongs.
TEA = {"field": "tags.likes", "op": "=", "value": "tea"}
SAYS = ("--title", "Your bill", "--body", "{{ user.tags.name }}: {{ amount }} by {{ day }}", "--when", "never")


class TaskRunner:
    """Keeps what is published for blasts, and works it off when it is told to."""

    def __init__(self, here: Services) -> None:
        self.here = here
        self.waiting: list[tuple[Task, str]] = []

    def __call__(self, task: Task, ids: Sequence[str]) -> None:
        self.waiting += [(task, id_) for id_ in ids]

    def ring(self) -> None:
        with self.here.engine.begin() as conn:
            conn.execute(sa.text("UPDATE blasts SET wake_at = knocktwice_now() WHERE wake_at IS NOT NULL"))
        self.here.expansion.ring(self)

    def take(self, task: Task) -> list[str]:
        taken = [id_ for t, id_ in self.waiting if t is task]
        self.waiting = [(t, id_) for t, id_ in self.waiting if t is not task]
        return taken

    def work(self) -> None:
        """Work until the blast has ended."""
        for _ in range(3):
            self.ring()
            while self.waiting:
                task, id_ = self.waiting.pop(0)
                work = self.here.expansion
                {Task.EXPAND_BLAST: work.step, Task.SEND_PAGE: work.send_page}[task](id_, self)


@pytest.fixture
def start(working: Services, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CommandOutput]:
    """Twelve people, of whom every third does not belong; starts a blast with the text of a file."""
    monkeypatch.setattr(expansion, "_TAKEN", 4)
    monkeypatch.setattr(pages, "BATCH_LIMIT", 3)
    people = """INSERT INTO users (id, tags) SELECT 'u' || i, jsonb_build_object('name', 'N' || i, 'likes',
      CASE WHEN i % 3 = 0 THEN 'rum' ELSE 'tea' END) FROM generate_series(1, 12) i"""
    numbers = "INSERT INTO phones (user_id, number) VALUES ('u2', '+16505550102'), ('u4', '+16505550104'), ('u5', '+16505550104')"
    devices = (
        "INSERT INTO devices (registration, user_id, notifications_enabled) SELECT 'r-' || id, id, true FROM users"
    )
    with working.engine.begin() as conn:
        for statement in (people, numbers, devices):
            conn.execute(sa.text(statement))
        segments.put(conn, "tea", parse(TEA))

    def begin(rows: str, *more: str, key: str = "bills") -> CommandOutput:
        path = tmp_path / "people.csv"
        path.write_text(rows)
        return run("blast", "start", "tea", "--key", key, "--params", str(path), *SAYS, *more)

    return begin


def said(here: Services) -> dict[str, str]:
    """Who was notified → with which amount."""
    with here.engine.begin() as conn:
        rows = conn.execute(sa.text("SELECT user_id, params->>'amount' AS amount FROM notifications"))
        return {row.user_id: row.amount for row in rows}


def kept(here: Services) -> int:
    with here.engine.begin() as conn:
        return int(conn.execute(sa.text("SELECT count(*) FROM blast_params")).scalar_one())


GOOD = "user,phone,amount,day\nu1,,10 €,Monday\n,+1 650 555 0102,20 €,Tuesday\nu3,,30 €,Monday\nu99,,40 €,Monday\nu7,,70 €,\n"


def test_everybody_gets_their_own_and_all_rows_are_accounted_for(
    start: Callable[..., CommandOutput], working: Services
) -> None:
    told = start(GOOD, "--json").json
    assert told["people"] == {"rows": 5, "matched": 3, "unknown": 1, "outside": 1, "without": 5}
    TaskRunner(working).work()
    assert said(working) == {"u1": "10 €", "u2": "20 €", "u7": "70 €"}
    # What was used or is of no use is deleted with the blast.
    assert kept(working) == 0
    again = start(GOOD.replace("10", "11"), "--json").json
    assert (again["new"], "people" in again) == (False, False)


def test_a_worker_that_dies_loses_no_values(start: Callable[..., CommandOutput], working: Services) -> None:
    start(GOOD)
    runner = TaskRunner(working)
    runner.ring()
    (expand,) = runner.take(Task.EXPAND_BLAST)
    working.expansion.step(expand, runner)
    first, *_ = runner.take(Task.SEND_PAGE)
    send = working.expansion.send

    def dies(*_: object) -> None:
        raise ConnectionError

    object.__setattr__(working.expansion, "send", dies)
    with pytest.raises(ConnectionError):
        working.expansion.send_page(first, runner)
    object.__setattr__(working.expansion, "send", send)
    assert (said(working), kept(working)) == ({}, 5)
    with working.engine.begin() as conn:
        conn.execute(sa.text("UPDATE blast_pages SET wake_at = NULL"))
    runner.work()
    assert said(working) == {"u1": "10 €", "u2": "20 €", "u7": "70 €"}


def test_who_is_erased_meanwhile_gets_nothing_and_the_others_do(
    start: Callable[..., CommandOutput], working: Services
) -> None:
    start(GOOD)
    runner = TaskRunner(working)
    with working.engine.begin() as conn:
        now = conn.execute(sa.text("SELECT knocktwice_now()")).scalar_one()
        forgetting.forget_user(conn, "u1", first_id_after(now))
    runner.work()
    assert said(working) == {"u2": "20 €", "u7": "70 €"}


def test_all_problems_are_named_and_nothing_starts(start: Callable[..., CommandOutput], working: Services) -> None:
    rows = [
        "user,phone,amount,day",
        "u1,,1,Monday",
        ",,2,Monday",
        "u2,,3",
        ",12,4,Monday",
        ",+16505550104,5,Monday",
        "u1,,6,Monday",
        f"u8,,{'x' * 4000},Monday",
    ]
    done = start("\n".join(rows) + "\n", "--body", "{{ amount }} by {{ day }}")
    assert (done.code, said(working)) == (1, {})
    errors = [line.split("people.csv, ")[1] for line in done.err.splitlines() if "people.csv, line" in line]
    assert [error.split(": ")[0] for error in errors] == [f"line {n}" for n in (3, 4, 5, 6, 7, 8)]
    for error, problem in zip(
        errors,
        ("user: is empty", "has 3 fields", "phone: ", "several people", "same person as line 2", "push"),
        strict=True,
    ):
        assert problem in error
    assert "6 of 7 rows cannot be used; nothing was started" in done.err
    with working.engine.begin() as conn:
        assert conn.execute(sa.text("SELECT count(*) FROM blasts")).scalar_one() == 0


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("name,amount\nx,1\n", "one of them must be user or phone"),
        ("user,amount,amount\nx,1,2\n", "names a column twice"),
        ("user,amount\nu1,1\n", "day"),
        ("user,amount,day\nu3,1,Monday\n", "nobody of the file is in the segment"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(start: Callable[..., CommandOutput], rows: str, problem: str) -> None:
    done = start(rows)
    assert (done.code, problem in done.err) == (1, True), done.err


def test_a_preview_is_what_the_person_would_get(start: Callable[..., CommandOutput], working: Services) -> None:
    told = start(GOOD, "--preview", "u1", "--preview", "u3", "--preview", "u5", "--json").json
    ada, outside, without = told["previews"]
    assert (ada["user"], ada["push"]["body"]) == ("u1", "N1: 10 € by Monday")
    assert (outside["problem"], without["problem"]) == ("is not in the segment", "has no row in the file")
    assert (told["preflight"]["users"], said(working), kept(working)) == (3, {}, 0)


def test_many_rows_need_little_memory(start: Callable[..., CommandOutput]) -> None:
    rows = "".join(f"nobody-{n},{n},Monday\n" for n in range(20_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = start(f"user,amount,day\nu1,1,Monday\n{rows}", "--dry-run", "--json").json
    assert told["people"] == {"rows": 20_001, "matched": 1, "unknown": 20_000, "outside": 0, "without": 7}
    # In kilobytes. A million rows need no more.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 15_000
