"""The servers of an installation, its name among cells, its secret, and what it tells of itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from knocktwice_shared import cells, rabbitmq, sentinels
from knocktwice_worker.config.values import Group

if TYPE_CHECKING:
    from knocktwice_shared.cells import Cells


class InstallationSettings(Group):
    """Installation."""

    home: Path = Field(Path(".knocktwice"), description="Folder of the embedded servers' data.")
    database_url: str | None = Field(None, description="PostgreSQL, as postgresql://…; empty: the embedded server.")
    database_pooled: bool = Field(
        False, description="The database's address is that of PgBouncer in transaction mode; see docs/pgbouncer.md."
    )
    broker_url: str | None = Field(
        None,
        description="Redis or Valkey, as redis://…, rediss://… or sentinel://…, or RabbitMQ, as amqp://… or amqps://…; "
        "empty: the embedded server.",
    )
    state_url: str | None = Field(
        None,
        description="With RabbitMQ as the broker, the Redis or Valkey that keeps what was accepted; see docs/rabbitmq.md.",
    )
    cells_file: Path | None = Field(
        None, description="TOML file of the cells, among which people are shared out; see docs/cells.md."
    )
    cell: str | None = Field(None, description="The name of this installation in the file of cells.")
    secret: SecretStr | None = Field(
        None, description="Key for hashing numbers and signing URLs; empty: one is made and kept in the home folder."
    )
    log_json: bool = Field(False, description="Log lines as JSON.")
    sentry_dsn: SecretStr | None = Field(
        None, description="Where unexpected errors are reported: kinds and places in the code, nothing of a person."
    )
    traces_share: float = Field(
        0,
        ge=0,
        le=1,
        description="Share of the notifications whose traces go to OpenTelemetry (OTEL_EXPORTER_OTLP_ENDPOINT).",
    )
    metrics: bool = Field(True, description="Processes count what they do, for Prometheus and doctor.")
    heartbeat_file: Path | None = Field(
        None,
        description="A file that worker and beat touch every few seconds while they work, for probes of containers.",
    )

    @field_validator("broker_url")
    @classmethod
    def _broker_is_known(cls, value: str | None) -> str | None:
        if value is None or not rabbitmq.carries(value):
            return cls._is_redis(value)
        try:
            rabbitmq.parse(value)
        except ValueError:
            raise ValueError("is no URL of RabbitMQ, like amqp://user:password@host:5672/vhost") from None
        return value

    @field_validator("state_url")
    @classmethod
    def _is_redis(cls, value: str | None) -> str | None:
        scheme = "" if value is None else value.partition("://")[0]
        if scheme == "sentinel":
            try:
                sentinels.parse(str(value))
            except ValueError:
                raise ValueError(
                    "is no URL of Sentinels, like sentinel://one:26379;sentinel://two:26379/0?master_name=mymaster"
                ) from None
        elif value is not None and scheme not in ("redis", "rediss", "redis+socket"):
            raise ValueError("must be Redis or Valkey: redis://, rediss://, redis+socket:///path or sentinel://")
        return value

    @field_validator("database_url", "outbox_database_url")
    @classmethod
    def _database_is_postgres(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"(?:postgres|postgresql(?:\+psycopg2)?)://.", value):
            raise ValueError("must be PostgreSQL, like postgresql://user@host/database")
        return value

    @model_validator(mode="after")
    def _state_has_a_place(self) -> Self:
        if self.broker_url is not None and rabbitmq.carries(self.broker_url):
            if self.state_url is None:
                raise ValueError(
                    "KNOCKTWICE_STATE_URL must be set: KNOCKTWICE_BROKER_URL is RabbitMQ, which only carries the queues; what "
                    "was accepted, limits and counters are kept in Redis or Valkey, like redis://host:6379/0"
                )
        elif self.state_url not in (None, self.broker_url):
            raise ValueError(
                "KNOCKTWICE_STATE_URL is for RabbitMQ only: Redis and Valkey are the place of state, too; leave it out"
            )
        return self

    def cells(self) -> Cells | None:
        """Read the file of cells; ``None``: this installation is alone."""
        return None if self.cells_file is None else cells.read(self.cells_file)

    @property
    def error_reports_to(self) -> str | None:
        """Sentry's address, with its key."""
        return None if self.sentry_dsn is None else self.sentry_dsn.get_secret_value()
