"""Names that producers and workers share: tasks, queues and the inbox keys. Changing one is a contract change."""

from __future__ import annotations

import hashlib
from enum import StrEnum

#: Contract version written into every message.
VERSION = 1

#: Most recipients, receipts or audience changes that one message may carry.
BATCH_LIMIT = 500

#: The usual name of the home folder of ``knocktwice up``, in the folder where it was started.
HOME = ".knocktwice"
#: In the home folder: what ``knocktwice up`` runs, as the ``export`` lines that it prints. Not part of the wire.
STACK_FILE = "stack.env"


class Task(StrEnum):
    """Celery task names."""

    SEND_PUSH = "knocktwice.send_push"
    RESUME_PUSH = "knocktwice.resume_push"
    CHECK_FALLBACK = "knocktwice.check_fallback"
    SEND_SMS = "knocktwice.send_sms"
    RECORD_EVENTS = "knocktwice.record_events"
    CANCEL = "knocktwice.cancel"
    RECONCILE = "knocktwice.reconcile"
    WITHDRAW = "knocktwice.withdraw"
    UPDATE_AUDIENCE = "knocktwice.update_audience"
    HOUSEKEEPING = "knocktwice.housekeeping"
    BLAST = "knocktwice.blast"
    EXPAND_BLAST = "knocktwice.expand_blast"
    SEND_PAGE = "knocktwice.send_page"
    START_BLASTS = "knocktwice.start_blasts"
    BRING_REPORTS = "knocktwice.bring_reports"
    COLLECT_REPORTS = "knocktwice.collect_reports"


class Queue(StrEnum):
    """Celery queue names, one per kind of work so that each can be scaled and watched by itself."""

    PUSH = "knocktwice.push"
    FALLBACK = "knocktwice.fallback"
    SMS = "knocktwice.sms"
    EVENTS = "knocktwice.events"


#: Which queue each task travels on.
ROUTES: dict[Task, Queue] = {
    Task.SEND_PUSH: Queue.PUSH,
    Task.RESUME_PUSH: Queue.PUSH,
    Task.CHECK_FALLBACK: Queue.FALLBACK,
    Task.SEND_SMS: Queue.SMS,
    Task.RECONCILE: Queue.SMS,
    Task.WITHDRAW: Queue.PUSH,
    Task.RECORD_EVENTS: Queue.EVENTS,
    Task.CANCEL: Queue.EVENTS,
    Task.UPDATE_AUDIENCE: Queue.EVENTS,
    Task.HOUSEKEEPING: Queue.EVENTS,
    Task.BLAST: Queue.EVENTS,
    Task.EXPAND_BLAST: Queue.EVENTS,
    Task.SEND_PAGE: Queue.PUSH,
    Task.START_BLASTS: Queue.EVENTS,
    Task.BRING_REPORTS: Queue.EVENTS,
    Task.COLLECT_REPORTS: Queue.EVENTS,
}

#: Redis hash: message id → JSON ``{"task": name, "message": {...}}``, kept until the worker has committed its rows.
INBOX_MESSAGES = "knocktwice:inbox:messages"
#: Redis sorted set: message id, scored with the time of acceptance (epoch seconds), so that old ones are found cheaply.
INBOX_ACCEPTED = "knocktwice:inbox:accepted"
#: Redis hash: message id → how often processing it failed for a reason of its own.
INBOX_FAILURES = "knocktwice:inbox:failures"
#: Redis hash: message id → how often work on it was begun and never ended, and when it was last begun (epoch seconds).
INBOX_BEGUN = "knocktwice:inbox:begun"
#: Redis sorted set, all scores 0: ``SUBJECT\nMESSAGE-ID`` of each accepted message that a decision has to wait for, so
#: that the messages about somebody are found by their subject (``subjects.py``).
INBOX_SUBJECTS = "knocktwice:inbox:subjects"
#: Redis hash of how much may wait in the inbox (``messages``, ``bytes``; a worker writes its settings there) and of the
#: bytes that wait now (``used``).
INBOX_BACKLOG = "knocktwice:inbox:backlog"
#: The most messages that wait, unless a worker's setting says otherwise.
BACKLOG_MESSAGES = 1_000_000
#: The most bytes of messages that wait, unless a worker's setting says otherwise. With their copies in the queues and
#: its own tables the broker needs two to five times that.
BACKLOG_BYTES = 512 << 20
#: How much further receipts, cancellations and changes of people are accepted, for which a decision waits.
BACKLOG_HEADROOM = 1.5
#: Redis key prefix for idempotency keys; the value is the notification id the key was first used for.
KEY_PREFIX = "knocktwice:key:"


def scoped(key: str, project: str | None) -> str:
    """Return a key of a project as a text of its own. No key has a NUL in it, so no two of these are the same."""
    return key if project is None else f"{project}\0{key}"


def key_name(key: str) -> str:
    """Return the Redis key that remembers which notification an idempotency key was first used for.

    Args:
        key: as :func:`scoped` returns it.
    """
    return KEY_PREFIX + hashlib.sha256(key.encode()).hexdigest()
