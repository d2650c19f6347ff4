"""A client for an application's own tests: the same methods and the same checks, but nothing leaves the process.

from knocktwice.testing import RecordingClient

client = RecordingClient()
place_order(client)
assert client.assert_notified("u-17").push.title == "Your order is on its way"
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knocktwice import wire
from knocktwice.client import Client
from knocktwice_shared.messages import (
    ConsentSet,
    DeviceRegistered,
    DeviceUnregistered,
    LoggedOutEverywhere,
    OptOutSet,
    PhoneBound,
    TagsSet,
    UserErased,
    parse_audience,
    parse_batch,
    parse_blast,
    parse_cancellation,
    parse_receipts,
)
from knocktwice_shared.names import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from knocktwice.envelope import Outgoing
    from knocktwice.keys import Use
    from knocktwice_shared.messages import (
        AudienceChange,
        Batch,
        Blast,
        Cancellation,
        Push,
        ReceiptEvent,
        Recipient,
        Step,
        TagValue,
    )


@dataclass(frozen=True, slots=True)
class Notification:
    """One person's part of what was sent: ``recipient``, and the ``batch`` it travelled in."""

    recipient: Recipient
    batch: Batch

    @property
    def id(self) -> UUID | None:
        """The notification's id, as ``notify`` returned it."""
        return self.recipient.id

    @property
    def push(self) -> Push:
        """The push, with its placeholders not filled in. Fails where a template has it."""
        if self.batch.push is None and self.batch.template is None:
            raise AssertionError("there is no push, only an SMS; look at batch.sms_text")
        if self.batch.push is None:
            raise AssertionError(f"the push is the template's, {self.batch.template}; look at template and params")
        return self.batch.push

    @property
    def template(self) -> str | None:
        """The template's name, or ``None`` if the application gave the texts itself."""
        return self.batch.template

    @property
    def sms(self) -> Step | None:
        """When the SMS follows, or ``None`` if none does or a template says. Its text is ``batch.sms_text``."""
        return self.batch.plan[0] if self.batch.plan else None


class RecordingClient(Client):
    """Records what a :class:`knocktwice.Client` would send, decoded from the JSON that would have travelled.

    As with the real one, a repeated ``key`` returns the first id and notifies nobody.

    Attributes:
        notifications: one for each person and call, in order; an id is recorded once.
        receipts: what was reported as delivered, clicked or seen.
        cancelled: what was cancelled.
        blasts: one for each key, in order.
        changes: devices, numbers, tags and consent as they were set and removed, in order.

    Args:
        project, test: as of :class:`knocktwice.Client`.
    """

    def __init__(self, *, project: str | None = None, test: bool = False) -> None:
        self._project = wire.side(project, test=test)
        # Not super().__init__(): that looks for a broker.
        self._broker = _Recorder(self)
        self.clear()

    def clear(self) -> None:
        """Forget everything recorded, keys too."""
        self.notifications: list[Notification] = []
        self.receipts: list[ReceiptEvent] = []
        self.cancelled: list[Cancellation] = []
        self.changes: list[AudienceChange] = []
        self.blasts: list[Blast] = []
        self._keys: dict[str, Use] = {}

    @property
    def devices(self) -> dict[str, DeviceRegistered]:
        """The devices registered now, by registration."""
        now: dict[str, DeviceRegistered] = {}
        for change in self.changes:
            if isinstance(change, DeviceRegistered):
                now[change.registration] = change
            elif isinstance(change, DeviceUnregistered):
                device = now.get(change.registration)
                if device is not None and change.user in (None, device.user):
                    del now[change.registration]
            elif isinstance(change, UserErased | LoggedOutEverywhere):
                now = {name: device for name, device in now.items() if device.user != change.user}
        return now

    @property
    def phones(self) -> dict[str, str]:
        """The numbers bound now, by user."""
        bound: dict[str, str | None] = {}
        for change in self.changes:
            if isinstance(change, PhoneBound):
                bound[change.user] = change.phone
            elif isinstance(change, UserErased):
                bound.pop(change.user, None)
        return {user: phone for user, phone in bound.items() if phone is not None}

    @property
    def tags(self) -> dict[str, dict[str, TagValue]]:
        """The tags set now, by user and name."""
        now: dict[str, dict[str, TagValue]] = {}
        for change in self.changes:
            if isinstance(change, TagsSet):
                merged = now.get(change.user, {}) | dict(change.tags)
                now[change.user] = {name: value for name, value in merged.items() if value is not None}
            elif isinstance(change, UserErased):
                now.pop(change.user, None)
        return now

    @property
    def consents(self) -> dict[str, str]:
        """User → the place of the consent, for all users who agree to marketing now."""
        now: dict[str, str] = {}
        for change in self.changes:
            if isinstance(change, ConsentSet) and change.marketing:
                now[change.user] = change.source
            elif isinstance(change, ConsentSet | UserErased):
                now.pop(change.user, None)
        return now

    @property
    def opt_outs(self) -> dict[str, str]:
        """Number → who says so, for all numbers that must not be texted now over any channel."""
        now: dict[str, str] = {}
        for change in self.changes:
            if not isinstance(change, OptOutSet) or change.channel is not None:
                continue
            if change.opted_out:
                now.setdefault(change.phone, change.source)
            else:
                now.pop(change.phone, None)
        return now

    def assert_notified(self, user: str) -> Notification:
        """Return the last notification for ``user``, or fail saying who was notified instead."""
        for notification in reversed(self.notifications):
            if notification.recipient.user == user:
                return notification
        others = sorted({n.recipient.user for n in self.notifications if n.recipient.user is not None})
        raise AssertionError(f"{user} was not notified; notified: {', '.join(others) or 'nobody'}")

    def assert_nobody_notified(self) -> None:
        """Fail if anybody was notified."""
        if self.notifications:
            raise AssertionError(f"{len(self.notifications)} notifications were sent")


class _Recorder:
    """The broker of a :class:`RecordingClient`."""

    def __init__(self, client: RecordingClient) -> None:
        self._client = client

    def claim_keys(self, proposals: Mapping[str, Use]) -> dict[str, Use]:
        return {key: self._client._keys.setdefault(key, use) for key, use in proposals.items()}

    def accept(self, messages: Iterable[Outgoing]) -> None:
        for message in messages:
            self._record(message.task, json.loads(message.message))

    def close(self) -> None:
        pass

    def _record(self, task: Task, wire: object) -> None:
        client = self._client
        if task is Task.SEND_PUSH:
            batch, known = parse_batch(wire), {n.id for n in client.notifications}
            for recipient in batch.recipients:
                if recipient.id not in known:
                    known.add(recipient.id)
                    client.notifications.append(Notification(recipient, batch))
        elif task is Task.RECORD_EVENTS:
            client.receipts.extend(parse_receipts(wire))
        elif task is Task.CANCEL:
            client.cancelled.append(parse_cancellation(wire))
        elif task is Task.BLAST:
            blast = parse_blast(wire)
            if blast.key not in {b.key for b in client.blasts}:
                client.blasts.append(blast)
        else:
            client.changes.extend(parse_audience(wire))
