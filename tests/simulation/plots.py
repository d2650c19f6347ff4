"""Plots: a seed makes a script.

Most faults are placed where something is under way, and most words are said meanwhile.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from oracle.trouble import Door, Mood
from simulation.script import Delayed, Fault, Notice, Said, Script, Treated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: About how many steps a job of each kind has, so that most faults come about.
STEPS = {
    "send_push": 18,
    "resume_push": 20,
    "check_fallback": 13,
    "send_sms": 18,
    "reconcile": 12,
    "record_events": 13,
    "cancel": 13,
    "update_audience": 9,
    "tick": 6,
    "withdraw": 8,
    "STOP": 6,
    "failed": 14,
    "pause": 5,
    "clock": 10,
    "blast": 7,
    "expand_blast": 11,
    "send_page": 26,
}
#: How often each kind is struck.
_WEIGHTS = {"send_sms": 8, "check_fallback": 5, "send_push": 4, "record_events": 3, "reconcile": 3, "resume_push": 2,
            "cancel": 2, "update_audience": 2, "tick": 1, "withdraw": 1, "STOP": 1}  # fmt: skip
_MOODS = {
    Door.PUSH: [Mood.BUSY, Mood.BROKEN, Mood.BROKEN_TAKEN, Mood.RESET, Mood.LOST],
    Door.SMS: [Mood.BUSY, Mood.BROKEN, Mood.BROKEN_TAKEN, Mood.RESET, Mood.LOST, Mood.LOST],
    Door.LIST: [Mood.BROKEN, Mood.BEHIND, Mood.BEHIND],
}
_OF_A_PUSH = ("cancel", "cancel", "cancel", "clicked")
_OF_AN_SMS = ("clicked", "clicked", "clicked", "delivered", "cancel", "cancel", "STOP", "STOP")
#: From here on seeds plot answers of all kinds, and steps that follow a success.
OF_ANSWERS = 100_000
_ANSWERED = (
    ("not_answered",),
    ("not_clicked", "not_answered"),
    ("not_delivered", "not_answered"),
    ("not_answered", "not_answered"),
    ("not_clicked", "clicked"),
    ("clicked",),
    ("delivered", "not_answered"),
    ("not_delivered", "delivered"),
)
#: From here on seeds plot projects, tests, messages that fail later, and pauses.
OF_ALL_KINDS = 200_000
_KINDS = _WEIGHTS | {"send_sms": 9, "failed": 4, "pause": 1, "clock": 2}
#: From here on seeds plot blasts, and SMS with media.
OF_BLASTS = 300_000
_OF_BLASTS = _KINDS | {"send_page": 6, "expand_blast": 4, "blast": 1, "cancel": 4, "failed": 1}
#: From here on seeds plot people whose number or device changes meanwhile, or who are erased; 50,000 seeds later some of
#: them are introduced by the call that notifies them.
OF_PEOPLE = 400_000
#: From here on seeds plot more SMS to a number than it may get in a day, and a Redis that loses what it has counted.
OF_LIMITS = 500_000
_INTRODUCED = 50_000
_OF_PEOPLE = _WEIGHTS | {"update_audience": 4, "resume_push": 4}
_LATE = ("record_events", "cancel", "update_audience", "send_sms", "check_fallback", "send_push")
_LATE_OF_BLASTS = (*_LATE, "cancel", "cancel", "expand_blast", "send_page", "blast")


def plot(seed: int) -> Script:
    """Return the script of a seed."""
    dice = random.Random(f"plot {seed}")
    if seed >= OF_LIMITS:
        return _of_limits(dice, seed)
    if seed >= OF_PEOPLE:
        return _of_people(dice, seed)
    if seed >= OF_BLASTS:
        return _of_blasts(dice, seed)
    if seed >= OF_ALL_KINDS:
        return _of_all_kinds(dice, seed)
    if seed >= OF_ANSWERS:
        return _answered(dice, seed)
    if seed % 2:
        return _close(dice, seed)
    notices = tuple(_notice(dice, place) for place in range(dice.choice((1, 1, 2, 2, 3, 4))))
    faults = tuple(_fault(dice) for _ in range(dice.choice((0, 1, 1, 1, 2, 3))))
    return Script(
        order=seed + 1,
        workers=dice.choice((2, 2, 3)),
        notices=notices,
        said=tuple(_said(dice, notices, faults) for _ in range(dice.choice((0, 1, 1, 2, 3)))),
        faults=faults,
        treated=tuple(_treated(dice) for _ in range(dice.choice((0, 0, 0, 1, 2)))),
        delayed=tuple(_delayed(dice) for _ in range(dice.choice((0, 0, 1, 1)))),
    )


def _close(dice: random.Random, seed: int) -> Script:
    """One person, and everything at the same moment: somebody stands still, and meanwhile something is said of this person."""
    when = dice.choice(("not_clicked", "not_delivered"))
    notice = Notice(0.0, ((when, dice.choice((0.0, 3.0, 10.0))),), known=dice.random() < 0.2)
    (op,) = dice.choices(("send_sms", "check_fallback", "send_push", "reconcile"), (10, 4, 4, 2))
    seconds = dice.choice((3.0, 6.0, 15.0, 25.0, 60.0, 60.0, 200.0))
    stop = Fault(op, 0, dice.randrange(STEPS[op]), "stop", seconds, dice.random() < 0.5, _before(dice))
    faults: tuple[Fault, ...] = (stop,)
    if dice.random() < 0.25:
        faults += (_fault(dice),)
    words = _OF_A_PUSH if op == "send_push" else _OF_AN_SMS
    said = tuple(
        Said(
            dice.choice(words), 0, round(dice.uniform(0, min(seconds, 8.0)) * dice.random(), 1), 0, dice.random() < 0.6
        )
        for _ in range(dice.choice((0, 0, 1, 1, 1)))
    )
    treated: tuple[Treated, ...] = ()
    if dice.random() < 0.2:
        treated = (Treated(Door.SMS, 0, Mood.LOST), Treated(Door.LIST, 0, Mood.BEHIND))
    elif dice.random() < 0.2:
        treated = (_treated(dice),)
    return Script(seed + 1, 2, (notice,), said, faults, treated)


def _answered(dice: random.Random, seed: int) -> Script:
    """One or two people who answer in every way, while somebody stands still or dies."""
    notices = tuple(
        Notice(
            0.0,
            tuple((when, dice.choice((2.0, 5.0, 10.0))) for when in dice.choice(_ANSWERED)),
            known=dice.random() < 0.2,
            device=dice.choices(("ok", "none"), (8, 1))[0],
            number=place,
        )
        for place in range(dice.choice((1, 1, 2)))
    )
    faults = tuple(_fault(dice) for _ in range(dice.choice((0, 1, 1, 2))))
    return Script(
        seed + 1,
        dice.choice((2, 2, 3)),
        notices,
        tuple(_answer(dice, notices, faults) for _ in range(dice.choice((1, 1, 2, 3)))),
        faults,
        tuple(_treated(dice) for _ in range(dice.choice((0, 0, 0, 1)))),
        tuple(_delayed(dice) for _ in range(dice.choice((0, 0, 1)))),
    )


def _answer(dice: random.Random, notices: Sequence[Notice], faults: Sequence[Fault]) -> Said:
    """Say something about a notification, mostly at the time of one of its steps."""
    words = ("seen", "clicked", "delivered", "reply", "cancel", "STOP")
    what = dice.choices(words, (4, 4, 3, 6, 1, 1))[0]
    about = dice.randrange(len(notices))
    stops = [place for place, fault in enumerate(faults) if fault.kind == "stop"]
    if stops and dice.random() < 0.5:
        during = dice.choice(stops)
        at = round(dice.uniform(0, min(faults[during].seconds, 15)), 1)
        return Said(what, about, at, during, dice.random() < 0.6)
    steps = notices[about].steps
    # A text answers an SMS that is there, mostly before the step behind it is due.
    last = len(steps) if what == "reply" else dice.randint(1, len(steps))
    due = sum(after for _, after in steps[:last])
    early = steps[last - 1][1] if what == "reply" else 2.0
    return Said(what, about, round(max(0.2, due + dice.uniform(-early, 2)), 1), None, dice.random() < 0.6)


def _of_all_kinds(dice: random.Random, seed: int) -> Script:
    """Applications of several projects, and their tests; a provider that fails later; an operator who pauses."""
    notices = [_of_a_project(dice, place) for place in range(dice.choice((1, 1, 2)))]
    if dice.random() < 0.25:
        # Another project uses the same key.
        first = notices[0] = replace(notices[0], keyed=True)
        other = "shop" if first.project != "shop" else "bank"
        notices.append(replace(_of_a_project(dice, len(notices)), project=other, key_of=0, keyed=False))
    faults = tuple(_fault(dice, _KINDS) for _ in range(dice.choice((0, 1, 1, 2))))
    said: list[Said] = []
    for about, notice in enumerate(notices):
        due = notice.at + sum(after for _, after in notice.steps)
        if dice.random() < 0.6:
            said += _failures(dice, about, due)
        if dice.random() < 0.4:
            said.append(_said(dice, notices, faults))
    if dice.random() < 0.35:
        said += _pause(dice, notices, faults)
    treated = tuple(_treated(dice) for _ in range(dice.choice((0, 0, 0, 1))))
    delayed = tuple(_delayed(dice) for _ in range(dice.choice((0, 0, 1))))
    return Script(seed + 1, dice.choice((2, 2, 3)), tuple(notices), tuple(said), faults, treated, delayed)


def _of_blasts(dice: random.Random, seed: int) -> Script:
    """Blasts, stopped at any moment, beside single notifications; and SMS with media."""
    notices = [_of_a_blast(dice, place) for place in range(dice.choice((1, 1, 2, 3)))]
    faults = tuple(_fault(dice, _OF_BLASTS) for _ in range(dice.choice((0, 1, 1, 2))))
    said: list[Said] = []
    for about, notice in enumerate(notices):
        due = notice.at + sum(after for _, after in notice.steps)
        if notice.blast and dice.random() < 0.5:
            at = max(0.1, dice.choice((0.5, due, due, due)) + dice.uniform(-3, 3))
            said.append(Said("cancel", about, round(at, 1), at_once=dice.random() < 0.6))
        if dice.random() < 0.5:
            said.append(_said(dice, notices, faults))
        if dice.random() < 0.1:
            said += _failures(dice, about, due)
    if dice.random() < 0.15:
        said += _pause(dice, notices, faults)
    treated = tuple(_treated(dice) for _ in range(dice.choice((0, 0, 0, 1))))
    delayed = tuple(_delayed(dice, _LATE_OF_BLASTS) for _ in range(dice.choice((0, 0, 1))))
    if notices[0].blast and dice.random() < 0.1:
        # It is stopped before its page is sent, and nobody has taken that up.
        seconds = dice.choice((2.0, 8.0, 30.0))
        delayed = (Delayed("send_page", 0, seconds), Delayed("cancel", 0, dice.choice((-1.0, 90.0))))
        said.insert(0, Said("cancel", 0, round(dice.uniform(0.3, seconds), 1), at_once=False))
    return Script(seed + 1, dice.choice((2, 2, 3)), tuple(notices), tuple(said), faults, treated, delayed)


def _of_people(dice: random.Random, seed: int) -> Script:
    """What an application knows of a person changes while something is on its way to them."""
    notices = []
    for place in range(dice.choice((1, 1, 2))):
        made = replace(_notice(dice, place), known=True, number=place)
        if dice.random() < 0.2:
            made = replace(made, at=0.0, in_s=None, keyed=False, blast=True)
        elif seed >= OF_PEOPLE + _INTRODUCED and dice.random() < 0.4:
            made = replace(made, inline=True)
        notices.append(made)
    faults = tuple(_fault(dice, _OF_PEOPLE) for _ in range(dice.choice((0, 1, 1, 2))))
    stops = [place for place, fault in enumerate(faults) if fault.kind == "stop"]
    said: list[Said] = []
    for about, notice in enumerate(notices):
        due = notice.at + (notice.in_s or 0) + sum(after for _, after in notice.steps)
        what = dice.choice(("new number", "new number", "no number", "logout", "logout", "erase"))
        if stops and dice.random() < 0.5:
            during = dice.choice(stops)
            at = round(dice.uniform(0, min(faults[during].seconds, 25)), 1)
            said.append(Said(what, about, at, during, dice.random() < 0.5))
        else:
            at = dice.choice((notice.at + 0.2, notice.at + (notice.in_s or 0), due)) + dice.uniform(-1, 2)
            said.append(Said(what, about, round(max(0.1, at), 1), None, dice.random() < 0.5))
        if dice.random() < 0.3:
            said.append(_said(dice, notices, faults))
    if any(one.what == "erase" for one in said):
        # Of an erased person an opt-out is kept under another name.
        said = [one for one in said if one.what != "STOP"]
    treated = tuple(_treated(dice) for _ in range(dice.choice((0, 0, 1))))
    delayed = tuple(_delayed(dice) for _ in range(dice.choice((0, 0, 1))))
    return Script(seed + 1, dice.choice((2, 2, 3)), tuple(notices), tuple(said), faults, treated, delayed)


def _of_limits(dice: random.Random, seed: int) -> Script:
    """A number gets as many SMS as it may, while senders stand still or die and the counts are lost."""
    notices = tuple(
        Notice(
            round(dice.choice((0.0, 0.0, dice.uniform(0, 8))), 1) if place else 0.0,
            ((dice.choice(("not_clicked", "not_delivered")), dice.choice((0.0, 0.0, 2.0, 5.0))),),
            device=dice.choices(("ok", "none"), (1, 3))[0],
            critical=dice.random() < 0.1,
        )
        for place in range(dice.choice((4, 5, 6, 8)))
    )
    faults = tuple(
        _fault(dice, {"send_sms": 6, "check_fallback": 4, "reconcile": 2}) for _ in range(dice.choice((1, 2)))
    )
    stops = [place for place, fault in enumerate(faults) if fault.kind == "stop"]
    said: list[Said] = []
    for _ in range(dice.choice((0, 1, 1, 2))):
        during = dice.choice(stops) if stops and dice.random() < 0.6 else None
        said.append(Said("wipe", 0, round(dice.uniform(0, 4), 1), during))
    said += [_said(dice, notices, faults) for _ in range(dice.choice((0, 0, 1, 2)))]
    treated = tuple(_treated(dice) for _ in range(dice.choice((0, 1, 2))))
    delayed = tuple(_delayed(dice) for _ in range(dice.choice((0, 0, 1))))
    return Script(seed + 1, dice.choice((2, 3)), notices, tuple(said), faults, treated, delayed)


def _of_a_blast(dice: random.Random, place: int) -> Notice:
    made = _of_a_project(dice, place)
    return replace(made, blast=dice.random() < 0.7, media=dice.random() < 0.3, number=place, project="", test=False)


def _of_a_project(dice: random.Random, place: int) -> Notice:
    steps: tuple[tuple[str, float], ...] = (
        (dice.choice(("not_clicked", "not_delivered", "not_answered")), dice.choice((0.0, 2.0, 5.0))),
    )
    if dice.random() < 0.15:
        steps += (("not_clicked", dice.choice((3.0, 8.0))),)
    return Notice(
        0.0,
        steps,
        known=dice.random() < 0.2,
        device=dice.choices(("ok", "none"), (5, 1))[0],
        critical=dice.random() < 0.15,
        number=place if dice.random() < 0.85 else 0,
        project=dice.choice(("", "", "shop")),
        test=dice.random() < 0.2,
    )


def _failures(dice: random.Random, about: int, due: float) -> list[Said]:
    """The provider fails its SMS once or several times; once it says so twice; and somebody answers just then."""
    at = due + dice.uniform(0.3, 6)
    said = [Said("failed", about, round(at, 1))]
    if dice.random() < 0.2:
        said.append(Said("failed", about, round(at + dice.uniform(0, 3), 1)))
    if dice.random() < 0.4:
        # Sent again a minute later.
        said.append(Said("failed", about, round(at + 60 + dice.uniform(0.2, 20), 1)))
    if dice.random() < 0.5:
        what = dice.choice(("clicked", "cancel", "cancel", "STOP", "reply", "delivered"))
        when = at + dice.choice((0.0, 0.0, 60.0, 60.0)) + dice.uniform(-2, 4)
        said.append(Said(what, about, round(max(0.1, when), 1), at_once=dice.random() < 0.6))
    return said


def _pause(dice: random.Random, notices: Sequence[Notice], faults: Sequence[Fault]) -> list[Said]:
    """An operator pauses SMS when one is due or somebody stands still, and perhaps ends the pause before its time."""
    about = dice.randrange(len(notices))
    seconds = dice.choice((5.0, 20.0, 100.0, 600.0))
    stops = [place for place, fault in enumerate(faults) if fault.kind == "stop"]
    during = dice.choice(stops) if stops and dice.random() < 0.5 else None
    due = notices[about].at + sum(after for _, after in notices[about].steps)
    at = round(max(0.1, due + dice.uniform(-4, 2)) if during is None else dice.uniform(0, 5), 1)
    said = [Said("pause", about, at, during, seconds=seconds)]
    if dice.random() < 0.4:
        said.append(Said("resume", about, round(at + dice.uniform(0.5, seconds), 1), during))
    return said


def _before(dice: random.Random) -> str:
    """Return a step at which processes stand longest; mostly none, so that each step has its turn."""
    return dice.choices(("", "call of the provider", "answer of the provider", "COMMIT"), (6, 3, 1, 2))[0]


def _notice(dice: random.Random, place: int) -> Notice:
    after = dice.choice((0.0, 2.0, 5.0, 10.0))
    when = dice.choice(("not_clicked", "not_clicked", "not_delivered", "not_delivered", "notifications_disabled"))
    steps: tuple[tuple[str, float], ...] = ((when, after),)
    if dice.random() < 0.15:
        steps += ((dice.choice(("not_clicked", "not_delivered")), dice.choice((3.0, 8.0))),)
    device = dice.choices(("ok", "gone", "none"), (16, 2, 2))[0]
    return Notice(
        at=0.0 if place == 0 else dice.choice((0.0, 0.0, round(dice.uniform(0, 15), 1))),
        steps=steps if dice.random() < 0.95 or device == "none" else (),
        known=dice.random() < 0.25,
        device=device,
        critical=dice.random() < 0.15,
        keyed=dice.random() < 0.1,
        in_s=round(dice.uniform(1, 20), 1) if dice.random() < 0.1 else None,
        number=place if dice.random() < 0.85 else 0,
    )


def _fault(dice: random.Random, weights: Mapping[str, int] = _WEIGHTS) -> Fault:
    (op,) = dice.choices(list(weights), list(weights.values()))
    kind = dice.choices(("stop", "die", "cut"), (7, 2, 1))[0]
    seconds = dice.choice((3.0, 6.0, 15.0, 25.0, 60.0, 60.0, 200.0)) if kind == "stop" else 0.0
    nth = dice.choices((0, 1, 2), (6, 2, 1))[0]
    cut = kind == "stop" and dice.random() < 0.4
    return Fault(op, nth, dice.randrange(STEPS[op]), kind, seconds, cut, _before(dice))


def _said(dice: random.Random, notices: Sequence[Notice], faults: Sequence[Fault]) -> Said:
    what = dice.choices(("clicked", "delivered", "cancel", "STOP", "START"), (8, 4, 4, 3, 1))[0]
    about = dice.randrange(len(notices))
    stops = [place for place, fault in enumerate(faults) if fault.kind == "stop"]
    if stops and dice.random() < 0.6:
        during = dice.choice(stops)
        at = round(dice.uniform(0, min(faults[during].seconds, 25)), 1)
        return Said(what, about, at, during, dice.random() < 0.5)
    due = notices[about].at + sum(after for _, after in notices[about].steps)
    return Said(what, about, round(max(0.1, due + dice.uniform(-4, 3)), 1), None, dice.random() < 0.5)


def _treated(dice: random.Random) -> Treated:
    door = dice.choices((Door.PUSH, Door.SMS, Door.LIST), (2, 4, 2))[0]
    return Treated(door, dice.choices((0, 1, 2), (5, 2, 1))[0], dice.choice(_MOODS[door]))


def _delayed(dice: random.Random, tasks: Sequence[str] = _LATE) -> Delayed:
    seconds = -1.0 if dice.random() < 0.25 else dice.choice((2.0, 8.0, 30.0, 90.0))
    return Delayed(dice.choice(tasks), dice.choices((0, 1), (4, 1))[0], seconds)
