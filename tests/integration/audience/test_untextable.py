"""Numbers that texts do not reach are learned, passed over, tried once more and forgotten."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import PhoneBound, UserErased, parse_batch
from knocktwice_worker.audience import people
from knocktwice_worker.channels.reports import StatusReport
from knocktwice_worker.channels.twilio.reports import read_callback
from knocktwice_worker.notifications.store import provider_reports
from knocktwice_worker.privacy import erasure
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.sandbox import Answer, Rule

if TYPE_CHECKING:
    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

NUMBER = "+16505550100"
PLAN = [{"channel": "sms", "when": "not_clicked", "after_s": 0}]


class Phone:
    """A number that is texted again and again."""

    def __init__(self, here: Services, clock: Clock, sandbox: Sandbox) -> None:
        self.here, self.clock, self.sandbox = here, clock, sandbox

    def now(self) -> datetime:
        return datetime.now(UTC) + self.clock.ahead

    def text(self, **who: Any) -> str | None:
        """Text the number; return why that did not happen, or ``None``."""
        recipient = {"id": str(uuid7()), **(who or {"registrations": ["silent-1"], "phone": NUMBER})}
        wire = {"v": 1, "id": str(uuid7()), "content": {"push": {"title": "t", "body": str(recipient["id"])}}}
        self.here.pushes.send(parse_batch({**wire, "plan": PLAN, "recipients": [recipient]}))
        self.here.later_steps.send(self.here.fallback.check([recipient["id"]]))
        with self.here.engine.connect() as conn:
            told = tell(conn, recipient["id"])
        assert told is not None
        self.story = [moment.sentence for moment in told.moments]
        return None if told.state == "texted" else told.reason

    def report(self, status: str, code: int | None = None) -> None:
        """Twilio reports what became of the newest SMS."""
        sid = self.sandbox.texts(NUMBER)[-1].sid
        form = {"MessageSid": sid, "MessageStatus": status, "ErrorCode": str(code or "")}
        report = read_callback(form, self.now())
        assert isinstance(report, StatusReport)
        with self.here.engine.begin() as conn:
            provider_reports.accept(conn, [report])
        with self.here.engine.begin() as conn:
            assert provider_reports.bring(conn, {sid}) == 0

    def fail(self, code: int) -> None:
        assert self.text() is None
        self.report("undelivered", code)

    def remembered(self) -> list[tuple[str, int]]:
        with self.here.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(sa.text("SELECT reason, failures FROM untextable"))]


@pytest.fixture
def phone(working: Services, clock: Clock, sandbox: Sandbox) -> Phone:
    return Phone(working, clock, sandbox)


@pytest.mark.parametrize(
    ("code", "reason"), [(30006, "landline"), (30005, "unknown_number"), (30004, "blocked"), (21614, "invalid_number")]
)
def test_a_number_that_a_report_calls_untextable_is_passed_over_and_later_tried_once_more(
    phone: Phone, code: int, reason: str
) -> None:
    phone.fail(code)
    assert phone.text() == "untextable"
    assert f"Messages do not reach this number, says the provider ({reason}): no SMS." in phone.story
    phone.clock.advance(timedelta(days=29))
    assert phone.text() == "untextable"
    assert len(phone.sandbox.texts(NUMBER)) == 1
    phone.clock.advance(timedelta(days=1))
    phone.fail(code)
    assert phone.text() == "untextable"
    assert len(phone.sandbox.texts(NUMBER)) == 2
    assert phone.remembered() == [(reason, 2)]


@pytest.mark.parametrize("code", [21211, 21614])
def test_a_number_that_the_provider_refuses_is_passed_over(phone: Phone, code: int) -> None:
    phone.sandbox.rule(Rule("sms", answer=Answer(error_code=code)))
    assert phone.text() == f"invalid_number: Twilio {code}"
    phone.sandbox.clear_rules()
    assert phone.text() == "untextable"


@pytest.mark.parametrize("code", [30007, 30008, 30001, 21610])
def test_codes_that_speak_of_something_else_are_not_learned(phone: Phone, code: int) -> None:
    phone.fail(code)
    assert phone.remembered() == []


def test_a_phone_that_is_switched_off_is_given_up_after_some_failures_over_a_week(phone: Phone) -> None:
    for day in (0, 1, 2):
        phone.fail(30003)
        phone.clock.advance(timedelta(days=1 if day < 2 else 6))
    assert phone.remembered() == [("unreachable", 3)]
    phone.fail(30003)
    assert phone.text() == "untextable"


def test_a_message_that_arrives_takes_the_number_off_the_list(phone: Phone) -> None:
    phone.fail(30003)
    assert phone.text() is None
    phone.report("delivered")
    assert phone.remembered() == []


def test_a_repeated_report_counts_once(phone: Phone) -> None:
    phone.fail(30006)
    phone.report("undelivered", 30006)
    phone.report("undelivered", 30006)
    assert phone.remembered() == [("landline", 1)]


def test_a_number_that_is_bound_anew_is_texted_again(phone: Phone) -> None:
    phone.fail(30006)
    assert phone.text() == "untextable"
    with phone.here.engine.begin() as conn:
        # Said before the failure and arriving late, it tells nothing new.
        people.apply(conn, [PhoneBound("ada", NUMBER, phone.now() - timedelta(days=1))])
    assert phone.text(user="ada") == "untextable"
    with phone.here.engine.begin() as conn:
        people.apply(conn, [PhoneBound("ada", NUMBER, phone.now())])
    assert phone.text(user="ada") is None


def test_an_erased_persons_number_leaves_the_list(phone: Phone) -> None:
    with phone.here.engine.begin() as conn:
        people.apply(conn, [PhoneBound("ada", NUMBER, phone.now())])
    assert phone.text(user="ada") is None
    phone.report("undelivered", 30006)
    assert phone.remembered() == [("landline", 1)]
    with pytest.raises(erasure.Unsettled):
        phone.here.erasure.erase_all([UserErased("ada", phone.now())])
    assert phone.remembered() == []
