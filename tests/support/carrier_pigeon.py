"""A channel that nobody has: carrier pigeons, which fly to lofts. All that a channel needs is in this module.

The loft is named by the step, or else by the person's tag ``loft``. The loft keeper takes messages over HTTP as the SMS
provider of the tests does (``sms_provider.py``).
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa

from knocktwice_shared.channels import CONTENTS, Field, StepContent
from knocktwice_worker.channels import registry
from knocktwice_worker.channels.address import Address
from knocktwice_worker.channels.channel import Consent, OpenChannel, StepChannel
from knocktwice_worker.channels.http import NoResponse, Request, Response
from knocktwice_worker.channels.outcomes import Rejected, Retry, Sent, Unknown
from knocktwice_worker.channels.provider import Examination, Rate
from knocktwice_worker.lifecycle import Refusal
from support.sms_provider import TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from knocktwice_worker.channels.address import Addressee
    from knocktwice_worker.channels.channel import Wiring
    from knocktwice_worker.channels.http import Carrier
    from knocktwice_worker.channels.messages import ListedMessage, StepMessage
    from knocktwice_worker.channels.outcomes import Outcome
    from knocktwice_worker.channels.reports import Books

CONTENT = StepContent(
    channel="pigeon",
    called="Pigeon",
    fields={"text": Field(limit=140, localised=True), "loft": Field(limit=40, filled=False)},
    hint="a pigeon has text and loft",
)


class Loft:
    """The loft keeper, reached at ``url``."""

    name, provider = "pigeon", "loft"
    listable = False
    repeats_within: timedelta | None = None
    books: Books | None = None

    def __init__(self, url: str) -> None:
        self._url = url

    def authorize(self) -> None:
        """A pigeon asks nobody."""

    def authorize_callbacks(self) -> None:
        """Nor does the keeper."""

    def examine(self) -> Examination:
        """Look into the loft."""
        return Examination(works=True, finding="the pigeons are fed")

    def request(self, message: StepMessage) -> Request:
        """Tie the message to a leg."""
        body = json.dumps({"to": message.to, "text": message.text, "ref": message.intent}).encode()
        return Request(f"{self._url}/send", {"authorization": f"Bearer {TOKEN}"}, body)

    def outcome(self, answer: Response | NoResponse) -> Outcome:
        """See whether it took off."""
        if isinstance(answer, NoResponse):
            return Unknown(answer.reason) if answer.sent else Retry(answer.reason)
        if answer.status != 200:
            return Rejected("refused", str(answer.status))
        return Sent(f"loft:{json.loads(answer.body)['message']['id']}")

    def carries(self, text: str) -> bool:
        """A pigeon carries whatever is written."""
        del text
        return True

    def sender_of(self, sender: str | None) -> str | None:
        """Return the sender as it is."""
        return sender

    def pace(self, sender: str | None) -> Rate:
        """All pigeons of a loft share one hatch."""
        del sender
        return Rate("pigeon:hatch", 0)

    def list_messages(self, transport: Carrier, since: Mapping[str, datetime]) -> dict[str, list[ListedMessage]]:
        """Nobody writes down what flew."""
        del transport, since
        return {}

    def is_message(self, listed: ListedMessage, message: StepMessage) -> bool:
        """Nothing is listed."""
        del listed, message
        return False


def _lofts(conn: sa.Connection, people: Sequence[Addressee]) -> Mapping[str, str]:
    named = {person.notification_id: str(person.step["loft"]) for person in people if "loft" in person.step}
    users = [person.user for person in people if person.user and person.notification_id not in named]
    query = sa.text("SELECT id, tags ->> 'loft' AS loft FROM users WHERE id = ANY(:users) AND tags ? 'loft'")
    tagged = {row.id: row.loft for row in conn.execute(query, {"users": users})} if users else {}
    return {p.notification_id: tagged[p.user] for p in people if p.user in tagged} | named


@contextmanager
def registered(url: str) -> Iterator[None]:
    """Let there be carrier pigeons, whose keeper is at ``url``."""

    def open_(_: Wiring) -> OpenChannel:
        loft = Loft(url)
        return OpenChannel({"loft": loft}, "loft", removed=lambda _: loft, prices={"*": 0.5})

    entry = StepChannel(
        CONTENT,
        noun="pigeon",
        open=open_,
        address=Address("loft", Refusal.NO_ADDRESS, _lofts),
        consent=Consent.NONE,
        prices_setting="PIGEON_PRICES",
    )
    registry.register(entry)
    try:
        yield
    finally:
        del registry.CHANNELS[entry.name], CONTENTS[entry.name]
