"""kombu's Redis channel with what costs most per message done once: one client, and one round trip for many acknowledgements."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as kombu_redis

from knocktwice_worker.combine import Combiner


class _Acknowledgements(kombu_redis.QoS):
    """Notes of messages under way. Tasks that end at the same time are acknowledged together.

    Each still waits until Redis has it: an acknowledgement is never only in memory.
    """

    def ack(self, delivery_tag: str) -> None:
        """Forget a message that is done."""
        _together.run(self, delivery_tag, size=1)

    def ack_all(self, delivery_tags: list[str]) -> None:
        """Forget messages that are done."""
        with self.pipe_or_acquire() as pipe:
            pipe.zrem(self.unacked_index_key, *delivery_tags).hdel(self.unacked_key, *delivery_tags).execute()
        for tag in delivery_tags:
            # The virtual transport's own, which is about prefetching.
            super(kombu_redis.QoS, self).ack(tag)


_together: Combiner[_Acknowledgements, str] = Combiner(_Acknowledgements.ack_all, turns=1, most=1_000)


class Channel(kombu_redis.Channel):
    """A channel that keeps its Redis client; making one of redis-py 8 takes longer than a command takes."""

    QoS = _Acknowledgements

    _kept: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous=True)
        # A lost connection brings a new pool.
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()
        return self._kept
