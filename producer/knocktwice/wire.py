"""From the application's words to the contract's JSON, and the contract's complaints back into the application's words.

Nothing is judged here: whatever the application gave is written down as it is, and ``parse_*`` judges it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from knocktwice.channels import STEPS
from knocktwice.content import LaterStep, Sms
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7_texts
from knocktwice_shared.messages import PUSH_FIELDS, LocalTime, Push, ReceiptEvent, Recipient, checks
from knocktwice_shared.names import VERSION
from knocktwice_shared.test_side import side_of_tests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Literal
    from uuid import UUID

    from knocktwice_shared.messages import Category

Wire = dict[str, Any]
_T = TypeVar("_T")
#: The kinds of steps, for an error message.
_STEPS = [step.__name__ for step in STEPS.values()]

_INDEX = re.compile(r"\b(recipients|receipts|ids)\[(\d+)\]")
_ALONE = re.compile(r"\b(?:recipients|receipts|changes)\[0\]\.?")
_WORDS = (
    ("content.template", "template"),
    ("content.push", "push"),
    ("content.sms", "sms"),
    ("content.default_locale", "default_locale"),
    ("plan[0].after_s", "sms.after"),
    ("plan[0].when", "sms.when"),
    ("plan[0].sender", "sms.sender"),
    ("plan[0].text", "sms.text"),
    ("plan[0].media", "sms.media"),
    ("ttl_s", "ttl"),
    ("valid_for_s", "valid_for"),
    ("keys[0]", "key"),
    ("blasts[0]", "blast"),
)


@dataclass(frozen=True, slots=True)
class Shared:
    """The fields that all recipients of a call share. For their meaning, see :meth:`knocktwice.Client.notify`."""

    push: Push | Literal[False] | None
    sms: Sms | Literal[False] | None
    category: Category | str | None
    ttl: timedelta | None
    reference: Mapping[str, Any] | None
    template: str | None = None
    send_at: datetime | LocalTime | None = None
    steps: Sequence[LaterStep] | None = None
    valid_for: timedelta | None = None
    default_locale: str | None = None
    project: str | None = None

    @property
    def alone(self) -> bool:
        """Whether there is no push, so that the first step goes at once."""
        return not self.push and self.template is None


def side(project: str | None, *, test: bool) -> str | None:
    """Return to whom belongs what a client sends.

    Raises:
        InvalidMessage: the project's name is none.
    """
    named = None if project is None else checks.project(project)
    return side_of_tests(named) if test else named


def batch(recipients: Sequence[Recipient | str], shared: Shared) -> Wire:
    """Write down a ``send_push`` message."""
    message: Wire = {
        "v": VERSION,
        "id": uuid7_texts(1)[0],
        "content": {},
        "recipients": [
            _recipient(r, i, id_)
            for i, (r, id_) in enumerate(zip(recipients, uuid7_texts(len(recipients)), strict=True))
        ],
    }
    if shared.template is not None:
        message["content"]["template"] = shared.template
    if shared.push is not None and shared.push is not False:
        message["content"]["push"] = _push(_of_type(Push, shared.push, "push"))
    if shared.category is not None:
        message["category"] = shared.category
    _follow(message, shared)
    if shared.default_locale is not None:
        message["content"]["default_locale"] = shared.default_locale
    if shared.send_at is not None:
        message["send_at"] = send_at(shared.send_at)
    if shared.ttl is not None:
        message["ttl_s"] = _of_type(timedelta, shared.ttl, "ttl").total_seconds()
    if shared.valid_for is not None:
        message["valid_for_s"] = _of_type(timedelta, shared.valid_for, "valid_for").total_seconds()
    if shared.reference is not None:
        message["reference"] = _plain(shared.reference)
    if shared.project is not None:
        message["project"] = shared.project
    return message


def _follow(message: Wire, shared: Shared) -> None:
    """Write down what follows the push, or goes instead of it: the SMS, or the steps."""
    if shared.sms and shared.steps is not None:
        raise InvalidMessage("steps", "stands beside sms; give one or the other")
    if shared.push is False:
        if shared.sms is False:
            raise InvalidMessage("sms", "is False and so is push; leave one of the two to be sent")
        if shared.template is not None:
            message["only"] = "sms"
    if shared.sms is False:
        message["plan"] = []
    elif shared.sms is not None:
        sms = _of_type(Sms, shared.sms, "sms")
        if "only" not in message:
            message["plan"] = [_step(replace(sms, text=None), alone=shared.alone)]
        elif sms.media:
            raise InvalidMessage("sms.media", "is the template's own where nothing but its SMS goes; leave it out")
        if sms.text is not None:
            message["content"]["sms"] = {"text": _plain(sms.text)}
    if shared.steps is not None:
        message["plan"] = _steps(shared.steps, alone=shared.alone)


def receipts(parts: Sequence[Wire]) -> Wire:
    """Write down a ``record_events`` message."""
    return {"v": VERSION, "receipts": list(parts)}


def receipt(kind: str, notification: UUID | str, registration: str | None, at: str) -> Wire:
    """Write down one receipt."""
    fields: Wire = {"notification": str(notification), "kind": kind, "at": at}
    if registration is not None:
        fields["registration"] = registration
    return fields


def receipt_of(event: ReceiptEvent, index: int) -> Wire:
    """Write down a receipt that the application made, the ``index``-th of its message."""
    _of_type(ReceiptEvent, event, f"receipts[{index}]")
    fields = receipt(event.kind, event.notification, event.registration, moment(event.at, f"receipts[{index}].at"))
    return fields | {"step": event.step} if event.step else fields


def blast(segment: str | Mapping[str, Any], shared: Shared, **own: object) -> Wire:
    """Write down a ``blast`` message; ``own`` fields that are ``None`` are left out."""
    message = batch((), shared)
    del message["id"], message["recipients"]
    message["segment" if isinstance(segment, str) else "filter"] = _plain(segment)
    return message | {name: _listed(_plain(value)) for name, value in own.items() if value is not None}


def cancellation(
    ids: Sequence[UUID | str], keys: Sequence[str], blasts: Sequence[str] = (), project: str | None = None
) -> Wire:
    """Write down a ``cancel`` message."""
    message: Wire = {"v": VERSION, "ids": [str(i) for i in ids], "keys": list(keys)}
    if blasts:
        message["blasts"] = list(blasts)
    return message if project is None else message | {"project": project}


def audience(change: str, **fields: object) -> Wire:
    """Write down an ``update_audience`` message with one change that holds from now on."""
    return {"v": VERSION, "changes": [{"change": change, "at": moment(None), **fields}]}


def tags(values: object) -> object:
    """Write down tags; lists in them may be any sequence or set."""
    plain = _plain(values)
    if not isinstance(plain, dict):
        return plain
    return {name: list(v) if isinstance(v, list | tuple | set | frozenset) else v for name, v in plain.items()}


def moment(at: datetime | None, field: str = "at") -> str:
    """Write down a time; ``None`` is now."""
    return _of_type(datetime, datetime.now(UTC) if at is None else at, field).isoformat()


@contextmanager
def in_callers_words(words: Callable[[str], str]) -> Iterator[None]:
    """Rename the contract's fields in an error to what the caller typed."""
    try:
        yield
    except InvalidMessage as error:
        raise error.renamed(words, words) from None


