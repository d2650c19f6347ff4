"""The effect of a provider's answer on a message: it is sent, has failed, is tried again, or is looked for."""

from __future__ import annotations

from datetime import timedelta

from knocktwice_worker.channels.http import backoff
from knocktwice_worker.channels.outcomes import Outcome, Rejected, Retry, Sent, Unknown
from knocktwice_worker.lifecycle import DeliveryState, Refusal, Untextable
from knocktwice_worker.notifications import store

#: How soon after an unclear answer the provider's list is asked.
_LOOK_AFTER = timedelta(seconds=2)

#: Refusals that speak of the number, in the words of rejections.
_UNTEXTABLE = frozenset(map(str, Untextable))
#: How long a message waits at most before it is tried again that the operator must help first.
_LONGEST_HOLD = timedelta(minutes=10)


def result_of(row: store.ClaimedStep, outcome: Outcome, give_up: timedelta, tried_for: timedelta) -> store.StepResult:
    """Return the result of a message.

    Args:
        row: the message.
        outcome: the provider's answer.
        give_up: after so long a message is tried no more.
        tried_for: for how long it has been tried.
    """
    id_ = row.notification_id
    match outcome:
        case Sent(provider_id):
            return store.StepResult(id_, DeliveryState.SENT, provider_id=provider_id)
        case Rejected(opted_out=True):
            return store.StepResult(id_, DeliveryState.FAILED, reason=Refusal.OPTED_OUT, opted_out=True)
        case Rejected(reason, detail):
            why = Untextable(reason) if reason in _UNTEXTABLE else None
            said = f"{reason}: {detail}" if detail else reason
            return store.StepResult(id_, DeliveryState.FAILED, reason=said, untextable=why)
        case Retry(reason, after, _, ours) if ours:
            return store.StepResult(id_, DeliveryState.RESERVED, reason=reason, wake_after=after)
        case Retry(reason, after, operators=True):
            # Held until it is mended. Once it is of no use any more the last look before the call ends it.
            wait = max(after or timedelta(), min(backoff(row.tries), _LONGEST_HOLD))
            return store.StepResult(id_, DeliveryState.RESERVED, reason=reason, wake_after=wait)
        case Retry(reason, after):
            if tried_for > give_up:
                return store.StepResult(id_, DeliveryState.FAILED, reason=f"gave up: {reason}")
            return store.StepResult(id_, DeliveryState.RESERVED, reason=reason, wake_after=after or backoff(row.tries))
        case Unknown(reason, _):
            return store.StepResult(id_, DeliveryState.SENDING, reason=reason, wake_after=_LOOK_AFTER)
