"""Sends events to endpoints, in order: an event waits until the one before it of the same notification was taken."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from sqlalchemy import text

from knocktwice_worker.channels.http import NoResponse, Request
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.webhooks import heard, replies, signing
from knocktwice_worker.webhooks.endpoints import HEARD, INBOUND

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sqlalchemy import Connection, Engine, Row

    from knocktwice_worker.channels.http import Response
    from knocktwice_worker.webhooks.carrier import Hooks

log = structlog.get_logger(__name__)

#: Most events sent to one endpoint at once.
_AT_ONCE = 50
#: The time that a sender has; after it another sender sends the event again.
_LEASE = timedelta(minutes=1)
#: Wait after the first failure; four times as long after each further one, up to the longest.
_FIRST_WAIT, _LONGEST_WAIT = timedelta(seconds=5), timedelta(hours=6)
#: After so many refusals of one event by an endpoint that takes others, it is given up so that it holds up nothing.
_MOST_TRIES = 16
_NEVER = timedelta(days=36_500)


class _Failure(NamedTuple):
    """Why an endpoint did not take an event: for people, and whether it wants nothing any more."""

    problem: str
    gone: bool = False


# Of each notification the first event that was not taken. Two senders cannot both claim one: the second finds the lease
# of the first.
_CLAIM = text("""
WITH due AS MATERIALIZED (
  SELECT
    o.endpoint_id,
    o.event_id
  FROM webhook_endpoints e
  CROSS JOIN LATERAL (
    SELECT
      w.endpoint_id,
      w.event_id
    FROM webhook_deliveries w
    WHERE w.endpoint_id = e.id
      AND w.next_at <= knocktwice_now()
      AND NOT EXISTS (
        SELECT
        FROM webhook_deliveries first
        WHERE first.endpoint_id = w.endpoint_id
          AND first.notification_id = w.notification_id
          AND first.event_id < w.event_id
          AND first.next_at IS NOT NULL
      )
    ORDER BY w.next_at, w.event_id
    LIMIT :most
    FOR UPDATE SKIP LOCKED
  ) o
  WHERE e.disabled_at IS NULL AND (e.resume_at IS NULL OR e.resume_at <= knocktwice_now())
)
UPDATE webhook_deliveries d SET
  next_at = knocktwice_now() + :lease,
  tries = d.tries + 1
FROM due
JOIN webhook_endpoints e ON e.id = due.endpoint_id
JOIN webhook_events v ON v.id = due.event_id
LEFT JOIN notifications n ON n.id = v.notification_id AND e.personal
LEFT JOIN phones ph ON ph.user_id = n.user_id
WHERE d.endpoint_id = due.endpoint_id AND d.event_id = due.event_id
RETURNING
  d.endpoint_id,
  d.event_id,
  d.tries,
  e.url,
  e.personal,
  e.project,
  v.notification_id,
  v.step,
  v.type,
  v.at,
  v.data,
  n.user_id,
  n.key,
  coalesce(n.phone, ph.number) AS phone
""")

# Only what is still due: a replay that came meanwhile is not ended by the answer to the send before it.
_RECORD = text(f"""
UPDATE webhook_deliveries d SET
  error = r.error,
  delivered_at = CASE WHEN r.error IS NULL THEN knocktwice_now() END,
  next_at = CASE WHEN r.error IS NOT NULL AND d.tries < :most THEN knocktwice_now() + r.wait END
FROM {rows("r", endpoint_id="text", event_id="bigint", error="text", wait="interval")}
WHERE d.endpoint_id = r.endpoint_id AND d.event_id = r.event_id AND d.next_at IS NOT NULL
""")

_WELL = text("""
UPDATE webhook_endpoints SET
  failures = 0,
  failing_since = NULL,
  resume_at = NULL,
  last_error = NULL
