"""Two SMS providers over real worker processes: they share the work, and one does it all while the other fails."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from knocktwice import Recipient, Sms
from support.sms_provider import TOKEN, SmsProvider
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.system import System

_numbers = (f"+1650556{n:04}" for n in itertools.count())


@pytest.fixture(scope="module")
def acme() -> Iterator[SmsProvider]:
    with SmsProvider() as running:
        yield running


@pytest.fixture(scope="module")
def both(installation: System, acme: SmsProvider, tmp_path_factory: pytest.TempPathFactory) -> System:
    folder: Path = tmp_path_factory.mktemp("providers")
    installation.settings |= {
        "KNOCKTWICE_SMS_PROVIDERS_FILE": str(acme.file(folder)),
        "KNOCKTWICE_SMS_PROVIDER_PROBE_S": "0.5",
        # What it sent well in the minute before counts, too.
        "KNOCKTWICE_SMS_PROVIDER_ERROR_SHARE": "0.1",
        "ACME_TOKEN": TOKEN,
    }
    for _ in range(2):
        installation.start_worker()
    return installation


def _text(both: System, people: int) -> dict[str, int]:
    """Text people, see that each got one SMS, and return how many each provider sent."""
    persons = [Recipient(phone=next(_numbers)) for _ in range(people)]
    ids = [str(i) for i in both.client.notify_many(persons, sms=Sms("Your table is ready."))]
    of_them = "FROM deliveries WHERE notification_id = ANY(CAST(:ids AS uuid[]))"
    sent = f"SELECT count(*) {of_them} AND state = 'sent'"
    eventually(lambda: both.count(sent, ids=ids) == people, why=both.logs)
    by = f"SELECT count(*) {of_them} AND provider = :name"
    return {name: both.count(by, ids=ids, name=name) for name in ("twilio", "acme")}


def _each_once(both: System, acme: SmsProvider) -> None:
    everybody = sorted([t.to for t in both.sandbox.texts()] + [t["to"] for t in acme.texts])
    assert len(everybody) == len(set(everybody)) == both.count("SELECT count(*) FROM notifications")


def test_they_share_the_work_by_weight(both: System, acme: SmsProvider) -> None:
    shares = _text(both, 400)
    assert sum(shares.values()) == 400
    # Five standard deviations of 400 with a share of 30 %.
    assert 74 <= shares["acme"] <= 166
    _each_once(both, acme)


def test_when_the_first_fails_all_go_by_the_second_until_the_first_is_back(both: System, acme: SmsProvider) -> None:
    acme.says = "busy"
    assert _text(both, 100) == {"twilio": 100, "acme": 0}
    asked = acme.asked
    assert _text(both, 50) == {"twilio": 50, "acme": 0}
    # Only probes.
    assert acme.asked - asked <= 5
    demoted = "SELECT count(*) FROM decisions WHERE verdict = 'provider_chosen' AND inputs ->> 'why' = 'others_demoted'"
    assert both.count(demoted) > 0
    acme.says = "ok"
    eventually(lambda: _text(both, 5)["acme"] > 1, why=both.logs)
    assert _text(both, 100)["acme"] > 5
    _each_once(both, acme)
