"""The only writer of ``notifications``, ``deliveries``, ``attempts``, ``events`` and of the ledger, ``decisions``.

Every transition is a guarded, set-based UPDATE that leaves its line in the ledger. A function takes an open transaction
and a whole batch, and returns the rows that it has changed. No function reads a state first and writes it later: a
receipt and a decision at the same moment would both believe that they came first.

The store hands out frozen dataclasses, whose states and reasons are the enums of ``lifecycle``. It may import
``lifecycle``, ``database``, ``content`` and ``audience``; it must not know the pipeline, Redis, Celery or any provider.
"""

from knocktwice_worker.notifications.store.alarms import not_awaited
from knocktwice_worker.notifications.store.batch_contents import BatchContents, contents
from knocktwice_worker.notifications.store.cancellations import (
    adopt_cancelled,
    cancel,
    note_cancelled,
    settle_cancelled,
)
from knocktwice_worker.notifications.store.due import DueStep, Rung, due, ring
from knocktwice_worker.notifications.store.first_steps import PushWork
from knocktwice_worker.notifications.store.intake import Intake, accept
from knocktwice_worker.notifications.store.later_steps import (
    ClaimedStep,
    Placement,
    ReservedStep,
    claim_steps,
    hold,
    may_move,
    peek,
    reserved,
)
from knocktwice_worker.notifications.store.ledger import Decision, write_ledger
from knocktwice_worker.notifications.store.paused import free_for
from knocktwice_worker.notifications.store.postponing import (
    look_at,
    postpone,
    postpone_each,
    postpone_pushes,
    postpone_until,
    time_zones,
)
from knocktwice_worker.notifications.store.push_claims import (
    PushContents,
    claim_push,
    moved,
    push_contents,
    stop_claimed,
)
from knocktwice_worker.notifications.store.pushed_devices import attempts, shown
from knocktwice_worker.notifications.store.pushes import PushResult, record_push
from knocktwice_worker.notifications.store.receipts import note_wasted, record_receipts, settle_receipts
from knocktwice_worker.notifications.store.related import belonging, now, overdue, owners, related
from knocktwice_worker.notifications.store.replies import Answerable, Reply, answerable, record_replies
from knocktwice_worker.notifications.store.reservations import Reservation, reserve, take_numbers
from knocktwice_worker.notifications.store.step_results import (
    StepResult,
    known_provider_ids,
    look_again,
    record_steps,
    with_ids_of_their_own,
)
from knocktwice_worker.notifications.store.transitions import lock_open, settle_answered, settle_soon, skip
from knocktwice_worker.notifications.store.unresolved import UnresolvedStep, note_searches, take_back, unresolved
from knocktwice_worker.notifications.store.useless import end_useless

__all__ = [
    "Answerable",
    "BatchContents",
    "ClaimedStep",
    "Decision",
    "DueStep",
    "Intake",
    "Placement",
    "PushContents",
    "PushResult",
    "PushWork",
    "Reply",
    "Reservation",
    "ReservedStep",
    "Rung",
    "StepResult",
    "UnresolvedStep",
    "accept",
    "adopt_cancelled",
    "answerable",
    "attempts",
    "belonging",
    "cancel",
    "claim_push",
    "claim_steps",
    "contents",
    "due",
    "end_useless",
    "free_for",
    "hold",
    "known_provider_ids",
    "lock_open",
    "look_again",
    "look_at",
    "may_move",
    "moved",
    "not_awaited",
    "note_cancelled",
    "note_searches",
    "note_wasted",
    "now",
    "overdue",
    "owners",
    "peek",
    "postpone",
    "postpone_each",
    "postpone_pushes",
    "postpone_until",
    "push_contents",
    "record_push",
    "record_receipts",
    "record_replies",
    "record_sms",
    "record_steps",
    "related",
    "reserve",
    "reserved",
    "ring",
    "settle_answered",
    "settle_cancelled",
    "settle_receipts",
    "settle_soon",
    "shown",
    "skip",
    "stop_claimed",
    "take_back",
    "take_numbers",
    "time_zones",
    "unresolved",
    "with_ids_of_their_own",
    "write_ledger",
]