WHERE id = ANY(:ids) AND failing_since IS NOT NULL
""")

# Each further failure waits four times as long. An endpoint that is gone, or has failed for too long, is disabled.
_UNWELL = text("""
UPDATE webhook_endpoints SET
  failures = failures + 1,
  last_error = :error,
  failing_since = coalesce(failing_since, knocktwice_now()),
  resume_at = knocktwice_now() + least(:longest, :first * power(4, least(failures, 10))),
  disabled_at = CASE WHEN :gone OR failing_since < knocktwice_now() - :give_up THEN knocktwice_now() END,
  disabled_reason = CASE
    WHEN :gone THEN 'it answered 410 Gone'
    WHEN failing_since < knocktwice_now() - :give_up THEN 'it has failed since '
      || to_char(failing_since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"') || ', at last: ' || :error
  END
WHERE id = :id AND disabled_at IS NULL
RETURNING disabled_reason
""")


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Sends events to endpoints.

    Attributes:
        engine: for short transactions.
        hooks: carries the requests.
        secrets: the secrets from which the endpoints' keys are derived, the newest first; all of them sign.
        give_up: an endpoint that has taken nothing for so long is disabled; zero: never.
        reply: sends an application's reply to a text, given by its id, in the endpoint's project; ``None``: answers are
            not read.
    """

    engine: Engine
    hooks: Hooks
    secrets: Sequence[str]
    give_up: timedelta
    reply: Callable[[str, str, str | None], None] | None = None

    def send(self) -> int:
        """Send one round of what is due, to all endpoints side by side; return how many events that were."""
        with self.engine.begin() as conn:
            due = conn.execute(_CLAIM, {"lease": _LEASE, "most": _AT_ONCE}).all()
            about = heard.about(conn, {str(row.notification_id) for row in due if row.type in HEARD})
        if not due:
            return 0
        now = time.time()
        answers = self.hooks.send([_request(row, self.secrets, now, about) for row in due])
        failures = [_failure(answer) for answer in answers]
        self._reply(due, answers)
        with self.engine.begin() as conn:
            conn.execute(
                _RECORD,
                {
                    "endpoint_id": [row.endpoint_id for row in due],
                    "event_id": [row.event_id for row in due],
                    "error": [failure and failure.problem for failure in failures],
                    "wait": [_wait(row.tries) for row in due],
                    "most": _MOST_TRIES,
                },
            )
            well = {row.endpoint_id for row, failure in zip(due, failures, strict=True) if failure is None}
            conn.execute(_WELL, {"ids": sorted(well)})
            for id_, failure in _failed(due, failures, well).items():
                self._note(conn, id_, failure)
        return len(due)

    def _reply(self, due: Sequence[Row[Any]], answers: Sequence[Response | NoResponse]) -> None:
        """Send what the application answers to people.

        A webhook that comes again because of an error repeats nothing.
        """
        if self.reply is None:
            return
        for row, answer in zip(due, answers, strict=True):
            if row.type == INBOUND and not isinstance(answer, NoResponse) and 200 <= answer.status < 300:
                text_ = replies.wanted(answer.body)
                if text_ is not None:
                    self.reply(str(row.notification_id), text_, row.project)

    def _note(self, conn: Connection, endpoint: str, failure: _Failure) -> None:
        waits = {"first": _FIRST_WAIT, "longest": _LONGEST_WAIT, "give_up": self.give_up or _NEVER}
        found = conn.execute(_UNWELL, {"id": endpoint, "error": failure.problem, "gone": failure.gone, **waits}).first()
        if found and found.disabled_reason:
            log.warning("webhook endpoint disabled", endpoint=endpoint, reason=found.disabled_reason)

    def test(self, endpoint: str, url: str) -> str | None:
        """Send one event of type ``knocktwice.test`` and return what went wrong, or ``None``."""
        body = _body("knocktwice.test", time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()), {})
        headers = signing.headers(self.secrets, endpoint, f"test.{time.time_ns()}", time.time(), body)
        (answer,) = self.hooks.send([Request(url, headers, body)])
        failure = _failure(answer)
        return failure and failure.problem


def _request(
    row: Row[Any],
    secrets: Sequence[str],
    now: float,
    about: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> Request:
    data = dict(row.data)
    if row.type in HEARD:
        masked, whole = about.get(str(row.notification_id), ({}, {}))
        data |= {**masked, **(whole if row.personal else {})}
    elif row.personal:
        who = {"user": row.user_id, "phone": row.phone, "key": row.key}
        data |= {name: value for name, value in who.items() if value is not None}
    body = _body(row.type, row.at.isoformat(), data)
    message_id = f"{row.notification_id}.{row.step}.{row.type}"
    return Request(row.url, signing.headers(secrets, row.endpoint_id, message_id, now, body), body)


def _body(type_: str, at: str, data: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": type_, "timestamp": at, "data": data}, separators=(",", ":")).encode()


def _failure(answer: Response | NoResponse) -> _Failure | None:
    if isinstance(answer, NoResponse):
        return _Failure(answer.reason.replace("the provider", "the endpoint"))
    if 200 <= answer.status < 300:
        return None
    return _Failure(f"HTTP {answer.status}", gone=answer.status == HTTPStatus.GONE)


def _wait(tries: int) -> timedelta:
    factor: int = 4 ** min(tries - 1, 10)
    return min(_LONGEST_WAIT, _FIRST_WAIT * factor)


def _failed(due: Sequence[Row[Any]], failures: Sequence[_Failure | None], well: Collection[str]) -> dict[str, _Failure]:
    """Return endpoint → a failure, of those that took nothing at all or are gone."""
    return {
        row.endpoint_id: failure
        for row, failure in zip(due, failures, strict=True)
        if failure is not None and (row.endpoint_id not in well or failure.gone)
    }
