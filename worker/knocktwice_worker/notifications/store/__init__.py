"""The one place that changes states. Every transition is a guarded, set-based UPDATE and leaves its row in the ledger.

A function takes an open transaction and whole batches; what it returns is who won. Nothing is read first and written later:
a receipt and a fallback that come at the same moment would both believe that they won.
"""

from knocktwice_worker.notifications.store.due import (
    Reservation,
    contents,
    due,
    hold_until,
    postpone,
    postpone_pushes,
    reserve,
    ring,
    time_zones,
)
from knocktwice_worker.notifications.store.intake import Intake, PushWork, accept
from knocktwice_worker.notifications.store.later_steps import (
    Placement,
    SmsResult,
    claim_sms,
    hold,
    look_again,
    may_move,
    record_sms,
    reserved,
    take_back,
    unresolved,
    with_ids_of_their_own,
)
from knocktwice_worker.notifications.store.pushes import PushResult, claim_push, push_contents, record_push
from knocktwice_worker.notifications.store.receipts import (
    cancel,
    note_cancelled,
    note_wasted,
    record_receipts,
    settle_cancelled,
)
from knocktwice_worker.notifications.store.related import now, overdue, related
from knocktwice_worker.notifications.store.transitions import Decision, lock_open, settle_answered, skip, write_ledger

__all__ = [
    "Decision",
    "Intake",
    "Placement",
    "PushResult",
    "PushWork",
    "Reservation",
    "SmsResult",
    "accept",
    "cancel",
    "claim_push",
    "claim_sms",
    "contents",
    "due",
    "hold",
    "hold_until",
    "lock_open",
    "look_again",
    "may_move",
    "note_cancelled",
    "note_wasted",
    "now",
    "overdue",
    "postpone",
    "postpone_pushes",
    "push_contents",
    "record_push",
    "record_receipts",
    "record_sms",
    "related",
    "reserve",
    "reserved",
    "ring",
    "settle_answered",
    "settle_cancelled",
    "skip",
    "take_back",
    "time_zones",
    "unresolved",
    "with_ids_of_their_own",
    "write_ledger",
]
