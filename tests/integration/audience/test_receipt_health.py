"""Which kinds of devices confirm their pushes, and what becomes of the people whose kind never does."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, parse_audience, parse_batch
from knocktwice_worker.audience import people, receipt_health
from knocktwice_worker.config import Settings
from knocktwice_worker.lifecycle import AttemptState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline import receipts
from knocktwice_worker.services import Services, process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.clock import Clock
    from support.commands import CommandOutput

HOUR, LEASE = timedelta(hours=1), timedelta(minutes=1)
AT = datetime(2026, 11, 1, 12, tzinfo=UTC)


def _register(here: Services, user: str, platform: str, version: str) -> None:
    device = {
        "change": "register_device",
        "user": user,
        "registration": f"phone-{user}",
        "platform": platform,
        "app_version": version,
        "notifications_enabled": True,
        "at": AT.isoformat(),
    }
    number = {"change": "bind_phone", "user": user, "phone": "+16505550100", "at": AT.isoformat()}
    with here.engine.begin() as conn:
        people.apply(conn, parse_audience({"v": 1, "changes": [device, number]}))


def _push(here: Services, user: str, when: str = "not_delivered") -> str:
    wire = {
        "v": 1,
        "id": str(uuid7()),
        "content": {"push": {"title": "t", "body": f"for {user}"}},
        "plan": [{"channel": "sms", "when": when, "after_s": 0}],
        "recipients": [{"id": str(uuid7()), "user": user}],
    }
    batch = parse_batch(wire)
    with here.engine.begin() as conn:
        work = store.accept(conn, [store.Intake(batch, {}, HOUR)], lease=LEASE)
        store.record_push(
            conn,
            [store.PushResult(w.notification_id, w.registration, state=AttemptState.SENT) for w in work],
            retry_for=HOUR,
        )
    return str(batch.recipients[0].id)


def _confirm(here: Services, id_: str, user: str, kind: Receipt = Receipt.DELIVERED) -> None:
    receipts.record(here.engine, [ReceiptEvent(UUID(id_), kind, AT, f"phone-{user}")])


@pytest.fixture
def crowd(here: Services, clock: Clock) -> None:
    """Android confirms half of its pushes, iOS 3.1 none, and three hours have passed."""
    for n in range(6):
        _register(here, f"a{n}", "android", "2.0")
        id_ = _push(here, f"a{n}")
        if n % 2:
            _confirm(here, id_, f"a{n}")
        _register(here, f"i{n}", "ios", "3.1")
        id_ = _push(here, f"i{n}")
        if n == 0:
            _confirm(here, id_, f"i{n}", Receipt.CLICKED)
    clock.advance(timedelta(hours=3))
    receipt_health.roll_up(here.engine)


@pytest.fixture
def policy(settings: Settings) -> Iterator[Callable[[str], Services]]:
    made = []

    def build(name: str) -> Services:
        known = settings.model_dump(include={"database_url", "broker_url", "secret", "home"})
        made.append(Services(Settings(**known, unconfirmed_policy=name, unconfirmed_sample=5)))
        return made[-1]

    yield build
    for one in made:
        one.close()


@pytest.mark.usefixtures("crowd")
def test_shares_are_counted_by_platform_and_version(policy: Callable[[str], Services]) -> None:
    here = policy("text")
    with here.engine.connect() as conn:
        kinds = {k.platform: k for k in receipt_health.examine(conn, here.settings)}
    assert (kinds["android"].pushes, kinds["android"].delivered, kinds["android"].silent) == (6, 3, False)
    # A click confirms, and still says that this kind reports no deliveries.
    assert (kinds["ios"].app_version, kinds["ios"].delivered, kinds["ios"].confirmed) == ("3.1", 0, 1)
    assert kinds["ios"].silent


@pytest.mark.usefixtures("crowd")
def test_counting_again_changes_nothing_and_takes_in_late_receipts(here: Services, clock: Clock) -> None:
    def totals() -> list[int]:
        with here.engine.connect() as conn:
            query = "SELECT sum(pushes), sum(delivered), sum(confirmed) FROM receipt_health"
            return [int(n) for n in conn.execute(sa.text(query)).one()]

    before = totals()
    receipt_health.roll_up(here.engine)
    assert totals() == before == [12, 3, 4]
    with here.engine.connect() as conn:
        ids = conn.execute(sa.text("SELECT notification_id, registration FROM attempts")).all()
    for row in ids:
        receipts.record(
            here.engine, [ReceiptEvent(UUID(str(row.notification_id)), Receipt.DELIVERED, AT, row.registration)]
        )
    # A day after its own hour had passed that hour is counted once more.
    for _ in range(24):
        clock.advance(timedelta(hours=1))
        receipt_health.roll_up(here.engine)
    assert totals() == [12, 12, 12]


@pytest.mark.usefixtures("crowd")
@pytest.mark.parametrize(
    ("name", "verdict", "state"),
    [
        ("text", "not_delivered", "active"),
        ("accept", "accepted_unconfirmed", "pushed"),
        ("not_clicked", "not_clicked", "active"),
    ],
)
def test_the_policy_decides_for_a_kind_that_never_confirms_and_the_ledger_says_so(
    policy: Callable[[str], Services], name: str, verdict: str, state: str
) -> None:
    here = policy(name)
    id_ = _push(here, "i3")
    assert here.fallback.check([id_]) == ([id_] if state == "active" else [])
    with here.engine.connect() as conn:
        query = sa.text("SELECT verdict, inputs FROM decisions WHERE notification_id = :id")
        (line,) = conn.execute(query, {"id": id_}).all()
        ended = conn.execute(sa.text("SELECT state FROM notifications WHERE id = :id"), {"id": id_}).scalar_one()
    assert (line.verdict, ended) == (verdict, state)
    expected = None if name == "text" else {"policy": name, "never_confirm": ["ios 3.1"]}
    assert line.inputs.get("unconfirmed") == expected


@pytest.mark.usefixtures("crowd")
def test_a_kind_that_does_confirm_is_texted_when_it_does_not(policy: Callable[[str], Services]) -> None:
    here = policy("accept")
    id_ = _push(here, "a0")
    assert here.fallback.check([id_]) == [id_]


@pytest.mark.usefixtures("crowd")
def test_too_few_pushes_say_nothing_about_a_kind(here: Services) -> None:
    with here.engine.connect() as conn:
        assert not any(k.silent for k in receipt_health.examine(conn, here.settings))


@pytest.mark.usefixtures("crowd")
def test_the_command_shows_it(run: Callable[..., CommandOutput], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKTWICE_UNCONFIRMED_SAMPLE", "5")
    process._services.clear()
    said = run("receipts", "health", "--json")
    assert said.code == 0
    shown = {(k["platform"], k["app_version"]): (k["share"], k["silent"]) for k in json.loads(said.out)}
    assert shown == {("android", "2.0"): (0.5, False), ("ios", "3.1"): (0.1667, True)}
    assert "never reports deliveries: text" in run("receipts", "health").out


def test_a_release_of_this_hour_is_known_within_minutes(policy: Callable[[str], Services], clock: Clock) -> None:
    here = policy("accept")
    clock.set(AT + timedelta(days=30, minutes=5))
    for n in range(5):
        _register(here, f"n{n}", "ios", "5.0")
        _push_at(here, f"n{n}")
    clock.advance(timedelta(minutes=11))
    receipt_health.count_current(here.engine)
    receipt_health.count_current(here.engine)
    with here.engine.connect() as conn:
        (kind,) = receipt_health.examine(conn, here.settings)
    assert (kind.app_version, kind.pushes, kind.silent) == ("5.0", 5, True)
    # Its last pushes are counted with their hour.
    _push_at(here, "n0")
    clock.advance(timedelta(hours=3))
    receipt_health.roll_up(here.engine)
    with here.engine.connect() as conn:
        (kind,) = receipt_health.examine(conn, here.settings)
    assert kind.pushes == 6


def _push_at(here: Services, user: str) -> None:
    """Push with an id of the test's time, which the hour is taken from."""
    real = _push(here, user)
    with here.engine.begin() as conn:
        now = conn.execute(sa.text("SELECT knocktwice_now()")).scalar_one()
        id_ = UUID(int=(int(now.timestamp() * 1000) << 80) | (UUID(real).int & ((1 << 80) - 1)))
        conn.execute(
            sa.text("UPDATE attempts SET notification_id = :id WHERE notification_id = :real"),
            {"id": id_, "real": real},
        )
