"""Examines whether the account at Twilio can send and owns the sender, with Twilio's SDK, for ``knocktwice doctor``.

Sending has its own fast HTTP engine. An examination is rare and made for a person, and the SDK knows the resources that
it needs. The SDK takes a second to load, so it is loaded at the first examination.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from knocktwice_worker.channels.provider import Examination

if TYPE_CHECKING:
    from twilio.rest import Client

#: The longest wait for one of Twilio's answers (seconds). An examination makes two requests at most, so it takes twice
#: this time.
_TIMEOUT_S = 5
_SERVICE = re.compile("MG[0-9a-zA-Z]{32}")
_NUMBER = re.compile(r"\+[0-9]{6,15}")
_SHORT_CODE = re.compile("[0-9]{3,6}")
_WHATSAPP = "whatsapp:"
_NOT_FOUND = 404


def examine(*, url: str, account_sid: str, auth_token: str, sender: str) -> Examination:
    """Ask Twilio for the account and for the sender. Problems are returned, not raised.

    Args:
        url: Twilio's address; another region's or the sandbox's.
        account_sid, auth_token: the account.
        sender: a number in E.164, also with the prefix ``whatsapp:``, a short code, a name, or a Messaging Service
            (``MG…``).
    """
    from requests.exceptions import RequestException
    from twilio.base.exceptions import TwilioException, TwilioRestException
    from twilio.http.http_client import TwilioHttpClient

    http = TwilioHttpClient(timeout=_TIMEOUT_S)
    try:
        client = _client(url, account_sid, auth_token, http)
        return _account(client, account_sid) or _sender(client, sender)
    except TwilioRestException as error:
        code = f"Twilio {error.code}: {error.msg}; see https://www.twilio.com/docs/errors/{error.code}"
        return Examination(False, code if error.code else f"Twilio answered {error.status}")
    except RequestException as error:
        return Examination(False, f"Twilio could not be asked: {type(error).__name__}")
    except (TwilioException, ValueError, TypeError, KeyError) as error:
        # The server at this address is not Twilio's.
        return Examination(False, f"Twilio's answer could not be read: {type(error).__name__}")
    finally:
        if http.session is not None:
            http.session.close()


def _client(url: str, account_sid: str, auth_token: str, http: object) -> Client:
    from twilio.rest import Client

    # The configured address decides, so TWILIO_EDGE and TWILIO_REGION in the environment must not change it.
    client = Client(account_sid, auth_token, http_client=http, environment={"TWILIO_EDGE": ""})
    client.api.base_url = url.rstrip("/")
    client.messaging.base_url = client.api.base_url.replace("://api.", "://messaging.", 1)
    return client


def _account(client: Client, account_sid: str) -> Examination | None:
    """Return the problem that keeps the account from sending, or ``None``."""
    account = client.api.accounts(account_sid).fetch()
    if account.status != "active":
        return Examination(False, f"the account is {account.status}; see https://console.twilio.com")
    return None


def _sender(client: Client, sender: str) -> Examination:
    if _SERVICE.fullmatch(sender):
        return _service(client, sender)
    if sender.startswith(_WHATSAPP):
        return _whatsapp(client, sender)
    if _NUMBER.fullmatch(sender):
        return _number(client, sender)
    if _SHORT_CODE.fullmatch(sender):
        found = client.short_codes.list(short_code=sender, limit=1)
        return _own(sender) if found else _foreign(sender)
    return Examination(True, f"the account is active; Twilio keeps no list of names, so {sender} is not checked")


def _service(client: Client, sid: str) -> Examination:
    from twilio.base.exceptions import TwilioRestException

    try:
        service = client.messaging.v1.services(sid).fetch()
    except TwilioRestException as error:
        if error.status != _NOT_FOUND:
            raise
        return _foreign(sid)
    if service.us_app_to_person_registered:
        return _own(sid)
    return Examination(
        True, f"{_own(sid).finding}; it is not registered to text numbers in the United States (A2P 10DLC)"
    )


def _number(client: Client, number: str) -> Examination:
    found = client.incoming_phone_numbers.list(phone_number=number, limit=1)
    if not found:
        return _foreign(number)
    if not (found[0].capabilities or {}).get("sms"):
        return Examination(False, f"{number} is the account's but cannot send SMS")
    return _own(number)


def _whatsapp(client: Client, sender: str) -> Examination:
    for one in client.messaging.v2.channels_senders.list(channel="whatsapp"):
        if one.sender_id == sender:
            return (
                _own(sender) if one.status == "ONLINE" else Examination(False, f"WhatsApp has {sender} as {one.status}")
            )
    return Examination(False, f"{sender} is not registered with WhatsApp for this account")


def _own(sender: str) -> Examination:
    return Examination(True, f"the account is active and {sender} is its own")


def _foreign(sender: str) -> Examination:
    return Examination(False, f"the account is active, but {sender} is not its own")
