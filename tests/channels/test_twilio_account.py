"""What ``knocktwice doctor`` asks Twilio, through Twilio's SDK: is the account active, and is the sender its own?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from knocktwice_worker.channels.outcomes import CredentialsUnavailable
from knocktwice_worker.channels.provider import Examination
from knocktwice_worker.channels.twilio import account
from knocktwice_worker.channels.twilio.sms import TwilioSmsChannel
from knocktwice_worker.channels.twilio.whatsapp import TwilioWhatsappChannel
from knocktwice_worker.diagnosis import doctor
from knocktwice_worker.sandbox import Answer, Rule, Sandbox
from knocktwice_worker.sandbox.accounts import ACCOUNT_SID, AUTH_TOKEN, SENDER
from support.ports import free_port

if TYPE_CHECKING:
    from knocktwice_worker.services import Services

SERVICE = "MG" + "a" * 32


def examined(url: str, sender: str = SENDER, *, token: str = AUTH_TOKEN) -> Examination:
    return account.examine(url=url, account_sid=ACCOUNT_SID, auth_token=token, sender=sender)


@pytest.mark.parametrize("sender", [SENDER, SERVICE, "12345", f"whatsapp:{SENDER}"])
def test_an_active_account_and_a_sender_of_its_own(sandbox: Sandbox, sender: str) -> None:
    assert examined(sandbox.url, sender) == Examination(True, f"the account is active and {sender} is its own")


def test_a_name_is_not_looked_up(sandbox: Sandbox) -> None:
    assert examined(sandbox.url, "Knocktwice").works
    assert sandbox.requests("account") == 1


@pytest.mark.parametrize(
    ("sender", "finding"),
    [
        ("+15005550007", "+15005550007 is not its own"),
        ("MG" + "0" * 32, "is not its own"),
        ("whatsapp:+4915112345678", "is not registered with WhatsApp for this account"),
    ],
)
def test_a_sender_of_somebody_elses_is_named(sandbox: Sandbox, sender: str, finding: str) -> None:
    found = examined(sandbox.url, sender)
    assert not found.works
    assert found.finding.endswith(finding)


@pytest.mark.parametrize(
    ("answer", "finding"),
    [
        (Answer(error_code=20005), "Twilio 20005: "),
        (Answer(status=503), "Twilio 20503: "),
        (Answer(drop=True), "Twilio could not be asked: ConnectionError"),
    ],
    ids=["suspended", "down", "hangs up"],
)
def test_what_keeps_twilio_from_answering_is_said(sandbox: Sandbox, answer: Answer, finding: str) -> None:
    sandbox.rule(Rule("account", answer=answer))
    found = examined(sandbox.url)
    assert not found.works
    assert found.finding.startswith(finding)


def test_silence_is_not_waited_for_long(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.rule(Rule("account", answer=Answer(hang=True)))
    monkeypatch.setattr(account, "_TIMEOUT_S", 0.2)
    assert examined(sandbox.url).finding == "Twilio could not be asked: ReadTimeout"


def test_a_wrong_token_is_named_and_not_quoted(sandbox: Sandbox) -> None:
    found = examined(sandbox.url, token="made-up-token")
    assert not found.works
    assert found.finding.startswith("Twilio 20003: ")
    assert "made-up-token" not in found.finding


def test_nobody_at_the_address_is_said() -> None:
    found = examined(f"http://127.0.0.1:{free_port()}")
    assert found == Examination(False, "Twilio could not be asked: ConnectionError")


def test_another_region_in_the_environment_changes_no_address(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWILIO_EDGE", "dublin")
    monkeypatch.setenv("TWILIO_REGION", "ie1")
    assert examined(sandbox.url, SERVICE).works


def test_both_channels_ask_for_their_sender(working: Services) -> None:
    assert working.channels.usual("sms").examine().finding.endswith(f"{SENDER} is its own")
    assert working.channels.usual("whatsapp").examine().finding.endswith(f"whatsapp:{SENDER} is its own")


@pytest.mark.parametrize("channel", [TwilioSmsChannel, TwilioWhatsappChannel])
def test_without_credentials_nobody_is_asked(channel: type[TwilioSmsChannel], sandbox: Sandbox) -> None:
    nobody = channel(url=sandbox.url, account_sid=None, auth_token=None, sender=None, public_url=None, secret="test")
    with pytest.raises(CredentialsUnavailable, match="TWILIO_ACCOUNT_SID"):
        nobody.examine()
    assert sandbox.requests("account") == 0


def test_the_doctor_tells_what_twilio_says(working: Services, sandbox: Sandbox) -> None:
    sandbox.rule(Rule("account", times=1, answer=Answer(error_code=20005)))
    checks = {check.name: check for check in doctor.examine(working)}
    assert checks["sms"].level == "error"
    assert checks["sms"].finding.startswith("Twilio 20005: ")
    assert checks["whatsapp"].level == "ok"
