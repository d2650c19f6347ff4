"""What never called back: the daily look into Twilio's list, the question about single messages,
and when nobody asks any more.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_worker.channels.http import Response
from knocktwice_worker.channels.reports import StatusReport
from knocktwice_worker.channels.twilio import reports
from knocktwice_worker.channels.twilio.reports import TwilioReports
from knocktwice_worker.lifecycle import ProviderState
from knocktwice_worker.notifications.pipeline import delivery_reports
from knocktwice_worker.notifications.store import provider_reports
from knocktwice_worker.sandbox import Answer, Rule
from knocktwice_worker.services import Services

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_worker.channels.deadline import Deadline
    from knocktwice_worker.channels.http import NoResponse, Request
    from knocktwice_worker.sandbox import Sandbox
    from support.clock import Clock

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
SHOWN = "SELECT state, provider_status, price, price_unit, reported_at IS NOT NULL FROM deliveries WHERE notification_id = :id"


def _send(here: Services, people: int = 1) -> list[str]:
    ids = [str(uuid7()) for _ in range(people)]
    wire: dict[str, Any] = {
        "v": 1, "id": str(uuid7()), "content": {"sms": {"text": "x " + ids[0]}}, "only": "sms",
        "recipients": [{"id": i, "phone": f"+1650555{100 + n:04}"} for n, i in enumerate(ids)],
    }  # fmt: skip
    here.pushes.send(parse_batch(wire))
    here.fallback.check(ids)
    here.later_steps.send(ids)
    return ids


def _rows(here: Services, ids: Sequence[str], query: str = SHOWN) -> list[tuple[Any, ...]]:
    with here.engine.connect() as conn:
        return [tuple(conn.execute(sa.text(query), {"id": id_}).one()) for id_ in ids]


def _verdicts(here: Services, id_: str) -> list[str]:
    with here.engine.connect() as conn:
        query = "SELECT verdict FROM decisions WHERE notification_id = :id AND verdict LIKE 'delivery%' ORDER BY id"
        return list(conn.scalars(sa.text(query), {"id": id_}))


def _travelled(sandbox: Sandbox, status: str, count: int) -> None:
    """Wait until so many texts have come to a status, of which nobody was told: there is no public URL."""
    sandbox.wait_until(lambda: sum(t.status == status for t in sandbox.texts()) == count)


def test_the_list_tells_states_and_prices_and_again_nothing_new(
    working: Services, sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_PAGE_SIZE", 2)
    ids = _send(working, 5)
    _travelled(sandbox, "delivered", 5)
    with working.engine.begin() as conn:
        # The account has sent this one, and not for us.
        conn.execute(sa.text("UPDATE deliveries SET provider_id = 'SMx' WHERE notification_id = :id"), {"id": ids[4]})
    clock.advance(MINUTE)
    assert working.delivery_reports.read_lists() == 4
    row = _rows(working, ids[:4])
    assert {(state, status, str(price), unit, known) for state, status, price, unit, known in row} == {
        ("sent", "delivered", "0.00790", "USD", True)
    }
    assert sandbox.requests("list") == 3
    assert working.delivery_reports.read_lists() == 4
    assert [_verdicts(working, id_) for id_ in ids] == [["delivery_report"]] * 4 + [[]]
    with working.engine.connect() as conn:
        assert conn.execute(sa.text("SELECT count(*) FROM provider_reports")).scalar_one() == 0


def test_a_list_that_does_not_come_is_read_the_next_time(working: Services, sandbox: Sandbox, clock: Clock) -> None:
    _send(working, 3)
    _travelled(sandbox, "delivered", 3)
    clock.advance(MINUTE)
    sandbox.rule(Rule("list", times=1, answer=Answer(status=503)))
    assert working.delivery_reports.read_lists() == 0
    assert working.delivery_reports.read_lists() == 3


def test_what_is_overdue_is_asked_for_and_then_its_arrival_is_unknown(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    sandbox.rule(Rule("sms", "+16505550101", answer=Answer(statuses=("sent",))))
    arrived, silent = _send(working, 2)
    _travelled(sandbox, "delivered", 1)
    _travelled(sandbox, "sent", 1)
    clock.advance(DAY - MINUTE)
    working.delivery_reports.ask_and_close()
    assert sandbox.requests("list") == 0
    clock.advance(2 * MINUTE)
    (young,) = _send(working)
    working.delivery_reports.ask_and_close()
    assert sandbox.requests("list") == 2
    assert [row[1] for row in _rows(working, [arrived, silent, young])] == ["delivered", "sent", None]
    assert _verdicts(working, arrived) == ["delivery_report"]
    assert _verdicts(working, silent) == ["delivery_unknown"]
    assert _verdicts(working, young) == []
    # Nobody asks again, and what is told all the same is still taken.
    working.delivery_reports.ask_and_close()
    assert sandbox.requests("list") == 2
    ((sid,),) = _rows(working, [silent], "SELECT provider_id FROM deliveries WHERE notification_id = :id")
    with working.engine.begin() as conn:
        provider_reports.accept(conn, [StatusReport("twilio", sid, ProviderState.DELIVERED, datetime.now(UTC))])
    assert working.delivery_reports.bring_waiting() == 0
    assert _rows(working, [silent])[0][1] == "delivered"


def test_twilio_is_not_asked_about_what_others_sent(working: Services, sandbox: Sandbox, clock: Clock) -> None:
    (id_,) = _send(working)
    with working.engine.begin() as conn:
        conn.execute(sa.text("UPDATE deliveries SET provider = 'acme', provider_id = 'acme:1'"))
    clock.advance(DAY + MINUTE)
    working.delivery_reports.ask_and_close()
    assert (sandbox.requests("list"), _verdicts(working, id_)) == (0, ["delivery_unknown"])


def test_many_are_asked_for_in_pieces(
    working: Services, sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_reports, "_AT_ONCE", 2)
    ids = _send(working, 5)
    _travelled(sandbox, "delivered", 5)
    clock.advance(DAY + MINUTE)
    working.delivery_reports.ask_and_close()
    assert {row[1] for row in _rows(working, ids)} == {"delivered"}
    assert sandbox.requests("list") == 5


def test_without_an_account_nothing_is_asked(working: Services, sandbox: Sandbox, clock: Clock) -> None:
    (id_,) = _send(working)
    clock.advance(DAY + MINUTE)
    without = Services(working.settings.model_copy(update={"twilio_account_sid": None}))
    try:
        assert without.delivery_reports.read_lists() == 0
        without.delivery_reports.ask_and_close()
    finally:
        without.close()
    assert (sandbox.requests("list"), _verdicts(working, id_)) == (0, ["delivery_unknown"])


class _Says:
    """A provider that answers each request with the next of these, and then with nothing more."""

    def __init__(self, *answers: object) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    def send(self, requests: Sequence[Request], _not_after: Deadline | None = None, /) -> list[Response | NoResponse]:
        """Answer."""
        self.asked += [request.url for request in requests]
        assert len(self.asked) < 5_000, "it never stops asking"
        bodies = [self._answers.pop(0) if len(self._answers) > 1 else self._answers[0] for _ in requests]
        return [Response(200, body if isinstance(body, bytes) else json.dumps(body).encode(), {}) for body in bodies]


def _reports() -> TwilioReports:
    return TwilioReports(url="https://api.twilio.test", account_sid="AC1", auth_token="secret", secret="s")


@pytest.mark.parametrize(
    "said",
    [
        b"<html>gateway timeout</html>", b"[" * 100_000, [], {"messages": 7}, {"messages": [7, None, [], {"sid": 1}]},
        {"messages": {"sid": 1}}, {"messages": [], "next_page_uri": 7},
    ],
)  # fmt: skip
def test_a_list_that_is_none_tells_nothing(said: object) -> None:
    now = datetime.now(UTC)
    assert [r for page in _reports().sent_between(_Says(said), now - DAY, now) for r in page] == []
    assert _reports().fetch(_Says(said), ["SM1", "SM2"], now) == []


@pytest.mark.parametrize(
    "more", ["https://elsewhere.test/next", "//elsewhere.test/next", "/2010-04-01/Accounts/AC1/Messages.json?Page=1"]
)
def test_the_account_goes_to_twilio_only_and_a_list_has_an_end(more: str) -> None:
    says, now = _Says({"messages": [], "next_page_uri": more}), datetime.now(UTC)
    assert list(_reports().sent_between(says, now - DAY, now))
    assert all(url.startswith("https://api.twilio.test/") for url in says.asked)


def test_what_came_before_a_list_broke_off_is_taken() -> None:
    sid = "SM" + "0" * 32
    first = {"messages": [{"sid": sid, "status": "delivered"}], "next_page_uri": "/2010-04-01/more"}
    now = datetime.now(UTC)
    pages = list(_reports().sent_between(_Says(first, b"<html>"), now - DAY, now))
    assert [[report.provider_id for report in page] for page in pages] == [[sid], []]
