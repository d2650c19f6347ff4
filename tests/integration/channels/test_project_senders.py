"""A project's SMS go out by its own sender, within its own limits, and no other project's sender sends for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_worker import services
from knocktwice_worker.diagnosis import business
from knocktwice_worker.diagnosis.check import Level
from knocktwice_worker.metrics import broker
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.runtime import budget_alarms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from knocktwice_worker.config import Settings
    from knocktwice_worker.reporting.story import Story
    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services

PROJECTS = """
projects:
  shop: {senders: ["+15005550016", "Shop"], sms_per_day: 2, budget: {total: 4}}
  bank: {senders: "+15005550017"}
"""


@pytest.fixture
def here(settings: Settings, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    for name, value in sandbox.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "projects.yaml").write_text(PROJECTS)
    monkeypatch.setenv("KNOCKTWICE_PROJECTS_FILE", str(tmp_path / "projects.yaml"))
    known = settings.model_dump(include={"database_url", "broker_url", "secret", "home"})
    built = services.Services(type(settings)(**known))
    yield built
    built.close()


def send(here: Services, project: str | None, *, sender: str | None = None, phone: str = "+16505550100") -> Story:
    """Send an SMS of a project, and return its story."""
    id_ = str(uuid7())
    step: dict[str, Any] = {"channel": "sms", "when": "not_clicked", "after_s": 0, "text": f"order {id_}"}
    step |= {"sender": sender} if sender else {}
    wire = {
        "v": 1,
        "id": str(uuid7()),
        "content": {"push": {"title": "t", "body": "b"}},
        "plan": [step],
        "recipients": [{"id": id_, "phone": phone}],
    }
    here.pushes.send(parse_batch(wire | ({"project": project} if project else {})))
    here.later_steps.send(here.fallback.check([id_]))
    with here.engine.connect() as conn:
        told = tell(conn, id_)
    assert told is not None
    return told


def test_each_project_texts_by_its_own_sender(here: Services, sandbox: Sandbox) -> None:
    for n, project in enumerate((None, "shop", "bank", "not-in-the-file")):
        assert send(here, project, phone=f"+1650555010{n}").state == "texted"
    assert send(here, "shop", sender="Shop", phone="+16505550104").state == "texted"
    assert send(here, None, sender="Shop", phone="+16505550105").state == "texted"
    by = {text.to: text.sender for text in sandbox.texts()}
    usual = "+15005550006"
    assert [by[f"+1650555010{n}"] for n in range(6)] == [usual, "+15005550016", "+15005550017", usual, "Shop", "Shop"]


def test_another_projects_sender_sends_nothing(here: Services, sandbox: Sandbox) -> None:
    told = send(here, "bank", sender="+15005550016")
    assert (told.state, told.reason) == ("failed", "invalid_content: the sender belongs to another project")
    assert sandbox.texts() == []


def test_a_limit_of_its_own_is_told_as_such(here: Services) -> None:
    assert [send(here, "shop").state for _ in range(2)] == ["texted"] * 2
    told = send(here, "shop")
    assert (told.state, told.reason) == ("suppressed", "capped_daily")
    assert any("It is a limit of the project shop's own." in moment.sentence for moment in told.moments)
    assert send(here, "bank").state == "texted"


def test_its_own_budget_is_watched(here: Services) -> None:
    assert business.budget(here) == (
        Level.OK,
        "SMS parts of the project shop today: 0 of 4 in all, 0 transactional, 0 marketing, 0 critical",
    )
    for n in range(4):
        send(here, "shop", phone=f"+1650555010{n}")
    send(here, "bank")
    told = send(here, "shop", phone="+16505550109")
    assert told.reason == "budget_exhausted"
    level, said = business.budget(here)
    assert (level, "of the project shop today: 4 of 4 in all" in said) == (Level.WARNING, True)
    assert business.projects(here)[1] == "2 projects with senders, limits or budgets of their own: bank, shop"
    for _ in range(2):
        budget_alarms.look(here)
    with here.engine.connect() as conn:
        told_of = conn.execute(sa.text("SELECT data FROM alarms WHERE type = 'budget.used'")).scalars().all()
    assert [(one["project"], one["budget"], one["percent"], one["limit"]) for one in told_of] == [
        ("shop", "all", 100, 4)
    ]
    found = {sample.labels: sample.value for sample in broker.budget(here) if sample.name.endswith("limit_parts")}
    assert found == {("shop", "all"): 4}
