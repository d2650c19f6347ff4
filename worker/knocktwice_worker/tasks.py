"""The Celery tasks. Each takes a batch and is safe to run twice, late, or after a kill at any line.

Celery does not retry a failed task. Its rows keep their ``wake_at`` and are due again, and a message whose rows were
never written is still in the inbox. So there is one way of recovery, and it works even if the worker is gone.
"""

from __future__ import annotations

import traceback
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import structlog

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_shared.names import Task
from knocktwice_worker.audience import aliases, forgetting, inbound_texts, opt_out_log, receipt_health, untextable
from knocktwice_worker.blasts import schedules
from knocktwice_worker.celery import app
from knocktwice_worker.notifications.store import provider_reports, removal, trial_counts
from knocktwice_worker.privacy import retention
from knocktwice_worker.runtime import error_reports, publishing
from knocktwice_worker.runtime.gathering import GatheredTask
from knocktwice_worker.services import Services, steered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = structlog.get_logger(__name__)

publish = partial(publishing.publish, app)


class TaskFailed(KnocktwiceError):
    """A task failed; its work is done again later. Only the error's type is kept: its text may be personal."""


def _task(name: Task) -> Callable[[Callable[[Services, list[str]], None]], Any]:
    """Make a task from a function that takes ids."""

    def decorate(work: Callable[[Services, list[str]], None]) -> Any:
        @app.task(name=name.value, shared=False)
        @wraps(work)
        def run(ids: list[str]) -> None:
            try:
                work(steered(), ids)
            except Exception as error:
                raise _reported(name, error, count=len(ids)) from None

        return run

    return decorate


def _message_task(name: Task, **options: Any) -> Any:
    """Make the task that carries out a producer's message by the function in ``Services.accepted``."""

    @app.task(name=name.value, bind=True, shared=False, **options)
    def run(self: Any, message: object) -> None:
        here, id_ = steered(), str(self.request.id)
        try:
            where = self.request.delivery_info or {}
            again = bool(self.request.get(publishing.AGAIN) or where.get(publishing.REDELIVERED))
            here.inbox.carry_out(name, id_, message, here.accepted[name], came_again=again)
        except Exception as error:
            raise _reported(name, error, message_id=id_) from None

    return run


def _gathered_task(name: Task, weight: Callable[[object], int], *, patient: bool = False) -> Any:
    """Make a task that carries out many messages together, and a single message like :func:`_message_task`.

    Args:
        patient: a message waits a moment for others.
    """

    def together(messages: Sequence[tuple[str, object]]) -> None:
        here = steered()
        here.accepted[name]([message for _, message in messages])
        here.inbox.done(name, messages)

    def begin_again(ids: Sequence[str]) -> Sequence[str]:
        return steered().inbox.begin_again(ids)

    gathered = {
        "base": GatheredTask,
        "together": staticmethod(together),
        "begin_again": staticmethod(begin_again),
        "weight": staticmethod(weight),
        "patient": patient,
    }
    return _message_task(name, **gathered)


def _count_in(field: str) -> Callable[[object], int]:
    """Return a function that counts the items in a field of an unchecked message."""

    def count(message: object) -> int:
        listed = message.get(field) if isinstance(message, dict) else None
        return len(listed) if isinstance(listed, list) else 1

    return count


def _reported(name: Task, error: Exception, **facts: Any) -> TaskFailed:
    frames = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    log.error("task failed", task=name.value, error=type(error).__name__, frames=frames, **facts)
    error_reports.report(error, name)
    return TaskFailed(f"{type(error).__name__}; see the worker's log")


#: Write the rows and countdowns of batches, then push them.
send_push = _gathered_task(Task.SEND_PUSH, _count_in("recipients"))


@_task(Task.RESUME_PUSH)
def resume_push(here: Services, ids: list[str]) -> None:
    """Try pushes again that a provider asked to repeat or that a dead worker left behind."""
    here.pushes.resume(ids)


@_task(Task.CHECK_FALLBACK)
def check_fallback(here: Services, ids: list[str]) -> None:
    """Decide about steps that are due, and publish ``send_sms`` for those that must be sent."""
    reserved = here.fallback.check(ids)
    if reserved:
        publish(Task.SEND_SMS, reserved)


