"""The judge finds what was planted, of each class, and nothing in a world in which all is well."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from oracle.judge import judge
from oracle.records import (
    Answer,
    Book,
    Cancel,
    Device,
    End,
    Evidence,
    FailedLater,
    Fault,
    Listed,
    Notify,
    Paused,
    Phone,
    PushAsked,
    Receipt,
    Rules,
    Sample,
    SmsAsked,
    Stall,
    Step,
    StepEnd,
    Told,
    Wish,
    read,
)
from oracle.records_of_load import Backlog, Parked, Poison
from oracle.violations import MEANINGS, Violation

if TYPE_CHECKING:
    from pathlib import Path

DEVICE, NUMBER, OTHER = "device-1", "+16502300001", "+16502300002"
TEXT = "Your table is ready. [n1.1]"
PUSH = "Your table is ready|We keep it until 19:45. [n1]"

#: A person with one device, who does not click within three seconds.
CALL = Notify(
    100.0, 100.1, Told.ACCEPTED, "n1", "id-1", "library", registrations=(DEVICE,), phone=NUMBER, push=PUSH,
    steps=(Step("not_clicked", 3, TEXT),),
)  # fmt: skip
PUSHED = PushAsked(100.5, Answer.TAKEN, DEVICE, "id-1", "n1", PUSH)
TEXTED = SmsAsked(103.7, Answer.TAKEN, NUMBER, TEXT, "n1", "SM1")
END = End(
    "id-1", "n1", "texted", "not_clicked", 100.2, 103.9,
    (StepEnd(0, "push", "sent", None, None), StepEnd(1, "sms", "sent", None, "SM1")),
)  # fmt: skip
#: The same, clicked in time.
CLICK = Receipt(101.0, 101.1, Told.ACCEPTED, "id-1", "n1", "clicked", DEVICE)
REACHED = replace(
    END, state="reached", reason="reached_in_time", receipts=(("clicked", 101.2),),
    steps=(StepEnd(0, "push", "sent", None, None), StepEnd(1, "sms", "skipped", "reached_in_time", None)),
)  # fmt: skip
#: The provider says of the SMS that it went to nobody; and an operator's pause.
FAILED = FailedLater(110, 110, Told.ACCEPTED, "n1", "SM1")
PAUSED = Paused(99, 99.5, Told.ACCEPTED, until=103.5)
CLICKED_LATE = replace(END, receipts=(("clicked", 101.2),))
#: Nothing but an SMS.
SMS_CALL = replace(CALL, push=None, registrations=(), steps=(Step(None, 0, TEXT),))
SMS_END = replace(END, steps=(StepEnd(1, "sms", "sent", None, "SM1"),))
REGISTERED = Device(98, 98.1, Told.ACCEPTED, DEVICE, "u1")
BOUND = Phone(98, 98.1, Told.ACCEPTED, "u1", NUMBER)
STOP = Wish(90, 90.1, Told.ACCEPTED, NUMBER, "STOP")
#: A message that ends its workers, as it was parked; and a backlog of two, from which a third was refused.
BAD, ASIDE = Poison(200, "poison", 4), Parked(200, "knocktwice.send_push", "ended its worker", '{"push": "poison"}')
IDS = (UUID(int=1), UUID(int=2))
FULL = Backlog(
    2, frozenset(IDS), 1, frozenset(IDS[:1]), 10**6, 10**6, dict(zip(IDS, ("cancelled", "pushed"), strict=True)), 0, 1
)


def world(*records: object, **more: object) -> Evidence:
    """Return evidence of a run that nobody looks at any longer."""
    evidence = Evidence(10_000, **more)  # type: ignore[arg-type]
    for record in records:
        evidence.add(record)
    return evidence


def soak(what: str, *values: float) -> list[Sample]:
    """Return what a worker used over an hour."""
    return [Sample(100 + n * 3_600 / len(values), "worker1", what, value) for n, value in enumerate(values)]


def many(count: int, apart_s: float, **changes: Any) -> list[object]:
    """Return so many SMS to one number, each asked for, with texts of their own."""
    records: list[object] = []
    for n in range(count):
        text, at = f"Your table is ready. [m{n}.1]", 100 + n * apart_s
        records += [
            replace(SMS_CALL, token=f"m{n}", id=f"id-{n}", steps=(Step(None, 0, text),), asked_at=at, told_at=at),
            replace(TEXTED, at=at + 0.5, token=f"m{n}", text=text, sid=f"SM{n}"),
            replace(
                SMS_END, id=f"id-{n}", token=f"m{n}", steps=(StepEnd(1, "sms", "sent", None, f"SM{n}"),), **changes
            ),
        ]
    return records


#: Worlds in which all is well.
FINE = {
    "nobody clicks": world(CALL, PUSHED, TEXTED, END),
    "somebody clicks": world(CALL, PUSHED, CLICK, REACHED),
    "sessions that are cut until the end": world(*soak("connections", *([2] * 20), 30, *([2] * 22), *([32] * 20))),
    "a number comes back": world(
        REGISTERED, BOUND, replace(CALL, user="u1", registrations=(), phone=None), PUSHED,
        replace(BOUND, asked_at=100.2, told_at=100.3, number=OTHER),
        replace(BOUND, asked_at=100.4, told_at=100.5), TEXTED, END,
    ),
    "a critical message whose push nobody takes for a minute": world(
        replace(CALL, prefers_repeat=True), replace(PUSHED, answer=Answer.LATER), replace(TEXTED, at=165),
        replace(END, steps=(StepEnd(0, "push", "failed", "no answer", None), END.steps[1])),
        Fault(101, 160, "the provider is away"),
    ),
    "a click at the last moment": world(CALL, PUSHED, replace(CLICK, told_at=102.0), TEXTED, CLICKED_LATE),
    "the device is gone": world(
        CALL,
        replace(PUSHED, answer=Answer.REFUSED),
        replace(TEXTED, at=101),
        replace(END, steps=(StepEnd(0, "push", "failed", "unregistered", None), END.steps[1])),
    ),
    "a test": world(replace(CALL, test=True), END),
    "an SMS that failed later, and went again": world(
        SMS_CALL,
        replace(TEXTED, at=101),
        FAILED,
        replace(TEXTED, at=170, sid="SM2"),
        replace(SMS_END, steps=(StepEnd(1, "sms", "sent", None, "SM2"),)),
    ),
    "an SMS that failed later, and somebody clicked": world(
        CALL, PUSHED, TEXTED, FAILED, replace(CLICK, asked_at=120, told_at=120), CLICKED_LATE
    ),
    "a report of a failure whose answer was lost": world(
        SMS_CALL,
        replace(TEXTED, at=101),
        FAILED,
        replace(TEXTED, at=170, sid="SM2"),
        replace(FAILED, asked_at=180, told=Told.UNKNOWN, sid="SM2"),
        replace(SMS_END, steps=(StepEnd(1, "sms", "sent", None, "SM2"),)),
    ),
    "after a pause": world(SMS_CALL, PAUSED, TEXTED, SMS_END),
    "a call that was not answered": world(replace(CALL, told=Told.UNKNOWN)),
    "the answer of a critical one was lost": world(
        replace(SMS_CALL, prefers_repeat=True),
        replace(TEXTED, at=101, answer=Answer.TAKEN_UNTOLD, sid="SM0"),
        TEXTED,
        replace(SMS_END, steps=(StepEnd(1, "sms", "sent", None, "SM0"), StepEnd(1, "sms", "sent", None, "SM1"))),
    ),
    "nobody can say": world(
        SMS_CALL,
        replace(TEXTED, answer=Answer.UNANSWERED, sid=None),
        replace(SMS_END, state="unknown", steps=(StepEnd(1, "sms", "unknown", "no answer", None),)),
    ),
    "late after a fault": world(CALL, PUSHED, Fault(103, 120, "kill"), replace(TEXTED, at=140), END),
    "STOP and START": world(
        STOP, replace(STOP, asked_at=95, told_at=95.1, word="START"), SMS_CALL, replace(TEXTED, at=101), SMS_END
    ),
    "as many as are allowed": world(*many(10, 40)),
    "the provider stood still": world(CALL, PUSHED, CLICK, replace(TEXTED, at=104), Stall(104, 3), CLICKED_LATE),
    "a message that kills its workers": world(CALL, PUSHED, TEXTED, END, BAD, ASIDE),
    "garbage": world(CALL, PUSHED, TEXTED, END, replace(ASIDE, payload="garbage")),
    "a full backlog": world(FULL),
    "memory that only breathes": world(*soak("memory", *[1e8, 1.2e8] * 10)),
}  # fmt: skip

#: What was planted, by class; each is the smallest change of a world in which all is well.
PLANTED: dict[Violation, dict[str, Evidence]] = {
    Violation.LOST: {
        "no row": world(CALL),
        "failed later, and not sent again": world(SMS_CALL, TEXTED, FAILED, SMS_END),
        "nothing sent": world(CALL, replace(REACHED, receipts=())),
        "no SMS": world(CALL, PUSHED, replace(REACHED, receipts=())),
        "the list was read": world(
            SMS_CALL,
            replace(TEXTED, answer=Answer.LATER, sid=None),
            Listed(110, NUMBER, told=True),
            Listed(120, NUMBER, told=True),
            replace(SMS_END, state="unknown", steps=(StepEnd(1, "sms", "unknown", "not in the list", None),)),
        ),
    },
    Violation.LOST_RECEIPT: {
        "a click": world(CALL, PUSHED, CLICK, replace(REACHED, receipts=())),
        "a STOP": world(STOP),
    },
    Violation.TWICE: {
        "an SMS": world(CALL, PUSHED, TEXTED, replace(TEXTED, at=140, sid="SM2"), END),
        "a critical one whose answer arrived": world(
            replace(SMS_CALL, prefers_repeat=True), replace(TEXTED, at=101), TEXTED, SMS_END,
            Fault(99, 110, "a worker stands still", loses_answers=False),
        ),
        "failed once, sent again twice": world(
            SMS_CALL, replace(TEXTED, at=101), FAILED, replace(TEXTED, at=170, sid="SM2"),
            replace(TEXTED, at=230, sid="SM3"), SMS_END,
        ),
        "failed and sent again for ever": world(
            SMS_CALL, *[
                record for n in range(7)
                for record in (
                    replace(TEXTED, at=101 + 100 * n, sid=f"SM{n}"),
                    replace(FAILED, asked_at=110 + 100 * n, sid=f"SM{n}"),
                )
            ], SMS_END,
        ),
        "a key": world(
            replace(CALL, key="k"), replace(CALL, key="k"), PUSHED, replace(PUSHED, at=101, id="id-2"), TEXTED, END
        ),
    },
    Violation.AFTER_CLICK: {
        "a click": world(CALL, PUSHED, CLICK, TEXTED, replace(END, receipts=(("clicked", 101.2),))),
        "a delivery": world(
            replace(CALL, steps=(Step("not_delivered", 3, TEXT),)), PUSHED, replace(CLICK, kind="delivered"), TEXTED,
            replace(END, receipts=(("delivered", 101.2),)),
        ),
    },
    Violation.AFTER_CANCEL: {
        "an SMS": world(CALL, PUSHED, Cancel(101, 101.1, Told.ACCEPTED, "n1"), TEXTED, END),
        "a push": world(CALL, Cancel(100.2, 100.3, Told.ACCEPTED, "n1"), replace(PUSHED, at=104)),
    },
    Violation.AFTER_STOP: {"an SMS": world(STOP, SMS_CALL, TEXTED, SMS_END, opted_out={NUMBER})},
    Violation.WHILE_PAUSED: {"an SMS": world(SMS_CALL, replace(PAUSED, until=150), TEXTED, SMS_END)},
    Violation.OVER_LIMIT: {
        "a day": world(*many(11, 40)),
        "one text": world(SMS_CALL, SMS_CALL, replace(TEXTED, at=101), replace(TEXTED, at=120)),
    },
    Violation.UNDER_LIMIT: {
        "a day": world(*many(2, 40), rules=Rules(per_day=3)),
        "one text": world(SMS_CALL),
    },
    Violation.MISMATCH: {
        "another number": world(CALL, PUSHED, replace(TEXTED, number=OTHER), END),
        "another text": world(CALL, PUSHED, TEXTED, replace(TEXTED, at=150, text="Hello. [n1.1]"), END),
        "another device": world(CALL, replace(PUSHED, registration="device-2"), PUSHED, TEXTED, END),
        "a device that moved": world(
            REGISTERED, BOUND, replace(REGISTERED, asked_at=99, told_at=99.1, user="u2"),
            replace(CALL, user="u1", registrations=(), phone=None), PUSHED, TEXTED, END,
        ),
        "a number that was given up": world(
            REGISTERED, BOUND, replace(CALL, user="u1", registrations=(), phone=None), PUSHED,
            replace(BOUND, asked_at=100.2, told_at=100.3, number=OTHER), TEXTED, END,
        ),
        "no number any more": world(
            REGISTERED, BOUND, replace(CALL, user="u1", registrations=(), phone=None), PUSHED,
            replace(BOUND, asked_at=100.2, told_at=100.3, number=None), TEXTED, END,
        ),
        "a device that was logged out": world(
            REGISTERED, BOUND, replace(CALL, user="u1", registrations=(), phone=None),
            replace(REGISTERED, asked_at=100.2, told_at=100.3, user=None), replace(PUSHED, at=103), TEXTED, END,
        ),
        "a test's push": world(replace(CALL, test=True), PUSHED, END),
        "a test's SMS": world(replace(CALL, test=True), TEXTED, END),
        "nobody's": world(replace(TEXTED, token="")),
    },
    Violation.UNTOLD: {
        "an SMS": world(CALL, PUSHED, TEXTED, replace(END, steps=(END.steps[0], StepEnd(1, "sms", "sent", None, "SM9")))),
        "an end": world(CALL, PUSHED, TEXTED, replace(END, reason=None)),
        "a step": world(
            CALL, PUSHED, CLICK, replace(REACHED, steps=(REACHED.steps[0], StepEnd(1, "sms", "skipped", None, None)))
        ),
    },
    Violation.LATE: {
        "an SMS": world(CALL, PUSHED, replace(TEXTED, at=118), END),
        "a push": world(CALL, replace(PUSHED, at=115), replace(TEXTED, at=118.2), END),
        "long after a fault": world(CALL, PUSHED, Fault(103, 120, "kill"), replace(TEXTED, at=160), END),
    },
    Violation.STUCK: {
        "a notification": world(CALL, PUSHED, replace(END, state="active", reason=None, finished_at=None)),
        "a message": world(unprocessed=1),
    },
    Violation.FALSE_STORY: {
        "no SMS": world(CALL, PUSHED, CLICK, replace(END, receipts=(("clicked", 101.2),))),
        "a hidden SMS": world(CALL, PUSHED, TEXTED, replace(REACHED, steps=END.steps)),
        "no push": world(CALL, TEXTED, END),
        "a blamed receipt": world(CALL, PUSHED, CLICK, TEXTED, replace(END, wasted=True, receipts=(("clicked", 101.2),))),
        "none": world(CALL, PUSHED, TEXTED, replace(END, unreadable="500")),
    },
    Violation.PUSH_AFTER_SMS: {"a push": world(CALL, PUSHED, TEXTED, replace(PUSHED, at=107), END)},
    Violation.TEXTED_BY_OUR_DELAY: {
        "a slow hand-over": world(CALL, replace(PUSHED, at=103), TEXTED, END),
        "no push": world(CALL, replace(PUSHED, answer=Answer.LATER), TEXTED, END),
        "nobody tried to push something critical": world(
            replace(CALL, prefers_repeat=True), replace(TEXTED, at=165),
            replace(END, steps=(StepEnd(0, "push", "failed", "no_device", None), END.steps[1])),
        ),
        "no push of something critical": world(
            replace(CALL, prefers_repeat=True), replace(PUSHED, answer=Answer.LATER), TEXTED, END
        ),
        "a new device": world(
            REGISTERED, BOUND, replace(CALL, user="u1", registrations=(), phone=None), replace(TEXTED, at=100.4),
            replace(END, steps=(StepEnd(0, "push", "skipped", "no_device", None), END.steps[1])),
        ),
    },
    Violation.LEAK: {
        "memory": world(*soak("memory", *(1e8 + n * 1e7 for n in range(20)))),
        "threads": world(*soak("threads", *(20 + n for n in range(40)))),
        "connections": world(*soak("connections", *(20 + 2 * n for n in range(40)))),
        "keys": world(Sample(200, "broker", "keys", 5_000)),
    },
    Violation.POISON: {
        "nobody parks it": world(CALL, PUSHED, TEXTED, END, replace(BAD, deaths=5)),
        "too many die": world(CALL, PUSHED, TEXTED, END, replace(BAD, deaths=11), ASIDE),
        "nobody says why": world(CALL, PUSHED, TEXTED, END, BAD, replace(ASIDE, reason="")),
        "a sound one with it": world(CALL, PUSHED, TEXTED, END, BAD, ASIDE, replace(ASIDE, payload='{"token": "n1"}')),
    },
    Violation.OVERLOAD: {"one too many": world(replace(FULL, limit=1)), "the broker fills": world(replace(FULL, broker=10**8))},
}  # fmt: skip
PLANTED[Violation.UNDER_LIMIT]["a day"].ends[-1] = replace(
    SMS_END, id="id-1", token="m1", state="suppressed", reason="capped_daily"
)
PLANTED[Violation.UNDER_LIMIT]["one text"].add(replace(SMS_END, state="suppressed", reason="duplicate_30s", steps=()))


@pytest.mark.parametrize("name", list(FINE))
def test_nothing_is_found_where_all_is_well(name: str) -> None:
    assert judge(FINE[name]) == []


@pytest.mark.parametrize(
    ("violation", "name"), [(violation, name) for violation, worlds in PLANTED.items() for name in worlds]
)
def test_what_was_planted_is_found(violation: Violation, name: str) -> None:
    found = {finding.violation for finding in judge(PLANTED[violation][name])}
    assert violation in found


def test_every_class_has_a_meaning_and_something_planted() -> None:
    assert set(MEANINGS) == set(PLANTED) == set(Violation)


def test_what_was_said_later_does_not_count() -> None:
    late = replace(CLICK, asked_at=103, told_at=103.5)
    assert judge(world(CALL, PUSHED, late, TEXTED, replace(END, receipts=(("clicked", 103.6),)))) == []


@pytest.mark.parametrize("told", [Told.UNKNOWN, Told.REFUSED])
def test_what_nobody_was_promised_is_not_missed(told: Told) -> None:
    assert judge(world(CALL, PUSHED, replace(CLICK, told=told), TEXTED, END)) == []


def test_books_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = [CALL, PUSHED, TEXTED, CLICK, REACHED, STOP, REGISTERED, BOUND, Stall(1, 2), Listed(1, NUMBER, told=True)]
    book = Book(tmp_path / "book.jsonl")
    for record in written:
        book.write(record)
    with (tmp_path / "book.jsonl").open("a") as file:
        file.write('{"record": "Sm')
    assert list(read(tmp_path / "book.jsonl")) == written
