"""Refusals that operators must mend, and providers that fail: logged within a minute, shown by ``knocktwice doctor``.

While all goes well this costs no request: only failures are written to Redis, and the end of the trouble by the process
that had seen it. Answers are counted in passing (``answers.py``).
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from knocktwice_worker.channels.outbound import answers
from knocktwice_worker.channels.outcomes import Outcome, Rejected, Retry, Unknown
from knocktwice_worker.counters.counters import Counters
from knocktwice_worker.lifecycle import Untextable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

    from knocktwice_worker.channels.reports import StatusReport

log = structlog.get_logger(__name__)

#: A hash: provider → its trouble, as JSON.
_KEY = "knocktwice:troubles"
#: Seconds: how often one trouble is logged, over how long failures are counted, and when a trouble is over unless it is
#: seen again.
_LOG_EVERY_S, _WINDOW_S, _OVER_S = 60, 60, 900
#: From so many messages in a minute, half of them failed, a provider fails.
_SAMPLE = 5
#: So many failures one after another are a trouble, too, however long they take: a quiet installation hands over few
#: messages.
_IN_A_ROW = 3
#: So many rejections one after another are a trouble whatever their reasons; of a few, the numbers may be to blame.
_REJECTED_IN_A_ROW = 20
#: Reasons of rejections that speak of the recipient's address.
_OF_ADDRESS = frozenset({*map(str, Untextable), "unregistered", "opted_out", "unreachable_from_sender"})


@dataclass(frozen=True, slots=True)
class Trouble:
    """The trouble with a provider.

    Attributes:
        provider: its name; of a push: ``fcm``.
        reason: its latest refusal or failure, without personal data.
        operators: the operator must mend it: account, sender, region.
        count: messages that met it, as far as one process has seen.
        at: when it was seen last.
    """

    provider: str
    reason: str
    operators: bool
    count: int
    at: datetime


@dataclass(slots=True)
class _Seen:
    """A provider's answers, as this process has seen them.

    Attributes:
        counted: time, good and bad messages of the last minute.
        told: how many messages met the present trouble; 0: there is none.
        logged_at: when it was logged last.
        partial: other messages went meanwhile, so one that goes does not show that the trouble is over.
        in_a_row, rejected: failures and rejections since the provider took a message last.
    """

    counted: deque[tuple[float, int, int]] = field(default_factory=deque)
    told: int = 0
    logged_at: float = 0.0
    partial: bool = False
    in_a_row: int = 0
    rejected: int = 0

    def nothing_goes(self, took: int, bad: Sequence[Outcome], rejected: Sequence[Rejected]) -> bool:
        """Count what met a batch; return whether the provider takes nothing at all."""
        if took:
            self.in_a_row = self.rejected = 0
            return False
        of_address = sum(o.address_dead or o.opted_out or o.reason in _OF_ADDRESS for o in rejected)
        self.in_a_row += len(bad) + len(rejected) - of_address
        self.rejected += of_address
        return self.in_a_row >= _IN_A_ROW or self.in_a_row + self.rejected >= _REJECTED_IN_A_ROW


class Troubles:
    """The troubles of an installation. Threads may share it.

    Args:
        redis: where troubles are noted.
        counters: where answers are counted.
    """

    def __init__(self, redis: Redis, counters: Counters | None = None) -> None:
        self._redis = redis
        self._counters = counters or Counters(on=False)
        self._lock = threading.Lock()
        self._seen: dict[str, _Seen] = {}

    def note(self, provider: str, outcomes: Sequence[Outcome]) -> None:
        """Take notice of what became of messages."""
        answers.count(self._counters, provider, outcomes)
        self._note(provider, outcomes)

    def _note(self, provider: str, outcomes: Sequence[Outcome]) -> None:
        bad = [o for o in outcomes if _failed(o)]
        rejected = [o for o in outcomes if isinstance(o, Rejected) and not o.operators]
        if not bad and not rejected and provider not in self._seen:
            return
        ours = sum(isinstance(o, Retry) and (o.too_fast or o.ours) for o in outcomes)
        with self._lock:
            change = self._change(provider, len(outcomes) - len(bad) - ours, bad, rejected)
        if change is None:
            return
        try:
            if change.count:
                pipe = self._redis.pipeline(transaction=False)
                pipe.hset(_KEY, provider, _written(change))
                pipe.expire(_KEY, 2 * _OVER_S)
                pipe.execute()
            else:
                self._redis.hdel(_KEY, provider)
        except RedisError as error:
            log.warning("provider trouble not noted", provider=provider, error=type(error).__name__)

    def reported(self, reports: Sequence[StatusReport]) -> None:
        """Take notice of messages that a provider had accepted, and that failed for what the operator must mend."""
        refused: dict[str, list[Outcome]] = {}
        for report in reports:
            if report.operators is not None:
                refused.setdefault(report.provider, []).append(Rejected("", report.operators, operators=True))
        for provider, outcomes in refused.items():
            self._note(provider, outcomes)

    def current(self) -> list[Trouble]:
        """Return the troubles that were seen lately, by provider."""
        now = datetime.now(UTC)
        found = [_read(name, text) for name, text in self._redis.hgetall(_KEY).items()]
        return sorted((t for t in found if (now - t.at).total_seconds() < _OVER_S), key=lambda t: t.provider)

    def _change(self, provider: str, good: int, bad: Sequence[Outcome], rejected: Sequence[Rejected]) -> Trouble | None:
        """Return what is to be written: a trouble, one without messages if it is over, or ``None`` for no news.

        Args:
            good: how many messages the provider answered about as it should, rejections included.
        """
        seen, now = self._seen.setdefault(provider, _Seen()), time.monotonic()
        refused = [o for o in bad if isinstance(o, Retry | Rejected) and o.operators]
        took = good - len(rejected)
        seen.counted.append((now, good, len(bad)))
        while seen.counted[0][0] < now - _WINDOW_S:
            seen.counted.popleft()
        goods, bads = (sum(entry[i] for entry in seen.counted) for i in (1, 2))
        failing = bool(bad) and goods + bads >= _SAMPLE and bads * 2 >= goods + bads
        nothing_goes = seen.nothing_goes(took, bad, rejected) and bool(bad or rejected)
        if refused or failing or nothing_goes:
            met: Sequence[Outcome] = refused or bad or rejected
            seen.told += len(met)
            seen.partial = seen.partial or (bool(bad) and goods > 0)
            reason = _reason(met[-1])
            if now - seen.logged_at >= _LOG_EVERY_S or not seen.logged_at:
                seen.logged_at = now
                event = "provider refuses us, the operator must mend it" if refused else "provider fails"
                log.warning(event, provider=provider, reason=reason, messages=seen.told)
            return Trouble(provider, reason, bool(refused), seen.told, datetime.now(UTC))
        if bads or not took:
            return None
        # A minute without failures. A partial trouble, like one region's, is forgotten here and ends by its age.
        del self._seen[provider]
        if not seen.told or seen.partial:
            return None
        log.info("provider works again", provider=provider, after_failed=seen.told)
        return Trouble(provider, "", False, 0, datetime.now(UTC))


def _failed(outcome: Outcome) -> bool:
    if isinstance(outcome, Rejected):
        return outcome.operators
    return isinstance(outcome, Unknown) or (isinstance(outcome, Retry) and not (outcome.too_fast or outcome.ours))


def _reason(outcome: Outcome) -> str:
    if isinstance(outcome, Rejected) and outcome.operators:
        return outcome.detail
    if isinstance(outcome, Rejected):
        return f"it rejects everything, the last one as {outcome.detail or outcome.reason}"
    return str(getattr(outcome, "reason", ""))


def _written(trouble: Trouble) -> str:
    return json.dumps([trouble.reason, trouble.operators, trouble.count, trouble.at.isoformat()])


def _read(name: bytes | str, text: bytes | str) -> Trouble:
    reason, operators, count, at = json.loads(text)
    return Trouble(
        name.decode() if isinstance(name, bytes) else name, reason, operators, count, datetime.fromisoformat(at)
    )