def one(item: str, **names: str) -> Callable[[str], str]:
    """Words for a call about one item: ``item`` is what it is called itself, ``names`` are fields called otherwise."""

    def words(text: str) -> str:
        inside = _ALONE.sub("", text)
        return _common(names.get(inside, inside or item))

    return words


def many(first: int) -> Callable[[str], str]:
    """Words for a call about many; ``first`` is the place of the message's first item among all of them."""

    def words(text: str) -> str:
        return _common(_INDEX.sub(lambda m: f"{m[1]}[{int(m[2]) + first}]", text))

    return words


def with_steps(words: Callable[[str], str], shared: Shared) -> Callable[[str], str]:
    """Words for a call that names its steps."""
    if shared.steps is None:
        return words
    return lambda text: words(
        "steps" if text == "plan" else text.replace("plan[", "steps[").replace("].after_s", "].after")
    )


def _common(text: str) -> str:
    for wire_word, word in _WORDS:
        text = text.replace(wire_word, word)
    return text


def _push(push: Push) -> Wire:
    fields = {name: getattr(push, name) for name in PUSH_FIELDS}
    return {name: _plain(value) for name, value in fields.items() if value is not None and value != {}}


def _steps(steps: object, *, alone: bool) -> list[Wire]:
    if isinstance(steps, str | bytes | Mapping) or not isinstance(steps, Iterable):
        raise InvalidMessage("steps", f"must be a list of {' and '.join(_STEPS)}")
    written: list[Wire] = []
    for i, step in enumerate(steps):
        if not isinstance(step, LaterStep):
            raise InvalidMessage(f"steps[{i}]", f"must be a {' or a '.join(_STEPS)}, not {type(step).__name__}")
        written.append(_step(step, alone=alone and i == 0))
    return written


def _step(step: LaterStep, *, alone: bool) -> Wire:
    """Write down a step; ``alone`` is a first one without a push, which waits for nothing."""
    fields: Wire = {"channel": step.channel}
    if not alone:
        fields |= {"when": step.when, "after_s": step.after.total_seconds()}
    if step.sender is not None:
        fields["sender"] = step.sender
    return fields | {name: _plain(v) if isinstance(v, Mapping) else v for name, v in step.said.items()}


def _recipient(recipient: Recipient | str, index: int, id_: str) -> Wire:
    """Write down a recipient; ``id_`` is for one that brings none."""
    if isinstance(recipient, str):
        return {"id": id_, "user": recipient}
    _of_type(Recipient, recipient, f"recipients[{index}]")
    fields: Wire = {"id": id_ if recipient.id is None else str(recipient.id)}
    if recipient.user is not None:
        fields["user"] = recipient.user
    if recipient.registrations:
        fields["registrations"] = _listed(recipient.registrations)
    if recipient.phone is not None:
        fields["phone"] = recipient.phone
    if recipient.params:
        # Asked for the type first: nearly all are dictionaries, and asking whether something is a mapping takes long.
        params = recipient.params
        fields["params"] = dict(params) if type(params) is dict else _listed(_plain(params))
    if recipient.key is not None:
        fields["key"] = recipient.key
    if recipient.locale is not None:
        fields["locale"] = recipient.locale
    if recipient.tags is not None:
        fields["tags"] = tags(recipient.tags)
    return fields


def send_at(value: object) -> object:
    """Write down when a send goes out."""
    if isinstance(value, LocalTime):
        return {"local": value.at.isoformat()}
    if not isinstance(value, datetime):
        raise InvalidMessage("send_at", f"must be a datetime with a zone or a LocalTime, not {type(value).__name__}")
    if value.tzinfo is None:
        raise InvalidMessage("send_at", "has no time zone; give one, or LocalTime(...) for the recipient's own time")
    return value.isoformat()


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _listed(value: object) -> object:
    # A lone text is left as it is, to be refused; list() would make an item of each letter.
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str | Mapping) else value


def _of_type(expected: type[_T], value: object, field: str) -> _T:
    if isinstance(value, expected):
        return value
    raise InvalidMessage(field, f"must be a {expected.__name__}, not {type(value).__name__}")
