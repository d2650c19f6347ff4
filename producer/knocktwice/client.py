"""The client: what an application calls.

Every call checks its input with the contract's own validator before anything leaves the process, and returns once the
broker has accepted the message, as safely as the client's ``durability`` says. Sending happens in the workers.

The calls about people, such as ``register_device`` and ``opt_out``, are in ``audience.py``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from knocktwice import address, drafts, wire
from knocktwice.audience import AudienceCalls
from knocktwice.broker import KombuBroker
from knocktwice.durability import asked
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import Receipt, ReceiptEvent, Recipient
from knocktwice_shared.names import BATCH_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta
    from typing import Any, Literal, Self
    from uuid import UUID

    from knocktwice.broker import Broker
    from knocktwice.content import LaterStep, Sms
    from knocktwice.drafts import Draft
    from knocktwice.keys import NotificationId
    from knocktwice.routing import Router
    from knocktwice_shared.durability import Durability
    from knocktwice_shared.messages import Category, LocalTime, Push

    Rewording = Callable[[Callable[[str], str]], Callable[[str], str]]

_T = TypeVar("_T")


class Client(AudienceCalls):
    """Knocks at people's phones. Make one per process and keep it; threads may share it, and it survives a fork.

    Nothing connects before the first call.

    Args:
        broker_url: ``redis://``, ``rediss://``, ``redis+socket:///path``, ``sentinel://…?master_name=…`` or
            ``amqp(s)://``; left out, the file that ``KNOCKTWICE_BROKER_URL_FILE`` names, or ``KNOCKTWICE_BROKER_URL``,
            or, in development, the broker of a ``knocktwice up`` that was started in the working folder or one above
            it.
        state_url: with RabbitMQ as the broker, the workers' Redis or Valkey, where messages are accepted; left out, the
            file that ``KNOCKTWICE_STATE_URL_FILE`` names, or ``KNOCKTWICE_STATE_URL``.
        timeout: seconds the broker gets for each exchange. A call takes about twice that at most.
        durability: what "accepted" means when a call returns, as :class:`Durability` or its text: ``memory`` (a crash
            of the broker may lose the last two seconds), ``disk`` (it is in the broker's append-only file on disk), or
            ``replica`` (``replicas`` of the broker's replicas have it). Left out, ``KNOCKTWICE_DURABILITY``, or
            ``memory``. For "committed with my own transaction" see :mod:`knocktwice.outbox`.
        replicas: how many replicas, at the level ``replica``; left out, ``KNOCKTWICE_DURABILITY_REPLICAS``, or 1.
        project: the application to which all that this client sends belongs; keys are its own, and :meth:`cancel` stops
            nothing else. Left out: to none.
        cells: the path of the file of cells, among which people are shared out; left out, ``KNOCKTWICE_CELLS_FILE``.
            Not asked for where ``broker_url`` is given.
        test: everything is done but the provider's call, and ``knocktwice explain`` says what would have been sent.
            What is said of people beside a notification is checked and not remembered, and methods that change people
            are refused.

    Raises:
        InvalidMessage: the project's name is none.
        KnocktwiceError: no broker is named and no local stack runs, the URL is not one, there is no such level, or the
            file of cells is wrong.
    """

    _broker: Broker
    _router: Router | None = None

    def __init__(
        self,
        broker_url: str | None = None,
        *,
        state_url: str | None = None,
        timeout: float = 5.0,
        durability: Durability | str | None = None,
        replicas: int | None = None,
        project: str | None = None,
        test: bool = False,
        cells: str | os.PathLike[str] | None = None,
    ) -> None:
        self._project = wire.side(project, test=test)
        if not broker_url and (listed := cells or os.environ.get("KNOCKTWICE_CELLS_FILE")):
            # Imported here, because applications without cells need none of it.
            from knocktwice.routing import routed

            self._router = routed(listed, timeout, asked(durability, replicas))
        else:
            self._broker = KombuBroker(address.find(broker_url, state_url), timeout, asked(durability, replicas))

    def notify(
        self,
        *,
        user: str | None = None,
        registrations: Sequence[str] = (),
        phone: str | None = None,
        push: Push | Literal[False] | None = None,
        template: str | None = None,
        sms: Sms | Literal[False] | None = None,
        steps: Sequence[LaterStep] | None = None,
        params: Mapping[str, Any] | Sequence[Any] | None = None,
        locale: str | None = None,
        tags: Mapping[str, Any] | None = None,
        key: str | None = None,
        category: Category | str | None = None,
        ttl: timedelta | None = None,
        reference: Mapping[str, Any] | None = None,
        send_at: datetime | LocalTime | None = None,
        valid_for: timedelta | None = None,
        default_locale: str | None = None,
    ) -> NotificationId:
        """Knock for one person: push now, and an SMS later if ``sms`` asks for one and its condition holds.

        What to say is either ``push`` (and the text of ``sms``) or a ``template``, which operators keep in the system
        (``knocktwice apply``). Only workers know the templates: a wrong name or a missing parameter is no error here,
        but a notification that ends as ``failed`` and says why.

        Args:
            user: your own id of a person whose devices and number are known, or said here; or else, of somebody who is
                not stored,
            registrations: FCM registration tokens or FIDs, and
            phone: the number for the SMS in E.164. Beside ``user`` both are remembered of that person before anything
                is sent, as :meth:`register_device` and :meth:`bind_phone` do. Without ``user``, a registration that
                belongs to a registered device is that device: if it shows no notifications it is not pushed to, and
                without ``phone`` its owner is notified.
            push: what the push shows; left out, the first of the steps goes at once; or else
            template: the name of a template. ``push=False`` with a template pushes nothing: its SMS goes at once.
            sms: what follows it, when and why; ``None``: nothing does, or what the template says; ``False``: nothing
                does, whatever the template says. With a template it has no text. An ``Sms`` alone, without ``push`` and
                ``template``, is all that is sent, at once, whatever its ``when`` and ``after``.
            steps: instead of ``sms``, any number of steps, each following the one before it, like
                ``[Sms("Your table is ready."), Sms("Last call.", when="not_clicked")]``; other channels have steps,
                too.
            params: values for ``{{ name }}`` in the texts; for ``{1}``, ``{2}`` of a template, a list.
            locale: like ``de-AT``: the language of a template's texts, and of texts by language; left out, that of the
                user's devices.
            tags: remembered of ``user``, as :meth:`tag_user` does.
            key: idempotency key, at most 200 characters. A repeat with the same key notifies nobody again and returns
                the first call's id, for 7 days. After that a repeat still notifies nobody (PostgreSQL has the last
                word), but the id it returns is a new one, of a notification that ended as a duplicate.
            category: decides consent and quiet hours; left out, ``transactional``, or the template's.
            ttl: how long the push may wait for its device, up to 28 days.
            valid_for: how long after it was due the push, and each message behind it, is still of use, 1 second to 30
                days. What is held up for longer is not sent any more, and providers are told. Left out, the template's,
                or the category's setting: half an hour for ``critical``, a day for others.
            reference: your own ids, up to 4 KB of JSON, handed back in reports.
            send_at: when it goes out: a ``datetime`` with a zone, or ``LocalTime(...)``, the clock on the wall of
                whoever it is for (the zone of their device, else the user's, else that of their number). Left out, or
                past: now. What is late in coming can be cancelled. Delays count from then.
            default_locale: the language of people of any other or an unknown one, where ``push``, ``sms`` or ``steps``
                are by language, like ``Push({"en": "Your order", "de": "Ihre Bestellung"}, …)``; left out, ``en`` if it
                is one of them. With a template it is the template's own.

        Returns:
            The notification's id: a UUID whose ``duplicate`` says whether the ``key`` was used before, and whose
            ``differs`` whether for something else.

        Raises:
            InvalidMessage: an argument is wrong; it is named. Nothing was sent.
            BrokerUnavailable: call again with the same ``key``. Two kinds of it say more: ``NotConfirmed``, the broker
                has the message but not as safely as ``durability`` asks, and ``QueueFull``, it has no room.
        """
        values = {} if params is None else params
        person = Recipient(user, registrations, phone, values, key, locale=locale, tags=tags)
        shared = wire.Shared(
            push, sms, category, ttl, reference, template, send_at, steps, valid_for, default_locale, self._project
        )
        with wire.in_callers_words(wire.with_steps(wire.one("recipient"), shared)):
            draft = drafts.notifications([person], shared)
        return self._send([draft])[0]

    def notify_many(
        self,
        recipients: Iterable[Recipient | str],
        *,
        push: Push | Literal[False] | None = None,
        template: str | None = None,
        sms: Sms | Literal[False] | None = None,
        steps: Sequence[LaterStep] | None = None,
        category: Category | str | None = None,
        ttl: timedelta | None = None,
        reference: Mapping[str, Any] | None = None,
        send_at: datetime | LocalTime | None = None,
        valid_for: timedelta | None = None,
        default_locale: str | None = None,
    ) -> list[UUID]:
        """Knock for any number of people with the same content, each with their own ``params``, ``locale`` and ``key``.

        A list (or any sized collection) is checked as a whole before anything is sent. A generator is sent as it goes,
        500 at a time, so it may be longer than memory; an error then leaves what came before it sent.

        Args:
            recipients: recipients, or user ids as text.

        Returns:
            The notifications' ids, in order. Each is a :class:`NotificationId`, as that of :meth:`notify`.

        Raises:
            InvalidMessage: an argument is wrong; a recipient is named by its place, like ``recipients[3].phone``.
            BrokerUnavailable: some may have been accepted. Who has a ``key`` or an ``id`` can be sent again safely.
        """
        shared = wire.Shared(
            push, sms, category, ttl, reference, template, send_at, steps, valid_for, default_locale, self._project
        )
        words = partial(wire.with_steps, shared=shared)
        if self._router is not None:
            recipients = self._router.placed(recipients)
        return self._send_many("recipients", recipients, lambda some: drafts.notifications(some, shared), words)

    def blast(
        self,
        segment: str | Mapping[str, Any],
        *,
        key: str,
        template: str | None = None,
        push: Push | Literal[False] | None = None,
        sms: Sms | Literal[False] | None = None,
        steps: Sequence[LaterStep] | None = None,
        params: Mapping[str, Any] | Sequence[Any] | None = None,
        category: Category | str | None = None,
        ttl: timedelta | None = None,
        reference: Mapping[str, Any] | None = None,
        send_at: datetime | LocalTime | None = None,
        valid_for: timedelta | None = None,
        default_locale: str | None = None,
        throttle_per_min: int | None = None,
    ) -> UUID:
        """Knock for everybody in a segment, once.

        Who belongs is decided when a worker takes the blast up. Only workers know segments and templates: with a wrong
        name, or a parameter that is missing, nobody is notified; the message is parked and the key stays free.

        Args:
            segment: the name of a saved segment, or a filter as a mapping.
            key: at most 200 characters. The same key never fires twice, however often and whenever it is called.
            template, push, sms, steps, category, ttl, reference, send_at, valid_for, default_locale: as of
                :meth:`notify`.
            params: values for the texts, the same for all.
            throttle_per_min: most people in any minute; left out, as fast as it goes.

        Returns:
            The blast's id, the same for the same key. Whether the key was used before only a worker knows: over HTTP,
            ``POST /v1/blasts`` says so at once.

        Raises:
            InvalidMessage: an argument is wrong; it is named. Nothing was sent.
            BrokerUnavailable: call again with the same ``key``.
        """
        shared = wire.Shared(
            push, sms, category, ttl, reference, template, send_at, steps, valid_for, default_locale, self._project
        )
        with wire.in_callers_words(wire.with_steps(wire.one("blast"), shared)):
            draft = drafts.blast(wire.blast(segment, shared, key=key, params=params, throttle_per_min=throttle_per_min))
        return self._send([draft])[0]

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

    def record_seen(
        self, notification_id: UUID | str, *, registration: str | None = None, at: datetime | None = None
    ) -> None:
        """Report that a person has seen elsewhere what a notification says: inside the app, on another device, in an
        e-mail.

        It stops the SMS as a click does. Arguments and errors as for :meth:`record_delivered`.
        """
        self._record(Receipt.SEEN, notification_id, registration, at)

    def record_receipts(self, events: Iterable[ReceiptEvent]) -> None:
        """Report any number of receipts, in the way of :meth:`notify_many`."""
        self._send_many("receipts", events, drafts.receipts)

    def cancel(self, *ids: UUID | str, key: str | None = None, blast: str | None = None) -> None:
        """Stop notifications: a push not sent yet is not sent, an SMS not sent yet never is.

        Args:
            ids: notification ids.
            key: a notification's idempotency key, for callers that did not keep the id.
            blast: a blast's key: nobody else is notified, and those who were get no SMS any more.

        Raises:
            InvalidMessage: none is given, or one is wrong.
            BrokerUnavailable: call again; repeats change nothing.
        """
        keys = () if key is None else (key,)
        blasts = () if blast is None else (blast,)
        # Most calls name a few; without an id there is still one message, for the key or for the complaint.
        if len(ids) <= BATCH_LIMIT:
            with wire.in_callers_words(wire.many(0)):
                draft = drafts.cancellation(ids, keys, blasts, self._project)
            self._send([draft])
        else:
            self._send_many("ids", ids, lambda some: drafts.cancellation(some, keys, blasts, self._project))

    def close(self) -> None:
        """Close the connection. A later call opens another."""
        (self._router or self._broker).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _record(self, kind: Receipt, id_: UUID | str, registration: str | None, at: datetime | None) -> None:
        with wire.in_callers_words(wire.one("receipt", notification="notification_id")):
            draft = drafts.receipt(kind, id_, registration=registration, at=at)
        self._send([draft])

    def _send_many(
        self, name: str, items: Iterable[_T], draft: Callable[[Sequence[_T]], Draft], words: Rewording = lambda w: w
    ) -> list[UUID]:
        """Draft and send many, ``BATCH_LIMIT`` to a message. A sized collection is checked whole before any is sent."""
        if isinstance(items, str | bytes) or not isinstance(items, Iterable):
            raise InvalidMessage(name, "must be several, in a list; for one there is a method of its own")
        made = _drafts(items, draft, words)
        if isinstance(items, Collection):
            ready = list(made)
            drafts.refuse_repeated({place: key for n, one in enumerate(ready) for place, key in one.keys_from(n)})
            return [*self._send(ready)]
        return [id_ for one in made for id_ in self._send([one])]

    def _send(self, ready: Sequence[Draft]) -> list[NotificationId]:
        """Send drafts and return their ids. For a key that was used before it is the id of the first call."""
        if self._router is not None:
            return self._router.send(ready)
        proposals = {key: use for draft in ready for key, use in draft.proposals().items()}
        if proposals:
            first = self._broker.claim_keys(proposals)
            for draft in ready:
                draft.adopt(first)
        self._broker.accept(message for draft in ready for message in draft.outgoing())
        return [id_ for draft in ready for id_ in draft.results()]


def _drafts(items: Iterable[_T], draft: Callable[[Sequence[_T]], Draft], words: Rewording) -> Iterator[Draft]:
    rest, count = iter(items), 0
    while some := list(islice(rest, BATCH_LIMIT)):
        with wire.in_callers_words(words(wire.many(count))):
            made = draft(some)
        made.seal()
        yield made
        count += len(some)
