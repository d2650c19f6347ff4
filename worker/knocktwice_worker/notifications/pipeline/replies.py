"""Replies of people to messages: each counts as an answer to the newest message that it can be about."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from knocktwice_worker.audience import inbound_texts
from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from sqlalchemy import Connection

    from knocktwice_worker.audience.inbound_texts import InboundText
    from knocktwice_worker.channels.opened import Channels

_NUMBER = re.compile(r"\+?[0-9]+")


def receive(
    conn: Connection, texts: Sequence[InboundText], secret: bytes, channels: Channels, within: timedelta
) -> list[str]:
    """Keep texts that people wrote, and note which of them answer a message.

    A text and its answer are committed together, so a reply counts in every decision from the moment at which its
    provider was told that it is kept. If nobody knows yet whether the newest message has left, the one before it is answered,
    too: one of both was, and nobody is texted again who has written back.

    Args:
        secret: the installation's key, with which numbers of erased people were hashed.
        within: how long ago a message may have been sent; zero: no text answers anything.

    Returns:
        The notifications that were answered. Settle their receipts after the commit.
    """
    fresh = inbound_texts.receive(conn, texts, secret)
    replies = {
        kept.id: (store.Reply(kept.id, kept.text.number, kept.text.channel, kept.received_at), kept.text.sender)
        for kept in fresh
        if kept.text.channel in CHANNELS and not kept.is_wish
    }
    if not replies or not within:
        return []
    answered: dict[str, list[store.Answerable]] = defaultdict(list)
    for one in store.answerable(conn, [reply for reply, _ in replies.values()], within):
        reply, to = replies[one.reply]
        before = answered[one.reply]
        if not (before and before[-1].arrived) and _may_be_from(channels, reply.channel, one, to):
            before.append(one)
    inbound_texts.note_answers(conn, {id_: found[-1].notification_id for id_, found in answered.items() if found})
    return store.record_replies(conn, [(replies[id_][0], one) for id_, found in answered.items() for one in found])


def _may_be_from(channels: Channels, channel: str, message: store.Answerable, to: str | None) -> bool:
    """Whether a message may have come from the sender to which a reply was written.

    A pool of numbers has a name of its own, and only the provider knows from which of its numbers a message went.
    """
    sender = channels.provider(channel, message.provider).sender_of(message.sender)
    return to is None or sender is None or sender == to or not _NUMBER.fullmatch(sender)
