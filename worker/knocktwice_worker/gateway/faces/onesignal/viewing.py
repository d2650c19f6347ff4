"""``GET`` and ``DELETE /notifications``: what became of a message, the latest messages, and stopping one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_shared.test_side import is_test
from knocktwice_worker.blasts import standing, states
from knocktwice_worker.gateway import wording
from knocktwice_worker.gateway.auth.access import here, of_project, outbox
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.faces.onesignal import languages
from knocktwice_worker.gateway.faces.onesignal.answers import admitted, missing, query, require, said, whole
from knocktwice_worker.gateway.faces.onesignal.message import APP, NAME
from knocktwice_worker.gateway.faces.onesignal.parts import PART_OF, parts
from knocktwice_worker.gateway.transactions import reading, writing
from knocktwice_worker.notifications.inbox import waiting
from knocktwice_worker.reporting import batches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection
    from starlette.requests import Request
    from starlette.responses import Response

    from knocktwice_worker.blasts.standing import Standing
    from knocktwice_worker.reporting.batches import Message, Outcomes
    from knocktwice_worker.services import Services

#: Most messages of a page, and the farthest that a page may begin.
PAGE_LIMIT, OFFSET_LIMIT = 50, 1_000
#: OneSignal's kinds of messages: from the dashboard, by the API, by automation. All of them are by the API here.
_KINDS = ("0", "1", "3")


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A message that was accepted and is not written yet."""

    ids: list[UUID]
    message: Mapping[str, Any]


async def view(request: Request) -> Response:
    """Tell what became of a message."""
    key = await admitted(request, Scope.READ)
    query(request, ("outcome_names", "outcome_time_range", "outcome_platforms", "outcome_attribution"))
    if "outcome_names" in request.query_params:
        raise InvalidMessage(
            "outcome_names", "outcomes are not known here; GET /v1/stats tells what became of messages"
        )
    services, id_ = here(request), _id(request)

    def look() -> dict[str, Any] | None:
        # First what is not written yet: it may be written in between, and is then found in the second place.
        accepted = _accepted(services, id_, key.project)
        with reading(services) as conn:
            found = _told(conn, id_, key.project)
        return found or (None if accepted is None else _pending(id_, accepted))

    found = await run_in_threadpool(look)
    if found is None:
        raise missing("notification")
    return said(found)


async def list_latest(request: Request) -> Response:
    """List the latest messages, blasts among them."""
    key = await admitted(request, Scope.READ)
    given = query(request, ("limit", "offset", "kind"))
    limit = min(whole(given, "limit", PAGE_LIMIT, 2**31), PAGE_LIMIT)
    offset = whole(given, "offset", 0, OFFSET_LIMIT)
    if given.get("kind", "1") not in _KINDS:
        raise InvalidMessage("kind", f"must be one of {', '.join(_KINDS)}")
    wanted = given.get("kind", "1") == "1"

    def look() -> dict[str, Any]:
        with reading(here(request)) as conn:
            found = _page(conn, limit, offset, key.project) if wanted else []
            total = batches.count(conn, part_of=PART_OF, project=key.project) if wanted else 0
        return {"total_count": total, "offset": offset, "limit": limit, "notifications": found}

    return said(await run_in_threadpool(look))


async def cancel(request: Request) -> Response:
    """Stop a message: what has not been sent is not sent."""
    key = await admitted(request, Scope.NOTIFY)
    query(request)
    services, id_ = here(request), _id(request)

    def look() -> tuple[list[UUID] | None, Standing | None]:
        accepted = _accepted(services, id_, key.project)
        with reading(services) as conn:
            open_ = batches.open_of(conn, parts(id_), key.project)
            known = accepted is not None or bool(open_) or batches.find(conn, id_, key.project) is not None
            blast = standing.find(conn, str(id_), key.project)
            return [*open_, *(accepted.ids if accepted else ())] if known else None, blast

    open_, blast = await run_in_threadpool(look)
    if blast is not None:
        require(key, Scope.BLASTS)
        await run_in_threadpool(_abort, services, blast)
        return said({"success": True})
    if open_ is None:
        raise missing("notification")
    if not open_:
        return said({"success": False, "errors": ["Notification has already been sent to all recipients"]}, 400)
    for first in range(0, len(open_), BATCH_LIMIT):
        page = [str(one) for one in open_[first : first + BATCH_LIMIT]]
        await outbox(request).send(wording.cancellation(of_project(key, {"ids": page})))
    return said({"success": True})


async def history(request: Request) -> Response:
    """Refuse an export of who got a message: it is asked for page by page here."""
    await admitted(request, Scope.READ)
    raise InvalidMessage("events", "no file is made here; GET /v1/messages tells who got what, page by page")


def _abort(services: Services, blast: Standing) -> None:
    with writing(services) as conn:
        states.abort(conn, blast.key, "cancelled by a client of OneSignal's", blast.project)


def _id(request: Request) -> UUID:
    try:
        return UUID(request.path_params["id"])
    except ValueError:
        raise missing("notification") from None


