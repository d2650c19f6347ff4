"""The series that come from Redis: queues, inbox, counters, the fleet, troubles and the budget."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, cast

from knocktwice_shared.names import INBOX_ACCEPTED, INBOX_BACKLOG, Queue
from knocktwice_worker.counters import totals
from knocktwice_worker.counters.counters import BOUNDS, SUM, Count, Span
from knocktwice_worker.diagnosis.inbox_age import oldest_s
from knocktwice_worker.fleet import fingerprints, members
from knocktwice_worker.metrics.series import Sample
from knocktwice_worker.runtime import budget_alarms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from knocktwice_worker.fleet.members import Member
    from knocktwice_worker.services import Services

#: The most codes of one provider that have a series of their own; the rarest others are ``other`` together.
_MOST_CODES = 40


def read(here: Services) -> Iterator[Sample]:
    """Yield the samples."""
    redis = here.redis
    pipe = redis.pipeline(transaction=False)
    pipe.zcard(INBOX_ACCEPTED)
    pipe.hget(INBOX_BACKLOG, "used")
    pipe.info("memory")
    inbox, used, memory = pipe.execute()
    yield Sample("knocktwice_inbox_messages", inbox)
    yield Sample("knocktwice_inbox_oldest_seconds", oldest_s(redis))
    settings = here.settings
    share = max(inbox / settings.backlog_messages, int(used or 0) / settings.backlog_bytes)
    yield Sample("knocktwice_backlog_share", share)
    yield Sample("knocktwice_broker_memory_bytes", cast("dict[str, Any]", memory)["used_memory"])
    yield Sample("knocktwice_broker_memory_limit_bytes", cast("dict[str, Any]", memory).get("maxmemory", 0))
    for trouble in here.troubles.current():
        yield Sample("knocktwice_provider_trouble", 1, (trouble.provider, str(trouble.operators).lower()))
    yield Sample("knocktwice_push_paused", float(here.push_pace.paused_until() is not None))
    yield from _fleet(members.list_all(redis))
    yield from counted(totals.read(redis))


def read_queues(here: Services) -> Iterator[Sample]:
    """Yield the samples of the queues, which may be in RabbitMQ."""
    for queue, length in here.queues.lengths().items():
        yield Sample("knocktwice_queue_length", length, (queue.value,))


def _fleet(found: Sequence[Member]) -> Iterator[Sample]:
    there = [one for one in found if not one.gone]
    workers = [one for one in there if one.role == "worker"]
    for role in ("worker", "beat"):
        yield Sample("knocktwice_members", sum(one.role == role for one in there), (role,))
    for queue in Queue:
        yield Sample("knocktwice_workers", sum(queue.value in one.queues for one in workers), (queue.value,))
    differing = {name for one in workers for name in fingerprints.differences(workers[0].settings, one.settings)}
    yield Sample("knocktwice_settings_differing", len(differing))
    if ahead := [abs(one.ahead_s) for one in there if one.ahead_s is not None]:
        yield Sample("knocktwice_clock_ahead_seconds", max(ahead))
    for channel in sorted({name for one in workers for name in one.credentials}):
        failing = sum(bool(one.credentials.get(channel)) for one in workers)
        yield Sample("knocktwice_credentials_failing", failing, (channel,))


def counted(found: Mapping[tuple[str, ...], float]) -> Iterator[Sample]:
    """Yield the samples of what processes have counted."""
    for what in Count:
        own = {key[1:]: count for key, count in found.items() if key[0] == what.value}
        for labels, count in (_bounded(own) if what is Count.PROVIDER_ANSWERS else own).items():
            yield Sample(f"knocktwice_{what.value}", count, labels)
    for span in Span:
        lengths = {key[1]: count for key, count in found.items() if key[0] == span.value}
        buckets, so_far = {}, 0.0
        for bound in (*map(str, BOUNDS), "+Inf"):
            so_far += lengths.get(bound, 0)
            buckets[bound] = so_far
        yield Sample(f"knocktwice_{span.value}_seconds", lengths.get(SUM, 0.0), buckets=buckets)


def _bounded(answers: Mapping[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """Return answers with the rarest codes of a provider that has very many put together."""
    codes: dict[str, Counter[str]] = defaultdict(Counter)
    for (provider, _, code), count in answers.items():
        codes[provider][code] += int(count)
    kept = {provider: {code for code, _ in own.most_common(_MOST_CODES)} for provider, own in codes.items()}
    bounded: Counter[tuple[str, ...]] = Counter()
    for (provider, outcome, code), count in answers.items():
        bounded[provider, outcome, code if code in kept[provider] else "other"] += int(count)
    return dict(bounded)


def budget(here: Services) -> Iterator[Sample]:
    """Yield the samples of the day's budget, which Redis counts while there is one."""
    for use in budget_alarms.uses(here)[1]:
        of, labels = ("budget", (use.name,)) if use.project is None else ("project_budget", (use.project, use.name))
        yield Sample(f"knocktwice_{of}_spent_parts", use.used, labels)
        if use.limit:
            yield Sample(f"knocktwice_{of}_limit_parts", use.limit, labels)
