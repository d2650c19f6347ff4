"""An application's request for a blast: checked and then started. A blast can be aborted by its key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import blast_id
from knocktwice_worker.audience import segment_filter, segments
from knocktwice_worker.blasts import content, own_params, standing, states
from knocktwice_worker.channels.opened import require_carriers, with_settings
from knocktwice_worker.content import plans
from knocktwice_worker.content.links.short_links import example

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from sqlalchemy import Connection

    from knocktwice_shared.messages import Blast
    from knocktwice_worker.audience.segment_filter import Filter
    from knocktwice_worker.blasts.content import BlastContent
    from knocktwice_worker.config import Settings


class Started(NamedTuple):
    """A blast's id, and whether it is new: a key that was used before starts nothing."""

    id: UUID
    new: bool


def start(
    conn: Connection,
    blast: Blast,
    schedule: str | None = None,
    *,
    settings: Settings | None = None,
    sample: Mapping[str, Any] | None = None,
) -> Started:
    """Start a blast, which a worker takes up within its next tick.

    Args:
        schedule: the recurring blast that it is one of.
        settings: how long the links in its texts are, and which delays are allowed; without them neither is looked at.
        sample: values of one person, where each has values that were gathered before (``own_params.py``); only they are
            notified. ``None``: all have the same.

    Raises:
        InvalidMessage: there is no such segment or template, the filter is none, a parameter is missing, or a delay is
            not allowed. The key stays free.
    """
    id_ = blast_id(blast.key, blast.project)
    if standing.of(conn, blast) is None:
        wanted = audience(conn, blast)
        check_content(conn, blast if sample is None else filled(blast, sample), settings)
        if states.start(conn, blast, segment_filter.dump(wanted), schedule, own_params=sample is not None):
            if sample is not None:
                own_params.keep(conn, str(id_))
            return Started(id_, True)
    return Started(id_, False)


def filled(blast: Blast, sample: Mapping[str, Any]) -> Blast:
    """Return a blast in which everybody has the values of one person beside those that all have."""
    return replace(blast, params={**content.values(blast.params), **sample})


def differs(conn: Connection, blast: Blast) -> bool:
    """Return whether the blast that has this key is for other people, or says something else.

    Raises:
        InvalidMessage: the filter is none.
    """
    own = None if blast.filter is None else segment_filter.dump(segment_filter.parse(blast.filter, "filter"))
    return standing.differs(conn, blast, own)


def audience(conn: Connection, blast: Blast) -> Filter:
    """Return who a blast is for.

    Raises:
        InvalidMessage: there is no such segment, or the filter is none.
    """
    if blast.segment is None:
        return segment_filter.parse(blast.filter, "filter")
    try:
        return segments.get(conn, blast.segment).filter
    except segments.UnknownSegment as error:
        raise InvalidMessage("segment", str(error)) from None


def content_of(conn: Connection, blast: Blast) -> BlastContent:
    """Return what a blast says, without filling it in.

    Raises:
        InvalidMessage: there is no such template, or it forbids what the blast wants.
    """
    return content.of(conn, blast)


def check_content(conn: Connection, blast: Blast, settings: Settings | None = None) -> BlastContent:
    """Return what a blast says, filled in once: what is missing is missing for all.

    Raises:
        InvalidMessage: a parameter is missing, a text is too long, a delay is not allowed, no provider takes its media,
            or there is no such template.
    """
    said = content_of(conn, blast)
    try:
        if settings is not None:
            plans.check_delays(said.plan, least_s=settings.min_after_s, most_s=settings.max_after_s)
            require_carriers(said.plan, with_settings(settings))
        said.check(example(settings.link_address) if settings else None)
    except InvalidMessage as error:
        if blast.template is None:
            raise
        raise InvalidMessage(f"template {blast.template} {error.field}", error.problem) from None
    return said
