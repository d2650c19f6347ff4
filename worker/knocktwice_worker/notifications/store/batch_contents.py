"""The contents that the messages of a batch share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from knocktwice_shared.messages import Category

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta


@dataclass(frozen=True, slots=True)
class BatchContents:
    """The contents that the messages of a batch share.

    Attributes:
        content: the stored texts, see ``content/rendering.py``.
        plan: the stored later steps, see ``content/plans.py``.
        category: the category of the messages.
        ttl: how long the provider may keep the push for a device that is offline.
        blast_id: the blast that the batch is a page of; ``None``: it is of none.
        valid_for: how long after it was due a message is of use; ``None`` is the category's setting.
    """

    content: dict[str, Any]
    plan: list[dict[str, Any]] | None
    category: Category
    ttl: timedelta
    blast_id: str | None = None
    valid_for: timedelta | None = None


# One row per batch, because up to five hundred notifications share one content.
_CONTENTS = text("""
SELECT
  b.id,
  b.content,
  b.plan,
  b.category,
  b.ttl,
  p.blast_id,
  b.valid_for
FROM batches b
LEFT JOIN blast_pages p ON p.id = b.id
WHERE b.id = ANY(CAST(:ids AS uuid[]))
""")


def contents(conn: Connection, ids: Iterable[str]) -> dict[str, BatchContents]:
    """Return batch id → contents."""
    found = conn.execute(_CONTENTS, {"ids": sorted(set(ids))}).all()
    return {
        str(id_): BatchContents(content, plan, Category(category), ttl, blast and str(blast), valid_for)
        for id_, content, plan, category, ttl, blast, valid_for in found
    }
