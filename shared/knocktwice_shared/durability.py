"""Durability: how safely the broker keeps a message that is called *accepted*."""

from __future__ import annotations

from enum import StrEnum


class Durability(StrEnum):
    """A level of safety: how a message is kept before the call that accepts it returns."""

    #: The broker has it in memory, and writes it to its append-only file by its own rule. With ``appendfsync everysec``
    #: a power cut loses about the last second. So may ``kill -9`` of its process: while the disk is busy with what came
    #: before, the broker keeps what is new up to two seconds to itself.
    MEMORY = "memory"
    #: It is in the append-only file on the broker's disk (``WAITAOF``): a power cut loses nothing, a lost disk does.
    DISK = "disk"
    #: Replicas have it in memory (``WAIT``): the loss of the primary loses nothing if one of them takes over.
    REPLICA = "replica"

    @property
    def promise(self) -> str:
        """The level in words, to stand behind "accepted: "."""
        return _PROMISES[self]


_PROMISES = {
    Durability.MEMORY: "in the broker's memory; a crash of the broker within two seconds may lose it",
    Durability.DISK: "on the broker's disk",
    Durability.REPLICA: "in the memory of the broker and of its replicas",
}
