"""The client: what an application calls.

Every call checks its input with the contract's own validator before anything leaves the process, and returns once the
broker has accepted the message. Sending happens in the workers.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from knocktwice import address, wire
from knocktwice.broker import KombuBroker
from knocktwice.envelope import Outgoing
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import (
    Category,
    Receipt,
    ReceiptEvent,
    Recipient,
    parse_audience,
    parse_batch,
    parse_cancellation,
    parse_receipts,
)
from knocktwice_shared.names import BATCH_LIMIT, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta
    from typing import Any, Self

    from knocktwice.broker import Broker
    from knocktwice.content import Sms
    from knocktwice_shared.messages import Platform, Push

_T = TypeVar("_T")


class Client:
    """Knocks at people's phones. Make one per process and keep it; threads may share it, and it survives a fork.

    Nothing connects before the first call.

    Args:
        broker_url: ``redis://``, ``rediss://``, ``redis+socket:///path``, ``sentinel://…?master_name=…`` or ``amqp(s)://``;
            left out, ``KNOCKTWICE_BROKER_URL`` or the file that ``KNOCKTWICE_BROKER_URL_FILE`` names.
        timeout: seconds the broker gets for each exchange. A call takes about twice that at most.

    Raises:
        KnocktwiceError: no broker is named, or its URL is not one.
    """

    _broker: Broker

    def __init__(self, broker_url: str | None = None, *, timeout: float = 5.0) -> None:
        self._broker = KombuBroker(address.find(broker_url), timeout)

    def notify(
        self,
        *,
        user: str | None = None,
        registrations: Sequence[str] = (),
        phone: str | None = None,
        push: Push,
        sms: Sms | None = None,
        params: Mapping[str, Any] | None = None,
        key: str | None = None,
        category: Category | str = Category.TRANSACTIONAL,
        ttl: timedelta | None = None,
        reference: Mapping[str, Any] | None = None,
    ) -> UUID:
        """Knock for one person: push now, and an SMS later if ``sms`` asks for one and its condition holds.

        Args:
            user: a person whose devices and number were registered before; or else
            registrations: FCM registration tokens or FIDs, and
            phone: the number for the SMS in E.164.
            push: what the push shows.
            sms: what follows it, when and why; ``None``: nothing does.
            params: values for ``{{ name }}`` in the texts.
            key: idempotency key, at most 200 characters. A repeat with the same key notifies nobody again and returns the
                first call's id, for 7 days. After that, and always on RabbitMQ, a repeat still notifies nobody (PostgreSQL
                has the last word), but the id it returns is a new one that nothing is stored under.
            category: decides consent and quiet hours.
            ttl: how long the push may wait for its device, up to 28 days.
            reference: your own ids, up to 4 KB of JSON, handed back in reports.

        Returns:
            The notification's id.

        Raises:
            InvalidMessage: an argument is wrong; it is named. Nothing was sent.
            BrokerUnavailable: call again with the same ``key``.
        """
        person = Recipient(user, registrations, phone, {} if params is None else params, key)
        shared = {"push": push, "sms": sms, "category": category, "ttl": ttl, "reference": reference}
        return self._send(_draft_batch([person], wire.one("recipient"), **shared))[0]

    def notify_many(
        self,
        recipients: Iterable[Recipient | str],
        *,
        push: Push,
        sms: Sms | None = None,
        category: Category | str = Category.TRANSACTIONAL,
        ttl: timedelta | None = None,
        reference: Mapping[str, Any] | None = None,
    ) -> list[UUID]:
        """Knock for any number of people with the same content, each with their own ``params`` and ``key``.

        A list (or any sized collection) is checked as a whole before anything is sent. A generator is sent as it goes, 500
        at a time, so it may be longer than memory; an error then leaves what came before it sent.

        Args:
            recipients: recipients, or user ids as text.

        Returns:
            The notifications' ids, in order.

        Raises:
            InvalidMessage: an argument is wrong; a recipient is named by its place, like ``recipients[3].phone``.
            BrokerUnavailable: some may have been accepted. Recipients with a ``key`` or ``id`` can be sent again safely.
        """
        shared = {"push": push, "sms": sms, "category": category, "ttl": ttl, "reference": reference}
        drafts = _batches(recipients, "recipients", lambda some, words: _draft_batch(some, words, **shared))
        return [id_ for draft in drafts for id_ in self._send(draft)]

    def record_delivered(
        self, notification_id: UUID | str, *, registration: str | None = None, at: datetime | None = None
    ) -> None:
        """Report that a device received a push.

        Args:
            notification_id: the push's ``knocktwice_id``.
            registration: which device, if known.
            at: when, with a time zone; left out, now.

        Raises:
            InvalidMessage: an argument is wrong; it is named.
            BrokerUnavailable: call again; repeats change nothing.
        """
        self._record(Receipt.DELIVERED, notification_id, registration, at)

    def record_clicked(
        self, notification_id: UUID | str, *, registration: str | None = None, at: datetime | None = None
    ) -> None:
        """Report that a person opened a push. Arguments and errors as for :meth:`record_delivered`."""
        self._record(Receipt.CLICKED, notification_id, registration, at)

    def record_receipts(self, events: Iterable[ReceiptEvent]) -> None:
        """Report any number of receipts at once. Errors as for :meth:`record_delivered`."""
        ...
