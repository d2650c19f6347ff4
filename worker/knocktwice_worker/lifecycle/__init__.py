"""The lifecycle: the states of a notification, the changes that are allowed, and the decision whether a step goes out.

A *notification* is ``active`` until it reaches one terminal state. It consists of *deliveries*, one per step: step 0 is
the push, if there is one, and steps 1, 2, … follow it. The delivery of a step is created when the step before it has
ended, so at most one later step is open at a time. An unfinished delivery always has a ``wake_at``: the moment at which
a worker must look at it again. The dispatcher publishes its task then. This one column serves as the countdown, the
retry and the recovery after a crash.

``states.py`` lists the states and the allowed changes, ``reasons.py`` the words of the ledger, ``triggers.py`` what
answers a step, and ``decision.py`` decides. The room is pure: it does no I/O, and it may import only the contract.
"""

from __future__ import annotations

from knocktwice_worker.lifecycle.decision import Facts, decide
from knocktwice_worker.lifecycle.reasons import (
    ENDS_ALL,
    FALL_BACK,
    NOT_FOLLOWED,
    NOT_NEEDED,
    OUTCOMES,
    WAITS_TURN,
    Delay,
    Entry,
    Note,
    Refusal,
    Verdict,
)
from knocktwice_worker.lifecycle.states import (
    ANSWERED_LATER,
    EDGES,
    FAILED_LATER,
    LOST,
    OPEN,
    REOPENED,
    AttemptState,
    DeliveryState,
    NotificationState,
    ProviderState,
)
from knocktwice_worker.lifecycle.triggers import (
    FOLLOW_UPS,
    NOT_BY_READING,
    TRIGGERS,
    Evidence,
    Trigger,
    answers,
    triggers_answered_by,
)
from knocktwice_worker.lifecycle.troubles import BrakeState, PushTrouble, TextTrouble, Untextable

__all__ = [
    "ANSWERED_LATER",
    "EDGES",
    "ENDS_ALL",
    "FAILED_LATER",
    "FALL_BACK",
    "FOLLOW_UPS",
    "LOST",
    "NOT_BY_READING",
    "NOT_FOLLOWED",
    "NOT_NEEDED",
    "OPEN",
    "OUTCOMES",
    "REOPENED",
    "TRIGGERS",
    "WAITS_TURN",
    "AttemptState",
    "BrakeState",
    "Delay",
    "DeliveryState",
    "Entry",
    "Evidence",
    "Facts",
    "Note",
    "NotificationState",
    "ProviderState",
    "PushTrouble",
    "Refusal",
    "TextTrouble",
    "Trigger",
    "Untextable",
    "Verdict",
    "answers",
    "decide",
    "triggers_answered_by",
]
