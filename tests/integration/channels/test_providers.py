"""Two SMS providers: who sends what, what happens when one fails, and that nobody is ever texted by both."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_worker.diagnosis import doctor
from knocktwice_worker.lifecycle import DeliveryState, Note
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline.pauses import PauseGate
from knocktwice_worker.notifications.store.paused import Scope
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.sandbox.rules import Answer, Rule
from knocktwice_worker.services import Services
from knocktwice_worker.switches import pauses
from knocktwice_worker.switches.audit import By
from support.sms_provider import TOKEN, SmsProvider
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from knocktwice_worker.sandbox import Sandbox
    from support.clock import Clock

NUMBER = "+16505550100"
HOUR = timedelta(hours=1)


@pytest.fixture
def install(
    working: Services, acme: SmsProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Services]]:
    """Builds a worker's services with both providers, from an entry of the file and settings."""
    monkeypatch.setenv("ACME_TOKEN", TOKEN)
    built: list[Services] = []

    def build(*, twilio: float = 0, settings: dict[str, object] | None = None, **entry: object) -> Services:
        folder = tmp_path / f"installation{len(built)}"
        folder.mkdir()
        path = acme.file(folder, twilio=twilio, **entry)
        update = {"sms_providers_file": path, "provider_timeout_s": 10.0, **(settings or {})}
        built.append(Services(working.settings.model_copy(update=update)))
        return built[-1]

    yield build
    for one in built:
        one.close()


def _accept(here: Services, people: int = 1, category: str = "transactional") -> list[str]:
    ids = [str(uuid7()) for _ in range(people)]
    recipients = [{"id": i, "phone": f"+1650555{100 + n:04}"} for n, i in enumerate(ids)]
    wire: dict[str, Any] = {
        "v": 1, "id": str(uuid7()), "content": {"sms": {"text": "x " + ids[0]}}, "category": category, "only": "sms",
        "recipients": recipients,
    }  # fmt: skip
    here.pushes.send(parse_batch(wire))
    return here.fallback.check(ids)


def _send(here: Services, people: int = 1, category: str = "transactional") -> list[str]:
    ids = _accept(here, people, category)
    assert len(ids) == people
    here.later_steps.send(ids)
    return ids


def _row(here: Services, id_: str) -> Any:
    with here.engine.connect() as conn:
        query = sa.text("SELECT * FROM deliveries WHERE notification_id = :id ORDER BY step DESC LIMIT 1")
        return conn.execute(query, {"id": id_}).one()


def _ledger(here: Services, id_: str, verdict: Note) -> list[dict[str, Any]]:
    with here.engine.connect() as conn:
        query = sa.text("SELECT inputs FROM decisions WHERE notification_id = :id AND verdict = :v ORDER BY id")
        return list(conn.execute(query, {"id": id_, "v": verdict}).scalars())