@_task(Task.SEND_SMS)
def send_sms(here: Services, ids: list[str]) -> None:
    """Send reserved messages of later steps, and publish ``withdraw``."""
    _withdraw(here, here.later_steps.send(ids))


@_task(Task.RECONCILE)
def reconcile_sms(here: Services, ids: list[str]) -> None:
    """Settle messages whose outcome was not recorded."""
    _withdraw(here, here.reconcile.resolve(ids))


@_task(Task.WITHDRAW)
def withdraw_push(here: Services, ids: list[str]) -> None:
    """Take pushes off the screens after their later steps have gone out."""
    here.withdrawals.withdraw(ids)


def _withdraw(here: Services, ids: list[str]) -> None:
    if not ids or not here.settings.withdraw:
        return
    try:
        publish(Task.WITHDRAW, ids)
    except Exception as error:
        # All rows are written. Without a broker the pushes only stay on the screens.
        log.warning("pushes not withdrawn", error=type(error).__name__, count=len(ids))


#: Write receipts, and end the steps that they make unnecessary. They wait for company: a decision that is due meanwhile
#: finds them in the inbox.
record_events = _gathered_task(Task.RECORD_EVENTS, _count_in("receipts"), patient=True)

#: Stop notifications that have not reached the provider yet.
cancel = _message_task(Task.CANCEL)

#: Register and unregister devices, bind phones, set tags and consent, erase people.
update_audience = _message_task(Task.UPDATE_AUDIENCE)

#: Start a blast, unless a blast with its key was started before.
blast = _message_task(Task.BLAST)


@_task(Task.EXPAND_BLAST)
def expand_blast(here: Services, ids: list[str]) -> None:
    """Take the next people of a blast, and publish ``send_page`` for pages of them."""
    for id_ in ids:
        here.expansion.step(id_, publish)


@_task(Task.SEND_PAGE)
def send_page(here: Services, ids: list[str]) -> None:
    """Send the notifications of a page."""
    for id_ in ids:
        here.expansion.send_page(id_, publish)


@app.task(name=Task.START_BLASTS.value, shared=False)
def start_blasts() -> None:
    """Start the recurring blasts that are due."""
    try:
        schedules.start_due(steered().engine, steered().settings)
    except Exception as error:
        raise _reported(Task.START_BLASTS, error) from None


def _timed_task(name: Task) -> Callable[[Callable[[Services], dict[str, int]]], Any]:
    """Make a task from a function that beat calls. The figures that it returns are logged."""

    def decorate(work: Callable[[Services], dict[str, int]]) -> Any:
        @app.task(name=name.value, shared=False)
        @wraps(work)
        def run() -> None:
            try:
                done = work(steered())
            except Exception as error:
                raise _reported(name, error) from None
            log.info("done by the clock", task=name.value, **done)

        return run

    return decorate


@_timed_task(Task.BRING_REPORTS)
def bring_reports(here: Services) -> dict[str, int]:
    """Write delivery reports to their rows that could not be written when they came."""
    return {"waiting": here.delivery_reports.bring_waiting()}


@_timed_task(Task.COLLECT_REPORTS)
def collect_reports(here: Services) -> dict[str, int]:
    """Read the providers' lists, for missing reports and for prices."""
    return {"messages": here.delivery_reports.read_lists()}


@app.task(name=Task.HOUSEKEEPING.value, shared=False)
def housekeeping() -> None:
    """Delete rows that are not needed any more."""
    try:
        here = steered()
        with here.engine.begin() as conn:
            removed = forgetting.forget(conn, here.settings.device_stale) + aliases.forget_gone(conn)
            removed += removal.forget_orphans(conn)
            removed += provider_reports.forget(conn)
            removed += inbound_texts.forget(conn, here.settings.inbound_kept)
            removed += opt_out_log.forget_old(conn)
            removed += untextable.expire(conn)
            removed += trial_counts.expire(conn)
        receipt_health.roll_up(here.engine)
        here.delivery_reports.ask_and_close()
        purged = retention.purge(here.engine, here.settings.retention)
        if purged.more:
            housekeeping.apply_async(**publishing.BOUNDS)
    except Exception as error:
        raise _reported(Task.HOUSEKEEPING, error) from None
    log.info("house kept", removed=removed)
