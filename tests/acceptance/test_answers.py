"""The world answers back: a gateway process takes what phones and Twilio report, and it changes what happens."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import httpx

from knocktwice import Sms
from knocktwice_worker.sandbox import Answer, Rule
from knocktwice_worker.sandbox.departures import sign
from support.system import System, eventually, verdicts

if TYPE_CHECKING:
    from support.clock import Clock

HOUR = timedelta(hours=1)


def _receipt_url(system: System, registration: str) -> str:
    pushed = eventually(lambda: system.sandbox.pushes(registration), why=system.logs)[-1]
    return pushed.data["knocktwice_receipt"]


def test_one_request_from_the_app_cancels_the_sms_at_once(installation: System, gateway: str) -> None:
    id_ = installation.notify("+16505550121", sms=Sms(when="not_clicked", after=HOUR), registration="silent-a")
    url = _receipt_url(installation, "silent-a")
    assert url.startswith(gateway)
    installation.waiting(id_)
    assert httpx.post(f"{url}/clicked").status_code == 204
    told = installation.ended(id_)
    assert (told.state, told.steps[1].state) == ("reached", "skipped")
    # Which phone it was is known, though the address does not say it.
    named = "SELECT count(*) FROM events WHERE notification_id = :id AND kind = 'clicked' AND registration = 'silent-a'"
    assert installation.count(named, id=str(id_)) == 1
    # Again, late and from the other kind: nothing changes.
    for kind in ("clicked", "delivered"):
        assert httpx.get(f"{url}/{kind}").status_code == 204
    assert installation.story(id_) is not None
    assert installation.ended(id_).state == "reached"
    assert installation.sandbox.texts("+16505550121") == []


def test_a_phone_reports_to_the_address_in_its_push_and_no_sms_follows(
    installation: System, gateway: str, clock: Clock
) -> None:
    number = "+16505550123"
    id_ = installation.notify(number, sms=Sms(when="not_clicked", after=HOUR), registration="clicks-c")
    told = installation.ended(id_)
    assert (told.state, told.steps[1].state) == ("reached", "skipped")
    (pushed,) = installation.sandbox.pushes("clicks-c")
    assert pushed.data["knocktwice_receipt"].startswith(f"{gateway}/r/")
    installation.sandbox.wait_until(lambda: len(installation.sandbox.pushes("clicks-c")[0].reports) == 2)
    taken = {(report.kind, report.answered) for report in installation.sandbox.pushes("clicks-c")[0].reports}
    assert taken == {("delivered", 204), ("clicked", 204)}
    clock.advance(HOUR)
    assert installation.ended(id_).state == "reached"
    assert installation.sandbox.texts(number) == []


def test_a_receipt_ends_an_sms_that_is_held_back_by_twilio(installation: System, gateway: str) -> None:
    number = "+16505550122"
    installation.sandbox.rule(Rule("sms", match=number, answer=Answer(status=429, retry_after=30)))
    id_ = installation.notify(number, sms=Sms(when="not_delivered", after=timedelta()), registration="silent-b")
    url = _receipt_url(installation, "silent-b")
    _held(installation, str(id_))
    answer = httpx.post(f"{gateway}/v1/receipts", json={"receipts": [{"receipt": url, "kind": "delivered"}]})
    assert answer.json() == {"accepted": 1, "refused": []}
    assert installation.ended(id_).state == "reached"
    assert installation.sandbox.texts(number) == []


def _held(system: System, id_: str) -> None:
    held = (
        "SELECT count(*) FROM deliveries WHERE notification_id = :id AND step = 1 AND state = 'reserved' AND tries > 0"
    )
    eventually(lambda: system.count(held, id=id_), why=system.logs)


def test_twilios_callbacks_tell_what_became_of_an_sms(installation: System, gateway: str) -> None:
    for number, status, error in (
        ("+16505550123", "delivered", None),
        ("+15005550030", "undelivered", 30003),
        ("+15005550031", "failed", 30007),
        ("+15005550032", "sent", None),
    ):
        id_ = installation.notify(number, sms=Sms(after=timedelta()))
        told = eventually(
            lambda i=id_, s=status: (  # type: ignore[misc]
                found if (found := installation.story(i)) and found.steps[-1].provider_status == s else None
            ),
            why=installation.logs,
        )
        assert (told.state, told.steps[1].provider_error) == ("texted", error)
        assert ("delivery_report" in verdicts(told)) is (status != "sent")
    assert all(c.answered == 204 for c in installation.sandbox.callbacks())
    assert gateway


def test_stop_between_reservation_and_send_means_no_sms(installation: System, gateway: str) -> None:
    number = "+16505550124"
    installation.sandbox.rule(Rule("sms", match=number, times=1, answer=Answer(status=429, retry_after=2)))
    id_ = installation.notify(number, sms=Sms(after=timedelta()))
    _held(installation, str(id_))
    form = {"MessageSid": "SM" + "0" * 32, "From": number, "To": "+15005550006", "Body": "STOPP"}
    url = f"{gateway}/callbacks/twilio/inbound"
    headers = {"X-Twilio-Signature": sign(url, form), "Content-Type": "application/x-www-form-urlencoded"}
    assert httpx.post(url, content=urlencode(form), headers=headers).status_code == 200
    told = installation.ended(id_)
    assert (told.state, told.reason) == ("suppressed", "opted_out")
    assert installation.sandbox.texts(number) == []