def _accepted(services: Services, id_: UUID, project: str | None) -> _Accepted | None:
    """Return a message that the broker has and no worker has written yet.

    Args:
        project: only one of this project; ``None``: anybody's.
    """
    found = waiting.find(services.redis, [str(one) for one in parts(id_)])
    messages = [one for one in found if project is None or one.get("project") == project]
    ids = [UUID(one["id"]) for message in messages for one in message.get("recipients", ())]
    return _Accepted(ids, messages[0]) if ids else None


def _told(conn: Connection, id_: UUID, project: str | None) -> dict[str, Any] | None:
    found = batches.find(conn, id_, project)
    if found is not None:
        return _of_message(found, batches.of_batches(conn, parts(id_)))
    blast = standing.find(conn, str(id_), project)
    return None if blast is None else _of_blast(conn, blast)


def _page(conn: Connection, limit: int, offset: int, project: str | None) -> list[dict[str, Any]]:
    messages = batches.latest(conn, offset + limit, part_of=PART_OF, project=project)
    blasts = standing.latest(conn, offset + limit, project)
    both: list[Message | Standing] = [*messages, *blasts]
    both.sort(key=lambda one: one.created_at, reverse=True)
    return [
        _of_blast(conn, one)
        if isinstance(one, standing.Standing)
        else _of_message(one, batches.of_batches(conn, parts(one.id)))
        for one in both[offset : offset + limit]
    ]


def _of_message(found: Message, outcomes: Outcomes) -> dict[str, Any]:
    done = found.finished_at if outcomes.open == 0 else None
    send_at = found.send_at or found.created_at
    return {
        "id": str(found.id),
        **_words(found.content, found.reference),
        **_counts(outcomes),
        "ttl": round(found.ttl_s),
        "queued_at": int(found.created_at.timestamp()),
        "send_after": int(send_at.timestamp()),
        "completed_at": None if done is None else int(done.timestamp()),
        "canceled": outcomes.total > 0 and outcomes.cancelled == outcomes.total,
        **_mark(found.project),
    }


def _of_blast(conn: Connection, blast: Standing) -> dict[str, Any]:
    outcomes = batches.of_blast(conn, blast.id)
    message = standing.message(conn, blast.id)
    sent = _counts(outcomes)
    sent["remaining"] += max(0, blast.total - blast.sent - blast.cancelled)
    started = blast.started_at or blast.created_at
    return {
        "id": blast.id,
        **_words(message.get("content") or {}, message.get("reference") or {}),
        **sent,
        "queued_at": int(blast.created_at.timestamp()),
        "send_after": int(started.timestamp()),
        "completed_at": None if blast.finished_at is None else int(blast.finished_at.timestamp()),
        "canceled": blast.state is states.BlastState.ABORTED,
        **_mark(blast.project),
    }


def _pending(id_: UUID, accepted: _Accepted) -> dict[str, Any]:
    words = _words(accepted.message.get("content") or {}, accepted.message.get("reference") or {})
    counts = _counts(batches.Outcomes(total=len(accepted.ids), open=len(accepted.ids)))
    mark = _mark(accepted.message.get("project"))
    return {"id": str(id_), **words, **counts, "completed_at": None, "canceled": False, **mark}


def _mark(project: str | None) -> dict[str, Any]:
    """Return the field by which a test is known."""
    return {"test": True} if is_test(project) else {}


def _words(content: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    # Of a template, and of texts by language, there is a content for each language.
    by_language: Mapping[str, Any] = content.get("locales") or {languages.DEFAULT: content}
    told: dict[str, Any] = {
        "app_id": reference.get(APP),
        "name": reference.get(NAME),
        "template_id": content.get("template"),
        "contents": _by_language(by_language, _text),
        "headings": _by_language(by_language, lambda one: (one.get("push") or {}).get("title")),
    }
    pushed: Mapping[str, Any] = next((one["push"] for one in by_language.values() if one.get("push")), {})
    told |= {"data": pushed.get("data") or None, "url": pushed.get("link")}
    return {name: value for name, value in told.items() if value is not None or name in ("contents", "name")}


def _text(content: Mapping[str, Any]) -> Any:
    """Return what a content says first.

    What waits has an SMS as it was sent, in an object; what is written, as a text.
    """
    pushed, texted = content.get("push") or {}, content.get("sms")
    return pushed.get("body", texted.get("text", texted) if isinstance(texted, dict) else texted)


def _by_language(contents: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Any]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for locale, content in contents.items():
        text = read(content)
        if isinstance(text, dict):
            found |= {languages.theirs(own) or own: said for own, said in text.items()}
        elif text is not None:
            found[languages.theirs(locale) or locale] = str(text)
    return found or None


def _counts(found: Outcomes) -> dict[str, Any]:
    """Return the figures as OneSignal counts them: messages, so one that was pushed and texted counts twice."""
    told: dict[str, Any] = {
        "successful": found.pushed + found.texted,
        "failed": found.push_failed + found.text_failed,
        "errored": found.unknown,
        "converted": found.clicked,
        "received": found.delivered,
        "remaining": found.open,
    }
    if found.texted or found.text_failed or found.unknown:
        sms = {"successful": found.texted, "failed": found.text_failed, "errored": found.unknown}
        told["platform_delivery_stats"] = {"sms": sms}
    return told
