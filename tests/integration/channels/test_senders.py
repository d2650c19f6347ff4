"""A template's own sender: it is sent by it, paced by it, and looked for among its messages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_worker.content import template_store, templates
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.sandbox.rules import Answer, Rule
from knocktwice_worker.services import Services

if TYPE_CHECKING:
    from knocktwice_worker.sandbox import Sandbox

SERVICE = "MG" + "0a" * 16
NUMBER = "+16505550100"
DEFAULT = "+15005550006"


@pytest.fixture
def repeats_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKTWICE_SMS_SAME_CONTENT_S", "0")
    monkeypatch.setenv("KNOCKTWICE_SMS_PARTS_PER_S", "0.000001")


def _send(here: Services, sender: str | None, number: str = NUMBER) -> str:
    """Send an SMS by this sender, as far as the provider lets it go."""
    definition: dict[str, Any] = {"default_locale": "en", "contents": {"en": {"push": {"title": "t", "body": "b"}}}}
    if sender:
        definition["sender"] = sender
    with here.engine.begin() as conn:
        template_store.put(conn, "t", templates.check("t", definition))
    person = {"id": str(uuid7()), "phone": number}
    wire = {"v": 1, "id": str(uuid7()), "content": {"template": "t"}, "only": "sms", "recipients": [person]}
    here.pushes.send(parse_batch(wire))
    here.later_steps.send(here.fallback.check([person["id"]]))
    return person["id"]


def _state(here: Services, id_: str) -> str:
    with here.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    return told.steps[-1].state


def test_the_template_names_who_sends(working: Services, sandbox: Sandbox) -> None:
    for n, sender in enumerate((None, "Shop", "+15005550016", SERVICE)):
        _send(working, sender, f"+1650555010{n}")
    by_number = {t.to: (t.messaging_service or t.sender) for t in sandbox.texts()}
    assert [by_number[f"+1650555010{n}"] for n in range(4)] == [DEFAULT, "Shop", "+15005550016", SERVICE]


def test_a_later_change_of_the_template_does_not_change_who_sends(working: Services, sandbox: Sandbox) -> None:
    sandbox.rule(Rule("sms", NUMBER, 1, Answer(status=429, retry_after=0)))
    id_ = _send(working, "Shop")
    assert _state(working, id_) == "reserved"
    _send(working, "Other", "+16505550199")
    working.later_steps.send([id_])
    assert [t.sender for t in sandbox.texts(NUMBER)] == ["Shop"]


@pytest.mark.usefixtures("repeats_allowed")
def test_senders_are_paced_each_by_itself(working: Services, sandbox: Sandbox) -> None:
    ids = [_send(working, sender, f"+1650555020{n}") for n, sender in enumerate(("Shop", "Shop", None, None, SERVICE))]
    assert [_state(working, i) for i in ids] == ["sent", "reserved", "sent", "reserved", "sent"]
    buckets = [f"knocktwice:pace:sms:{name}" for name in ("Shop", DEFAULT, SERVICE)]
    assert working.redis.exists(*buckets) == len(working.redis.keys("knocktwice:pace:sms:*")) == 3
    assert len(sandbox.texts()) == 3


def test_a_sender_that_gets_more_than_it_can_take_does_not_slow_down_the_others(
    working: Services, sandbox: Sandbox
) -> None:
    paced = Services(working.settings.model_copy(update={"sms_parts_per_s": 1000}))
    sandbox.rule(Rule("sms", NUMBER, 1, Answer(status=429, retry_after=60)))
    assert _state(paced, _send(paced, "Shop")) == "reserved"
    assert _state(paced, _send(paced, "Shop", "+16505550101")) == "reserved"
    assert _state(paced, _send(paced, None, "+16505550102")) == "sent"
    paced.close()


@pytest.mark.usefixtures("repeats_allowed")
@pytest.mark.parametrize(("lost", "other"), [("Shop", None), (None, "Shop"), (SERVICE, None), ("Shop", SERVICE)])
def test_the_same_text_by_another_sender_is_not_taken_for_it(
    working: Services, sandbox: Sandbox, lost: str | None, other: str | None
) -> None:
    sandbox.rule(Rule("sms", NUMBER, 1, Answer(status=500, accept=True)))
    taken = _send(working, other)
    sandbox.rule(Rule("sms", NUMBER, 1, Answer(status=500)))
    never_taken = _send(working, lost)
    working.reconcile.resolve([never_taken])
    assert _state(working, never_taken) == "sending"
    working.reconcile.resolve([taken])
    assert _state(working, taken) == "sent"


def test_one_that_an_earlier_release_reserved_goes_by_the_default_sender(working: Services, sandbox: Sandbox) -> None:
    sandbox.rule(Rule("sms", NUMBER, 1, Answer(status=429, retry_after=0)))
    id_ = _send(working, None)
    with working.engine.begin() as conn:
        before = sa.text(
            "UPDATE deliveries SET sender = NULL, parts = NULL, counted_at = :now WHERE notification_id = :id"
        )
        conn.execute(before, {"id": id_, "now": datetime.now(UTC)})
    working.later_steps.send([id_])
    assert [t.sender for t in sandbox.texts(NUMBER)] == [DEFAULT]
