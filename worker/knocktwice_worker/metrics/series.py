"""The series: every name, its kind, its labels and what it means. Labels come from closed sets, or are cut off."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Rows are counted up to here, because a scrape must not read tables.
MOST_COUNTED = 10_000


class Kind(StrEnum):
    """The kind of a series, in Prometheus's terms."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Series:
    """A series.

    Attributes:
        name: as Prometheus knows it, without the endings of counters and histograms.
        meaning: for people.
        labels: the names of its labels.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """A value of a series.

    Attributes:
        name: the name of the series.
        labels: the values of its labels, in order.
        buckets: of a histogram: upper bound → how many were at most so long; ``value`` is then their sum.
    """

    name: str
    value: float
    labels: tuple[str, ...] = ()
    buckets: Mapping[str, float] | None = None


def _series(kind: Kind, **meanings: str | tuple[str, ...]) -> list[Series]:
    found = []
    for name, said in meanings.items():
        meaning, *labels = (said,) if isinstance(said, str) else said
        found.append(Series(f"knocktwice_{name}", kind, meaning, tuple(labels)))
    return found


SERIES: Mapping[str, Series] = {
    series.name: series
    for series in (
        *_series(
            Kind.COUNTER,
            provider_answers=("Answers of providers by their own code.", "provider", "outcome", "code"),
            decisions=("Decisions about steps that were due.", "verdict"),
            watched=(
                "Messages that went and that watched rules (trials, brakes that watch) would have stopped; rule 'any': each once.",
                "rule",
            ),
            receipts=("Receipts written.", "kind"),
            gateway_answers=("Answers of the gateway.", "status"),
        ),
        *_series(
            Kind.HISTOGRAM,
            timer_lateness_seconds="From the time of a step to the worker that took it up; a batch counts as its latest.",
            enqueue_to_provider_seconds="From the application's call to the answers of the push provider, or to the rows.",
            receipt_delay_seconds="From a receipt's own time to its row; a batch counts as its oldest.",
        ),
        *_series(
            Kind.GAUGE,
            build_info=("The version of knocktwice that answers.", "version"),
            part_up=("Whether a part could be read: broker, queues, budget, database, figures.", "part"),
            part_seconds=("How long reading a part took.", "part"),
            # Broker
            queue_length=("Messages in a queue.", "queue"),
            inbox_messages="Accepted messages that are not committed yet.",
            inbox_oldest_seconds="The low-water mark of acceptance: age of the oldest accepted message not committed.",
            backlog_share="How full the inbox is; from 1 on calls are refused.",
            broker_memory_bytes="Memory that the broker uses.",
            broker_memory_limit_bytes="Memory that it may use; 0: no limit.",
            # Fleet
            members=("Running processes.", "role"),
            workers=("Workers that take messages from a queue.", "queue"),
            settings_differing="Settings in which running workers differ from each other.",
            clock_ahead_seconds="The largest difference between a worker's clock and the database's.",
            credentials_failing=("Workers whose credentials of a channel do not work.", "channel"),
            provider_trouble=("1: a provider refuses us or fails.", "provider", "operators"),
            push_paused="1: FCM's limit of the project was met, and pushes are paused.",
            budget_spent_parts=("SMS parts used today; category 'all' is the total.", "category"),
            budget_limit_parts=("SMS parts allowed today, where there is a limit.", "category"),
            project_budget_spent_parts=(
                "SMS parts that a project used today of its own budget; category 'all' is the total.",
                "project",
                "category",
            ),
            project_budget_limit_parts=(
                "SMS parts of its own that a project is allowed today, where there is a limit.",
                "project",
                "category",
            ),
            # Database
            steps_overdue="Steps that should have been looked at a minute ago; counted up to 10000.",
            step_overdue_seconds="The low-water mark of countdowns: how late the step is that has waited longest.",
            steps_due=("Steps that are due within a time; counted up to 10000.", "within"),
            steps_open_estimate="Open steps, as PostgreSQL's statistics estimate them.",
            follower_lag_seconds=("The low-water mark of a follower of changes: how far it is behind.", "follower"),
            brakes_on="Brakes that hold new SMS.",
            brake_held="SMS that brakes hold; counted up to 10000.",
            brake_passed="SMS that brakes of the last 90 days would have held, had the settings not only watched.",
            pauses=("Pauses that operators have set and that are on; channel 'all': not of one channel.", "channel"),
            paused_messages="Messages that wait for pauses; counted up to 10000.",
            dead_letters="Parked messages; counted up to 10000.",
            webhook_endpoints=("Endpoints of webhooks.", "state"),
            webhooks_waiting="Events that endpoints have not taken; counted up to 10000.",
            webhook_oldest_seconds="How long the event has been due that has waited longest.",
            provider_reports_waiting="Reports not written to their messages yet; counted up to 10000.",
            alarms_lately=("Alarms of the last hour.", "type"),
            migrations_pending="Migrations that the database lacks.",
            # Figures of the day
            today_notifications=("Notifications accepted today, by what became of them.", "category", "state"),
            today_sms=("SMS of notifications accepted today.", "category", "state"),
            today_sms_parts=("Parts of these SMS, by which they are paid.", "category"),
            today_suppressed=("Notifications accepted today whose SMS was suppressed.", "reason"),
            today_cost="What the messages have cost, in the currency of the prices; absent where a price is missing.",
            today_sms_only_cost="What an SMS to everybody would have cost; absent where a price is missing.",
            figures_age_seconds="How old the figures of the day are.",
        ),
    )
}
