"""The guard before anything is processed: what was said of a person before their erasure counts no more.

A message may wait in a queue while its person is erased. It must not bring them back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from knocktwice_shared.ids import created_at
from knocktwice_shared.messages import OptOutSet, PhoneBound, Push, Recipient, UserErased
from knocktwice_worker.audience import opt_outs
from knocktwice_worker.notation.phone_numbers import spelled
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection, Engine

    from knocktwice_shared.messages import AudienceChange, Batch
    from knocktwice_worker.audience.erased import Erased

#: The placeholder for a content that was only about the erased person.
_NOTHING = Push("", "")


@dataclass(frozen=True, kw_only=True)
class ErasureGuard:
    """Takes erased people out of what is still to be processed.

    Attributes:
        engine: where notifications of erased people are cancelled.
        erased: who was erased, and when.
        secret: the installation's key, with which numbers of erased people were hashed.
    """

    engine: Engine
    erased: Erased
    secret: bytes

    def without_erased(self, batch: Batch) -> Batch:
        """Return a batch in which nothing is said of people who were erased after it was made; theirs are cancelled.

        Costs no query for a batch without them, but for one in :data:`~knocktwice_worker.audience.erased.REFRESH`.
        """
        erased = self.erased.recall({r.user for r in batch.recipients if r.user is not None})
        if not erased:
            return batch
        void = [r.id for r in batch.recipients if r.user in erased and r.id and _was_made(r.id) <= erased[r.user]]
        if not void:
            return batch
        with self.engine.begin() as conn:
            store.cancel(conn, [str(id_) for id_ in void], [], datetime.now(UTC))
        left = replace(batch, recipients=tuple(Recipient(id=r.id) if r.id in void else r for r in batch.recipients))
        if len(void) < len(batch.recipients):
            return left
        left = replace(left, plan=(), reference={})
        return left if batch.template is not None else _empty(left)

    def erased_meanwhile(self, conn: Connection, batches: Sequence[Batch]) -> list[str]:
        """Return the notifications of batches whose people were erased lately, after the batch was made.

        An erasure does not see rows that are being written. So whoever has written them asks once they are committed.
        """
        until = self.erased.lately(conn)
        if not until:
            return []
        return [
            str(r.id)
            for batch in batches
            for r in batch.recipients
            if r.user is not None
            and r.id is not None
            and (erased := until.get(self.erased.person(r.user))) is not None
            and _was_made(r.id) <= erased
        ]

    def still_valid(self, conn: Connection, changes: Sequence[AudienceChange]) -> list[AudienceChange]:
        """Return the changes that no erasure has made void. The erasures themselves are left out."""
        facts = [c for c in changes if not isinstance(c, UserErased)]
        until = self.erased.find(conn, {user for c in facts if (user := _about(c)) is not None})
        for c in changes:
            if isinstance(c, UserErased):
                until[c.user] = max(c.at, until.get(c.user, c.at))
        return [c for c in facts if (user := _about(c)) is None or user not in until or c.at > until[user]]

    def restore_opt_outs(self, conn: Connection, changes: Sequence[AudienceChange]) -> None:
        """Keep the opt-out of an erased person for the present owner of the number."""
        numbers = {spelled(c.phone) for c in changes if isinstance(c, PhoneBound) and c.phone is not None}
        opt_outs.restore(conn, numbers, self.secret)


def _empty(batch: Batch) -> Batch:
    """Return a batch that says nothing, in any language."""
    return replace(batch, push=_NOTHING, sms_text=None, locales=(), default_locale=None)


def _about(change: AudienceChange) -> str | None:
    """Return whom a change is about, if it names a person."""
    return None if isinstance(change, OptOutSet) else change.user


def _was_made(id_: UUID) -> datetime:
    # Only a UUIDv7 contains its time. Any other id counts as new; otherwise no erased person could ever come back.
    return created_at(id_) if id_.version == 7 else datetime.max.replace(tzinfo=UTC)
