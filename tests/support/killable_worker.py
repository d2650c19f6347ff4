"""A worker that ends at a named point as ``kill -9`` would end it.

Only tests start it: ``celery -A support.killable_worker worker``.

``KILL_AT`` names the point. The shipped code has no hook: this module wraps its functions before the worker starts.
"""

from __future__ import annotations

import os
import signal
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn

from knocktwice_worker import tasks
from knocktwice_worker.celery import app
from knocktwice_worker.channels.outbound.transport import Transport
from knocktwice_worker.limits.per_number import RedisLimits
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.inbox.accepted import Inbox
from knocktwice_worker.notifications.pipeline import later_steps
from knocktwice_worker.notifications.pipeline.carrier_choice import CarrierChoice
from knocktwice_worker.notifications.pipeline.fallback_gates import FallbackGates
from knocktwice_worker.notifications.pipeline.push_delivery import PushDelivery
from knocktwice_worker.notifications.store import step_results

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.channels.http import Request

__all__ = ["BETWEEN", "LATER", "POINTS", "app"]


def _die(*_: object, **__: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


#: What a worker does at a point that is armed now.
_act: Callable[[], None] = _die


def _before(owner: Any, name: str) -> None:
    original, act = getattr(owner, name), _act

    @wraps(original)
    def act_first(*args: Any, **kwargs: Any) -> Any:
        act()
        return original(*args, **kwargs)

    setattr(owner, name, act_first)


def _after(owner: Any, name: str) -> None:
    original, act = getattr(owner, name), _act

    @wraps(original)
    def then_act(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        act()
        return result

    setattr(owner, name, then_act)


def _after_the_provider_took(part_of_url: str) -> Callable[[], None]:
    def arm() -> None:
        original, act = Transport.send, _act

        def send(self: Transport, requests: list[Request], *args: Any, **options: Any) -> object:
            answers = original(self, requests, *args, **options)
            if part_of_url in requests[0].url and requests[0].method == "POST":
                act()
            return answers

        Transport.send = send  # type: ignore[assignment, method-assign]

    return arm


#: Every step of the way at which a kill could leave something half done.
POINTS: dict[str, Callable[[], None]] = {
    "send_push before its rows are written": lambda: _before(store, "accept"),
    "send_push before its rows are committed": lambda: _after(store, "accept"),
    "send_push between its rows and the push": lambda: _before(PushDelivery, "deliver"),
    "send_push after the provider took the push": _after_the_provider_took("messages:send"),
    "send_push before the push's record is committed": lambda: _after(store, "record_push"),
    "send_push before the message leaves the inbox": lambda: _before(Inbox, "_remove"),
    "check_fallback before it counts": lambda: _before(FallbackGates, "apply_limits"),
    "check_fallback between counting and its commit": lambda: _after(RedisLimits, "count"),
    "check_fallback before the reservation is committed": lambda: _after(store, "reserve"),
    "check_fallback between the reservation and send_sms": lambda: _before(tasks, "publish"),
    "send_sms before it claims": lambda: _before(store, "claim_steps"),
    "send_sms before its claim is committed": lambda: _after(store, "claim_steps"),
    "send_sms between its claim and its lock": lambda: _before(store, "hold"),
    "send_sms between its claim and the provider": lambda: _before(later_steps, "deliver"),
    "send_sms after the provider took the SMS": _after_the_provider_took("Messages.json"),
    "send_sms before the next step's row is committed": lambda: _after(step_results, "go_on"),
    "send_sms before the SMS's record is committed": lambda: _after(store, "record_steps"),
    "send_sms between the SMS's record and withdraw": lambda: _before(tasks, "_withdraw"),
}

#: The same for a push that waited for its time.
LATER: dict[str, Callable[[], None]] = {
    "resume_push before its claim is committed": lambda: _after(store, "claim_push"),
    "resume_push between its claim and the push": lambda: _before(PushDelivery, "deliver"),
    "resume_push after the provider took the push": _after_the_provider_took("messages:send"),
    "resume_push before the push's record is committed": lambda: _after(store, "record_push"),
}

#: The same between two SMS providers, of which the first refuses.
BETWEEN: dict[str, Callable[[], None]] = {
    "after the first refused, before that is recorded": lambda: _before(CarrierChoice, "moved"),
    "before the change of providers is committed": lambda: _after(store, "record_steps"),
    "after the change of providers, before the second is asked": lambda: _before(later_steps.LaterSteps, "_slow_down"),
    "after the second took it": _after_the_provider_took("Messages.json"),
}


def arm(point: str, act: Callable[[], None] = _die) -> None:
    """Let this process do something whenever it passes a point; several points may be armed."""
    global _act
    _act = act
    (POINTS | LATER | BETWEEN)[point]()


if "KILL_AT" in os.environ:
    arm(os.environ["KILL_AT"])
