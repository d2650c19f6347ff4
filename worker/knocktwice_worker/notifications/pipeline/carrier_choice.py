"""The choice of a provider for each message, where a channel has several, and the change to another one after a refusal."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from knocktwice_shared.test_side import is_test
from knocktwice_worker.channels.outbound.provider_choice import Choice
from knocktwice_worker.channels.outcomes import Outcome, Retry
from knocktwice_worker.database.test_rows import STAND_IN
from knocktwice_worker.lifecycle import DeliveryState, Note
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline.pauses import Candidate as Pausable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from knocktwice_worker.channels.opened import Channels
    from knocktwice_worker.channels.outbound.provider_choice import Why
    from knocktwice_worker.notifications.pipeline.pauses import PauseGate

_StepT = TypeVar("_StepT", store.ReservedStep, store.ClaimedStep)


@dataclass(frozen=True, kw_only=True)
class CarrierChoice:
    """Chooses providers.

    Attributes:
        channels: the channels of later steps, with their providers.
        pauses: knows the providers that operators have paused.
    """

    channels: Channels
    pauses: PauseGate

    def able(self, row: store.ReservedStep) -> Sequence[str]:
        """Return the providers that :meth:`choose` may choose for a message; none, if none can send it."""
        if is_test(row.project):
            return [STAND_IN]
        if row.provider and (row.tries or self.channels.choice(row.channel) is None):
            return [row.provider] if self.channels.provider(row.channel, row.provider).carries(row.text) else []
        return self.channels.carriers(row.channel, row.text)

    def choose(self, conn: Connection, rows: Sequence[store.ReservedStep]) -> dict[str, Choice]:
        """Choose a provider for each message: where a channel has several, by weight and health; else its usual one.

        What was tried stays with its provider. A paused provider is not chosen while another is left. No provider is chosen
        for a test.
        """
        avoided = self.pauses.avoided(conn, (as_pausable(row, ()) for row in rows))
        chosen = {row.notification_id: Choice(STAND_IN) for row in rows if is_test(row.project)}
        for channel, own in _by_channel([row for row in rows if row.notification_id not in chosen]).items():
            choice = self.channels.choice(channel)
            if choice is None:
                usual = self.channels[channel].usual
                chosen |= {row.notification_id: Choice(row.provider or usual) for row in own}
            else:
                tried = [(row.notification_id, row.provider, row.tries) for row in own]
                chosen |= choice.choose(tried, avoided, self._unable(own))
        return chosen

    def have_choice(self, rows: Sequence[store.ClaimedStep]) -> bool:
        """Whether a channel of these messages has several providers."""
        return any(self.channels.choice(channel) is not None for channel in {row.channel for row in rows})

    def note(
        self, held: Sequence[store.ClaimedStep], chosen: Mapping[str, Choice], outcomes: Sequence[Outcome]
    ) -> None:
        """Let the choice of providers learn from the outcomes."""
        noted: dict[str, list[tuple[str, Why | None, Outcome]]] = defaultdict(list)
        for row, outcome in zip(held, outcomes, strict=True):
            made = chosen[row.notification_id]
            if made.provider != STAND_IN:
                noted[row.channel].append((made.provider, made.why, outcome))
        for channel, own in noted.items():
            if choice := self.channels.choice(channel):
                choice.note(own)

    def moved(
        self,
        conn: Connection,
        held: Sequence[store.ClaimedStep],
        outcomes: Sequence[Outcome],
        results: Sequence[store.StepResult],
    ) -> list[store.StepResult]:
        """Move messages that their provider did not take, for a reason of its own, to another one that works.

        Only messages that were certainly not sent move, and none of which an earlier try was lost.
        """
        rows = {row.notification_id: row for row in held}
        refused = {
            result.notification_id: outcome.reason
            for result, outcome in zip(results, outcomes, strict=True)
            if isinstance(outcome, Retry)
            and not (outcome.too_fast or outcome.ours)
            and result.state is DeliveryState.RESERVED
        }
        refused = {i: why for i, why in refused.items() if self.channels.choice(rows[i].channel) is not None}
        if not refused:
            return list(results)
        current = {i: rows[i].provider for i in refused}
        avoided = self.pauses.avoided(conn, (as_pausable(rows[i], ()) for i in refused))
        nexts: dict[str, str] = {}
        for channel, own in _by_channel([rows[i] for i in store.may_move(conn, list(refused))]).items():
            if choice := self.channels.choice(channel):
                nexts |= choice.another([row.notification_id for row in own], current, avoided, self._unable(own))
        store.write_ledger(
            conn,
            [
                store.Decision(
                    i,
                    Note.PROVIDER_CHANGED,
                    {"from": current[i], "to": to, "reason": refused[i]},
                    rows[i].step,
                )
                for i, to in nexts.items()
            ],
        )
        return [self._by(r, nexts[r.notification_id], rows) if r.notification_id in nexts else r for r in results]

    def _unable(self, rows: Sequence[_StepT]) -> Callable[[str, str], bool]:
        """Return what says of a message and a provider of its channel whether the provider cannot send it."""
        of = {row.notification_id: row for row in rows}
        return lambda id_, name: name not in self.channels.carriers(of[id_].channel, of[id_].text)

    def _by(self, result: store.StepResult, provider: str, rows: Mapping[str, store.ClaimedStep]) -> store.StepResult:
        # After one round of all providers a message waits as long as any other.
        row = rows[result.notification_id]
        first_round = row.tries < len(self.channels.choice(row.channel) or ())
        return replace(result, provider=provider, wake_after=timedelta() if first_round else result.wake_after)


def as_pausable(row: store.ReservedStep | store.ClaimedStep, providers: Sequence[str]) -> Pausable:
    """Return a message as the pauses know it.

    Args:
        row: the message.
        providers: those by which it may go.
    """
    return Pausable(row.notification_id, row.channel, providers, row.sender, row.number)


def _by_channel(rows: Sequence[_StepT]) -> dict[str, list[_StepT]]:
    own: dict[str, list[_StepT]] = defaultdict(list)
    for row in rows:
        own[row.channel].append(row)
    return own
