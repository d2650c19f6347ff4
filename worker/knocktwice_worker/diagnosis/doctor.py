"""The checks of ``knocktwice doctor``: is an installation complete? Each answer contains the fix.

They run side by side and each has a deadline, so that a server that hangs is told instead of waited for.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from knocktwice_shared.channels import SMS
from knocktwice_worker.channels.outcomes import CredentialsUnavailable
from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.diagnosis import business, providers, servers, workers
from knocktwice_worker.diagnosis.check import Check, Finding, Level
from knocktwice_worker.diagnosis.in_time import TooLate, in_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from knocktwice_worker.services import Services

#: Seconds that a check may take, and that one may take that asks a provider.
DEADLINE_S, PROVIDERS_DEADLINE_S = 5.0, 20.0

#: In the order of a list; answers come as they are ready.
_CHECKS: dict[str, Callable[[Services], Finding]] = {
    "postgres": servers.postgres,
    "migrations": servers.schema,
    "broker": servers.broker,
    "rabbitmq": servers.rabbitmq,
    "workers": workers.there,
    "queues": workers.queues,
    "settings": workers.settings,
    "clocks": workers.clocks,
    "beat": workers.beat,
    "push": providers.push,
    "sms": providers.sms,
    "sms providers": providers.several,
    "refusals": providers.refusals,
    "answers": providers.answers,
    "number plans": business.number_plans,
    "backlog": servers.backlog,
    "sms budget": business.budget,
    "projects": business.projects,
    "receipts": business.receipts,
    "brake": business.brake,
    "pauses": business.paused,
    "changed": business.changed,
    "awaited": business.awaited,
    "dead letters": servers.dead_letters,
}
_ASK_PROVIDERS = {"push", "sms", "sms providers"}


def stream(here: Services) -> Iterator[Check]:
    """Run all checks, and yield their answers as they come, the last within the longest deadline.

    None of them changes anything, and one that cannot run, or hangs, reports itself as an error.
    """
    others = {name: partial(providers.other_channel, name=name) for name in CHANNELS if name != SMS}
    checks = _CHECKS | others
    longer = dict.fromkeys([*_ASK_PROVIDERS, *others], PROVIDERS_DEADLINE_S)
    calls = {name: partial(check, here) for name, check in checks.items()}
    for name, answer in in_time(calls, DEADLINE_S, longer):
        yield _check(name, answer)


def examine(here: Services) -> list[Check]:
    """Return the answers of all checks, in their order."""
    order = [*_CHECKS, *CHANNELS]
    return sorted(stream(here), key=lambda check: order.index(check.name))


def _check(name: str, answer: Finding | Exception) -> Check:
    if isinstance(answer, CredentialsUnavailable):
        return Check(name, Level.WARNING, f"{answer}; 'knocktwice up' lets the sandbox stand in")
    if isinstance(answer, TooLate):
        return Check(name, Level.ERROR, f"{answer}: a server that it asks hangs, or is not reachable")
    if isinstance(answer, Exception):
        told = str(answer).splitlines()[0] if str(answer) else ""
        return Check(name, Level.ERROR, f"{type(answer).__name__}: {told}"[:300])
    return Check(name, *answer)