def _somebody_waits(here: Services) -> bool:
    """Whether a transaction waits for a lock that another one has."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with here.senders.connect() as conn:
        return bool(conn.execute(sa.text(query)).scalar_one())


def test_who_sent_it_and_why_is_on_record(install: Callable[..., Services], acme: SmsProvider) -> None:
    here = install()
    (id_,) = _send(here)
    row = _row(here, id_)
    assert (row.state, row.provider, row.provider_id) == ("sent", "acme", "acme:1")
    assert _ledger(here, id_, Note.PROVIDER_CHOSEN) == [{"provider": "acme", "why": "weight"}]
    with here.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    sentences = [m.sentence for m in told.moments]
    assert "acme is to send the SMS (weight)." in sentences
    assert "acme took the SMS as acme:1." in sentences
    assert told.steps[-1].provider == "acme"
    assert acme.asked == 1


def test_with_twilio_alone_nothing_is_chosen_or_noted(working: Services) -> None:
    (id_,) = _send(working)
    assert _row(working, id_).provider == "twilio"
    with working.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    assert told.steps[-1].provider == "twilio"
    assert _ledger(working, id_, Note.PROVIDER_CHOSEN) == []
    assert working.redis.keys("knocktwice:{providers}*") == []


@pytest.mark.parametrize("says", ["busy", "account"])
def test_what_one_did_not_take_the_other_sends(
    install: Callable[..., Services], acme: SmsProvider, sandbox: Sandbox, says: str
) -> None:
    here = install()
    acme.says = says
    (id_,) = _send(here)
    assert (_row(here, id_).state, _row(here, id_).provider) == ("reserved", "twilio")
    here.later_steps.send([id_])
    assert (_row(here, id_).state, len(sandbox.texts(NUMBER)), acme.texts) == ("sent", 1, [])
    (change,) = _ledger(here, id_, Note.PROVIDER_CHANGED)
    assert (change["from"], change["to"]) == ("acme", "twilio")
    assert change["reason"].startswith("acme")


def test_one_that_nobody_takes_wanders_once_and_then_waits(
    install: Callable[..., Services], acme: SmsProvider, sandbox: Sandbox
) -> None:
    here = install()
    acme.says = "busy"
    sandbox.rule(Rule("sms", NUMBER, answer=Answer(status=401)))
    (id_,) = _send(here)
    here.later_steps.send([id_])
    with here.engine.connect() as conn:
        wait = conn.execute(
            sa.text("SELECT wake_at - knocktwice_now() FROM deliveries WHERE notification_id = :id"), {"id": id_}
        ).scalar_one()
    assert wait > timedelta(seconds=20)
    assert _row(here, id_).provider == "acme"


@pytest.mark.parametrize("says", ["too fast", "broken", "drop"])
def test_what_may_have_been_sent_or_is_only_slow_stays(
    install: Callable[..., Services], acme: SmsProvider, sandbox: Sandbox, says: str
) -> None:
    here = install()
    acme.says = says
    (id_,) = _send(here)
    assert _row(here, id_).provider == "acme"
    acme.says = "ok"
    here.later_steps.send([id_])
    here.reconcile.resolve([id_])
    assert sandbox.texts(NUMBER) == []


def test_without_list_and_key_a_lost_outcome_ends_as_unknown(
    install: Callable[..., Services], acme: SmsProvider, sandbox: Sandbox, clock: Clock
) -> None:
    here = install()
    acme.says = "take and drop"
    (id_,) = _send(here)
    here.reconcile.resolve([id_])
    assert _row(here, id_).state == "sending"
    clock.advance(timedelta(minutes=3))
    here.reconcile.resolve([id_])
    assert _row(here, id_).state == "unknown"
    assert "cannot be asked" in _row(here, id_).reason
    assert (len(acme.texts), sandbox.texts(NUMBER)) == (1, [])


def test_without_a_list_nobody_knows_what_a_sender_that_died_has_sent(
    install: Callable[..., Services], acme: SmsProvider, clock: Clock
) -> None:
    here = install()
    (id_,) = _accept(here)
    with here.engine.begin() as conn:
        store.claim_steps(conn, {id_: store.Placement("acme", 0)}, HOUR)
    clock.advance(2 * HOUR)
    here.reconcile.resolve([id_])
    assert _row(here, id_).state == "unknown"
    assert "the sender died, and the provider cannot be asked" in _row(here, id_).reason
    assert acme.asked == 0


def test_a_critical_one_is_sent_again_by_the_same_provider_only(
    install: Callable[..., Services], acme: SmsProvider, sandbox: Sandbox, clock: Clock
) -> None:
    here = install()
    acme.says = "drop"
    (id_,) = _send(here, category="critical")
    clock.advance(timedelta(minutes=3))
    here.reconcile.resolve([id_])
    assert (_row(here, id_).state, _row(here, id_).provider) == ("reserved", "acme")
    # This time it certainly did not take it; of the first time nobody knows.
    acme.says = "busy"
    here.later_steps.send([id_])
    assert (_row(here, id_).state, _row(here, id_).provider) == ("reserved", "acme")
    acme.says = "ok"
    here.later_steps.send([id_])
    assert (_row(here, id_).state, sandbox.texts(NUMBER)) == ("sent", [])


@pytest.mark.parametrize(
    "entry",
    [
        {"idempotency": {"header": "Idempotency-Key"}},
        {"idempotency": {}, "json": {"to": "{to}", "from": "{sender}", "text": "{text}", "key": "{id}"}},
    ],
    ids=["header", "field"],
)
def test_who_knows_a_repeat_is_asked_again_at_once(
    install: Callable[..., Services],
    acme: SmsProvider,
    sandbox: Sandbox,
    clock: Clock,
    entry: dict[str, Any],
) -> None:
    here = install(**entry)
    acme.says = "take and drop"
    (id_,) = _send(here)
    acme.says = "ok"
    here.reconcile.resolve([id_])
    assert _row(here, id_).state == "reserved"
    here.later_steps.send([id_])
    row = _row(here, id_)
    assert (row.state, row.provider_id, len(acme.texts), sandbox.texts(NUMBER)) == ("sent", "acme:1", 1, [])
    acme.says = "drop"
    (late,) = _send(here)
    clock.advance(timedelta(hours=13))
    here.reconcile.resolve([late])
    assert _row(here, late).state == "unknown"


def test_a_key_is_forgotten_from_the_first_try_on(
    install: Callable[..., Services], acme: SmsProvider, clock: Clock
) -> None:
    """The provider counts from when it first saw the key, so the time of the last try says nothing."""
    here = install(idempotency={"header": "Idempotency-Key"}, settings={"sms_retry_s": 86_400.0})
    acme.says = "drop"
    (id_,) = _send(here)
    clock.advance(timedelta(hours=11))
    here.reconcile.resolve([id_])
    assert _row(here, id_).state == "reserved"
    here.later_steps.send([id_])
    asked = acme.asked
    # Twelve hours are half of the day for which the key is known.
    clock.advance(2 * HOUR)
    here.reconcile.resolve([id_])
    here.later_steps.send([id_])
    assert (_row(here, id_).state, acme.asked) == ("unknown", asked)


def test_a_key_that_is_forgotten_leaves_the_list(
    install: Callable[..., Services], acme: SmsProvider, clock: Clock
) -> None:
    here = install(idempotency={"header": "Idempotency-Key", "valid_s": 600}, list=acme.listing())
    acme.says = "take and drop"
    (id_,) = _send(here)
    acme.says = "ok"
    clock.advance(HOUR)
    assert here.reconcile.resolve([id_]) == [id_]
    acme.says = "drop"
    (lost,) = _send(here)
    acme.says = "ok"
    clock.advance(HOUR)
    for _ in range(2):
        here.reconcile.resolve([lost])
        clock.advance(HOUR)
    assert _row(here, lost).state == "reserved"


def test_a_list_shows_what_was_taken(install: Callable[..., Services], acme: SmsProvider) -> None:
    here = install(list=acme.listing())
    acme.says = "take and drop"
    (id_,) = _send(here)
    acme.says = "ok"
    here.reconcile.resolve([id_])
    assert (_row(here, id_).state, _row(here, id_).provider_id, len(acme.texts)) == ("sent", "acme:1", 1)


def test_a_choice_is_made_when_nobody_else_has_the_message(
    install: Callable[..., Services], acme: SmsProvider, sandbox: Sandbox
) -> None:
    """While a worker waited for the message another one tried it, and the outcome got lost:
    only there it may go again.
    """
    here, standby = install(), install(weight=0, twilio=1)
    (id_,) = _accept(here, category="critical")
    with ThreadPoolExecutor(1) as pool, here.engine.begin() as conn:
        conn.execute(sa.text("SELECT FROM deliveries WHERE notification_id = :id FOR UPDATE"), {"id": id_})
        # It would choose Twilio, and waits for the message.
        sending = pool.submit(standby.later_steps.send, [id_])
        eventually(lambda: _somebody_waits(here))
        assert store.claim_steps(conn, {id_: store.Placement("acme", 0)}, HOUR)[0] == [id_]
        lost = store.StepResult(id_, DeliveryState.RESERVED, reason="no answer", wake_after=HOUR)
        store.record_steps(conn, [lost])
    assert sending.result() == [id_]
    assert (_row(here, id_).state, _row(here, id_).provider) == ("sent", "acme")
    assert (acme.asked, sandbox.texts(NUMBER)) == (1, [])


def test_a_failing_provider_is_demoted_for_all_and_comes_back(
    install: Callable[..., Services], acme: SmsProvider, sandbox: Sandbox
) -> None:
    here, other = install(twilio=1, weight=1_000_000), install(twilio=1, weight=1_000_000)
    acme.says = "busy"
    first = _send(here, 12)
    assert acme.asked == 12
    here.later_steps.send(first)
    assert len(sandbox.texts()) == 12
    later = _send(other, 5)
    assert acme.asked == 12
    assert {_row(here, i).provider for i in later} == {"twilio"}
    assert _ledger(here, later[0], Note.PROVIDER_CHOSEN) == [{"provider": "twilio", "why": "others_demoted"}]
    (check,) = [c for c in doctor.examine(here) if c.name == "sms providers"]
    assert check.level == "warning"
    assert "acme (weight 1e+06): demoted, acme 503; 12 of 12 SMS failed in the last minute" in check.finding
    assert "twilio (weight 1): fine" in check.finding
    # Its pause is over, but it still fails: one tries, and the pause is longer now.
    here.redis.hset("knocktwice:{providers}:acme", "until", "0")
    probed = _send(here, 5)
    assert acme.asked == 13
    here.later_steps.send(probed)
    assert _send(here, 5)
    assert acme.asked == 13
    assert here.redis.hget("knocktwice:{providers}:acme", "pause") == b"60"
    here.redis.hset("knocktwice:{providers}:acme", "until", "0")
    acme.says = "ok"
    _send(here, 5)
    assert len(acme.texts) == 1
    _send(other, 5)
    assert len(acme.texts) == 6


def test_when_all_fail_they_are_tried_as_ever_and_the_first_to_work_is_back(
    install: Callable[..., Services], acme: SmsProvider, sandbox: Sandbox
) -> None:
    here = install(settings={"sms_provider_sample": 1})
    acme.says = "busy"
    sandbox.rule(Rule("sms", answer=Answer(status=401)))
    (id_,) = _send(here)
    here.later_steps.send([id_])
    choice = here.channels.choice("sms")
    assert choice is not None
    assert all(one.reason for one in choice.health())
    acme.says = "ok"
    (id_,) = _send(here)
    assert _ledger(here, id_, Note.PROVIDER_CHOSEN) == [{"provider": "acme", "why": "all_demoted"}]
    assert _row(here, id_).state == "sent"
    _send(here)
    assert len(acme.texts) == 2


def test_without_redis_all_count_as_fine(install: Callable[..., Services]) -> None:
    here = install(settings={"broker_url": "redis://127.0.0.1:1/0"})
    choice = here.channels.choice("sms")
    assert choice is not None
    assert choice.choose([("a", None, 0)])["a"].provider == "acme"


def test_a_provider_that_the_file_no_longer_names_gets_no_repeat_by_another(
    install: Callable[..., Services], acme: SmsProvider, sandbox: Sandbox, clock: Clock
) -> None:
    here = install()
    acme.says = "drop"
    (id_,) = _send(here, category="critical")
    gone = install(name="other")
    clock.advance(timedelta(minutes=3))
    gone.reconcile.resolve([id_])
    gone.later_steps.send([id_])
    row = _row(here, id_)
    assert (row.state, row.provider, sandbox.texts(NUMBER)) == ("reserved", "acme", [])
    assert "no longer in KNOCKTWICE_SMS_PROVIDERS_FILE" in row.reason


def test_one_id_for_two_messages_loses_none_of_them(install: Callable[..., Services], acme: SmsProvider) -> None:
    here = install(id="message.kind", answers=[], json={"to": "{to}", "text": "{text}"})
    acme.take = lambda *_: "1"  # type: ignore[method-assign]
    here = install(id="message.id")
    ids = _send(here, 3)
    assert [_row(here, i).state for i in ids] == ["sent"] * 3
    assert sorted(_row(here, i).provider_id or "" for i in ids) == ["", "", "acme:1"]
    (again,) = _send(here)
    assert (_row(here, again).state, _row(here, again).provider_id) == ("sent", None)


def test_each_sender_of_each_provider_has_its_own_pace(install: Callable[..., Services]) -> None:
    here = install(parts_per_s=0.000001)
    ids = _send(here, 2)
    assert sorted(_row(here, i).state for i in ids) == ["reserved", "sent"]
    assert here.redis.keys("knocktwice:pace:sms:*") == [b"knocktwice:pace:sms:acme:Acme"]


def test_only_who_asked_for_patience_is_spoken_to_more_slowly(
    install: Callable[..., Services], acme: SmsProvider
) -> None:
    here = install(twilio=30, parts_per_s=1_000, settings={"sms_parts_per_s": 1_000.0})
    acme.says = "too fast"
    _send(here, 20)
    with here.engine.connect() as conn:
        by = conn.execute(sa.text("SELECT DISTINCT provider FROM deliveries WHERE step = 1 ORDER BY 1")).scalars()
        assert list(by) == ["acme", "twilio"]
    slowed = [key for key in here.redis.keys("knocktwice:pace:*") if here.redis.hexists(key, "pause")]
    assert slowed == [b"knocktwice:pace:sms:acme:Acme"]


def test_a_paused_message_uses_up_no_probe_of_a_demoted_provider(
    install: Callable[..., Services], acme: SmsProvider
) -> None:
    here = install(twilio=1, weight=1_000_000)
    acme.says = "busy"
    _send(here, 12)
    here.redis.hset("knocktwice:{providers}:acme", "until", "0")
    (id_,) = _accept(here)
    with here.engine.begin() as conn:
        pauses.pause(conn, Scope("sms"), By("ada", "why"))
    here.pauses._last = PauseGate()._last
    here.later_steps.send([id_])
    assert _row(here, id_).state == "reserved"
    with here.engine.begin() as conn:
        pauses.resume(conn, Scope("sms"), By("ada", "why"))
    here.pauses._last = PauseGate()._last
    acme.says = "ok"
    here.later_steps.send([id_])
    assert (_row(here, id_).state, _row(here, id_).provider) == ("sent", "acme")
