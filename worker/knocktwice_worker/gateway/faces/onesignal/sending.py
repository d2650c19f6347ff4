"""``POST /notifications``: a message to some people, devices or numbers, or to everybody whom a filter describes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.audience.segment_filter import parse as parse_filter
from knocktwice_worker.blasts import request as blasts
from knocktwice_worker.gateway import wording
from knocktwice_worker.gateway.auth.access import here, of_project, outbox
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.faces.onesignal import message, targets
from knocktwice_worker.gateway.faces.onesignal.answers import admitted, query, require, said, with_warnings
from knocktwice_worker.gateway.faces.onesignal.parts import PART_OF, part
from knocktwice_worker.gateway.faces.onesignal.wording import in_their_words
from knocktwice_worker.gateway.http.body import read_json
from knocktwice_worker.gateway.intake import idempotency
from knocktwice_worker.gateway.problems import Problem
from knocktwice_worker.gateway.transactions import reading, writing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from starlette.requests import Request
    from starlette.responses import Response

    from knocktwice.drafts import Draft
    from knocktwice_worker.gateway.auth.keys import Key
    from knocktwice_worker.gateway.faces.onesignal.message import Asked
    from knocktwice_worker.gateway.faces.onesignal.targets import Targets
    from knocktwice_worker.services import Services

#: What OneSignal says when nobody is left to send to.
NOBODY = "All included players are not subscribed"
#: Longest idempotency key that is kept as it is in a blast's; the rest of that is a prefix.
_KEPT_KEY = 150


async def create(request: Request) -> Response:
    """Send a message. The answer's ``id`` names the message, to all its recipients."""
    key = await admitted(request, Scope.NOTIFY)
    query(request, ("c",))
    body = await read_json(request)
    services = here(request)
    asked = message.read(body, services.settings)
    name = targets.chosen(body)
    if name in ("filters", "included_segments"):
        require(key, Scope.BLASTS)
    found = await _targets(services, name, body, asked)
    if found.filter is not None:
        started = await run_in_threadpool(_start, services, key, asked, found.filter, name)
        return _created(started, asked, {}, test=key.test)
    if not found.recipients:
        nobody = {"id": "", "external_id": asked.key, "errors": found.invalid or [NOBODY]}
        return said(with_warnings(nobody, asked.warnings))
    id_ = await _send(request, key, body, asked, found)
    return _created(str(id_), asked, found.invalid, len(found.recipients), test=key.test)


async def _targets(services: Services, name: str, body: Mapping[str, Any], asked: Asked) -> Targets:
    rules = services.settings.phone_rules
    if not targets.needs_database(name, body):
        if targets.many(name, body):
            return await run_in_threadpool(targets.find, None, name, body, asked, rules)
        return targets.find(None, name, body, asked, rules)

    def look() -> Targets:
        with reading(services) as conn:
            return targets.find(conn, name, body, asked, rules)

    return await run_in_threadpool(look)


def _created(id_: str, asked: Asked, invalid: Mapping[str, Any], count: int | None = None, *, test: bool) -> Response:
    body: dict[str, Any] = {"id": id_, "external_id": asked.key}
    if test:
        body["test"] = True
    if count is not None:
        body["recipients"] = count
    if invalid:
        body["errors"] = invalid
    return said(with_warnings(body, asked.warnings))


async def _send(request: Request, key: Key, body: Mapping[str, Any], asked: Asked, found: Targets) -> UUID:
    """Hand a message over, in parts of 500 recipients; the ids of all parts follow from the first.

    All parts are checked before the first is sent. A repeat with the same idempotency key completes what an error has
    interrupted.
    """
    services, id_ = here(request), uuid7()
    drafts: list[Draft] = []
    for place, first in enumerate(range(0, len(found.recipients), BATCH_LIMIT)):
        own = of_project(key, dict(asked.message))
        if place:
            own["reference"] = {**own["reference"], PART_OF: str(id_)}
        people = [{**one, "params": asked.params} for one in found.recipients[first : first + BATCH_LIMIT]]
        shared = {**own, "recipients": people}
        with in_their_words(sms=asked.sms):
            own_id, rules = part(id_, place), services.settings.phone_rules
            if len(found.recipients) > BATCH_LIMIT:
                draft = await run_in_threadpool(wording.batch, shared, own_id, rules)
            else:
                draft = wording.batch(shared, own_id, rules)
            if draft.parsed is not None:
                with wording.words_of(shared):
                    await request.app.state.admission.check(draft.parsed)
        drafts.append(draft)
    for place, draft in enumerate(drafts):
        claim = None
        if asked.key is not None:
            claim = idempotency.claim(key.id, f"onesignal {place} {asked.key}", body, draft.id)
        await outbox(request).send(draft, claim)
    return drafts[0].id


def _start(services: Services, key: Key, asked: Asked, filter_: Mapping[str, Any], name: str) -> str:
    own = asked.key if asked.key is not None else f"random {uuid7()}"
    if len(own) > _KEPT_KEY:
        own = hashlib.sha256(own.encode()).hexdigest()
    body: dict[str, Any] = {**of_project(key, dict(asked.message)), "filter": filter_, "params": asked.params}
    # Two API keys do not share their idempotency keys, and neither do OneSignal's and those of our own route.
    body["key"] = f"onesignal {key.id} {own}"
    if asked.per_minute is not None:
        body["throttle_per_min"] = asked.per_minute
    parse_filter(filter_, name)
    with in_their_words(sms=asked.sms):
        blast = wording.blast(body)
        with wording.words_of(body), writing(services) as conn:
            started = blasts.start(conn, blast, settings=services.settings)
            differs = not started.new and blasts.differs(conn, blast)
    if differs:
        raise Problem(
            "idempotency-key-reused",
            "came with another body before; use a new one for a new message",
            field="idempotency_key",
        )
    return str(started.id)
