"""The parts that outlive a change of the settings: connections, clients with credentials, counters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from knocktwice_shared import rabbitmq
from knocktwice_worker.cells.neighbours import Neighbours
from knocktwice_worker.channels.fcm import FcmChannel
from knocktwice_worker.channels.outbound.transport import Transport
from knocktwice_worker.channels.outbound.troubles import Troubles
from knocktwice_worker.counters.counters import Counters
from knocktwice_worker.database import engine
from knocktwice_worker.embedded.installation import broker_url, connect_redis, database_url, state_url
from knocktwice_worker.queues.lengths import InRabbitMq, InRedis
from knocktwice_worker.webhooks.carrier import Hooks

if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Engine

    from knocktwice_worker.config import Settings
    from knocktwice_worker.queues.lengths import Lengths


#: Connections for short transactions. If more threads need one at once, some of them wait.
CONNECTIONS = 10
#: How long a short transaction may be idle. The limits are asked within one, and Redis may take ten seconds to answer.
_IDLE = timedelta(seconds=20)
#: The most bytes of an answer; a page of a provider's list has some hundred thousand.
LARGEST_ANSWER = 32 << 20


@dataclass(frozen=True)
class Connections:
    """The parts that a process opens once and keeps, by name. Each is opened when it is first used.

    Attributes:
        settings: the settings of the installation.
    """

    settings: Settings

    @cached_property
    def engine(self) -> Engine:
        """The engine for short transactions: claims, decisions, records."""
        settings = self.settings
        return engine.create(database_url(settings), pool_size=CONNECTIONS, idle=_IDLE, pooled=settings.database_pooled)

    @cached_property
    def senders(self) -> Engine:
        """The engine for transactions that last as long as a provider call; separate, to keep short ones free."""
        settings = self.settings
        return engine.create(
            database_url(settings), pool_size=20, idle=2 * settings.lease, pooled=settings.database_pooled
        )

    @cached_property
    def redis(self) -> Redis:
        """The client of Redis, which has the inbox and the limits."""
        return connect_redis(state_url(self.settings))

    @cached_property
    def queues(self) -> Lengths:
        """The queues' lengths."""
        url = broker_url(self.settings)
        return InRabbitMq(url) if rabbitmq.carries(url) else InRedis(self.redis)

    @cached_property
    def transport(self) -> Transport:
        """The HTTP engine."""
        settings = self.settings
        return Transport(
            timeout=settings.provider_timeout_s, in_flight=settings.provider_in_flight, most_bytes=LARGEST_ANSWER
        )

    @cached_property
    def hooks(self) -> Hooks:
        """The sender of webhook requests."""
        return Hooks(private=self.settings.webhook_private)

    @cached_property
    def push(self) -> FcmChannel:
        """Firebase Cloud Messaging."""
        settings = self.settings
        return FcmChannel(
            url=settings.fcm_url, credentials_file=settings.google_application_credentials, project=settings.fcm_project
        )

    @cached_property
    def counters(self) -> Counters:
        """The counts of this process."""
        return Counters(on=self.settings.metrics)

    @cached_property
    def troubles(self) -> Troubles:
        """The providers that refuse us or fail."""
        return Troubles(self.redis, self.counters)

    @cached_property
    def neighbours(self) -> Neighbours | None:
        """The cells; ``None``: this installation is alone."""
        cells, name = self.settings.cells(), self.settings.cell
        return None if cells is None or name is None else Neighbours(cells, name)

    def kept(self) -> dict[str, object]:
        """Return what was opened until now, by name."""
        names = [name for name, part in vars(Connections).items() if isinstance(part, cached_property)]
        return {name: self.__dict__[name] for name in names if name in self.__dict__}

    def close(self) -> None:
        """Close what was opened."""
        for name, close in (
            ("engine", "dispose"),
            ("senders", "dispose"),
            ("queues", "close"),
            ("redis", "close"),
            ("transport", "close"),
            ("hooks", "close"),
            ("neighbours", "close"),
        ):
            if (part := self.__dict__.pop(name, None)) is not None:
                getattr(part, close)()
