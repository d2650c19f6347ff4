"""``/v1/opt-outs``: the numbers that must not be texted. An answer means that it counts from now on."""

from __future__ import annotations

import base64
import binascii
import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from knocktwice_shared.channels import CONTENTS
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import APPLICATION
from knocktwice_worker.audience import channel_opt_outs, opt_outs
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.gateway import wording
from knocktwice_worker.gateway.auth.access import Here, requires
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.http.body import JsonBody, read_json
from knocktwice_worker.gateway.openapi import Takes
from knocktwice_worker.gateway.problems import Problem, documented
from knocktwice_worker.gateway.schemas.fields import Visible
from knocktwice_worker.gateway.schemas.opt_outs import (
    ENTRIES_LIMIT,
    OptOutAnswer,
    OptOutBody,
    OptOutPage,
    OptOutResults,
    OptOutsBody,
)
from knocktwice_worker.gateway.transactions import reading, writing
from knocktwice_worker.services import Services

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from knocktwice_worker.notation.phone_numbers import Rules

#: A number that must not be texted must not be texted in any project.
_SHARED = requires(Scope.AUDIENCE, in_projects=True)

router = APIRouter(prefix="/v1", tags=["opt-outs"], dependencies=[_SHARED])

#: Most numbers of a page.
PAGE_LIMIT = 1_000
_SOURCE_LIMIT = 200


@router.get("/opt-outs", response_model=OptOutPage)
def list_all(
    services: Here,
    after: Annotated[str | None, Visible(100, "The `next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT)] = 100,
) -> Any:
    """List the numbers. Those of erased people are not in it: only hashes are kept."""
    with reading(services) as conn:
        found = opt_outs.page(conn, "" if after is None else _number_of(after), limit + 1)
    listed = found[:limit]
    following = _cursor(listed[-1].number) if len(found) > limit else None
    return {"opt_outs": [dataclasses.asdict(one) for one in listed], "next": following}


@router.post("/opt-outs", response_model=OptOutResults, openapi_extra=Takes(OptOutsBody))
def add_many(services: Here, body: JsonBody) -> Any:
    """Put numbers on the list, and tell of each entry what became of it. Repeats change nothing."""
    wording.refuse_unknown(body, ("opt_outs",))
    given = body.get("opt_outs")
    if not isinstance(given, list) or not 1 <= len(given) <= ENTRIES_LIMIT:
        raise InvalidMessage("opt_outs", f"must be a list of 1 to {ENTRIES_LIMIT} entries")
    rules = services.settings.phone_rules.of_anyone
    read = [_entry(place, entry, rules) for place, entry in enumerate(given)]
    # Of two entries with one number and channel the first counts.
    sources = dict(reversed([((one[0], one[2]), one[1]) for one in read if not isinstance(one, InvalidMessage)]))
    numbers: dict[tuple[str, str], list[str]] = {}
    for (number, channel), source in sorted(sources.items(), key=lambda item: (item[0][0], item[0][1] or "")):
        numbers.setdefault((channel or "", source), []).append(number)
    with writing(services) as conn:
        added = {
            (number, channel or None)
            for (channel, source), those in sorted(numbers.items())
            for number in _say_out(conn, those, source, channel or None)
        }
    results = []
    for place, one in enumerate(read):
        if isinstance(one, InvalidMessage):
            results.append(
                {"index": place, "status": "refused", "number": None, "field": one.field, "detail": one.problem}
            )
        else:
            status = "added" if (one[0], one[2]) in added else "present"
            added.discard((one[0], one[2]))
            results.append({"index": place, "status": status, "number": one[0]})
    count = {status: sum(r["status"] == status for r in results) for status in ("added", "present", "refused")}
    return {**count, "results": results}


@router.get("/opt-outs/{number}", response_model=OptOutAnswer, responses=documented("not-found"))
def show(number: str, services: Here) -> Any:
    """Tell who said that a number must not be texted, and since when; 404 if nobody did."""
    wanted = wording.phone(number, "number", services.settings.phone_rules.of_anyone)
    with reading(services) as conn:
        found = opt_outs.find(conn, [wanted], secret(services.settings).encode()).get(wanted)
    if found is None:
        raise Problem("not-found", "this number has not opted out", field="number")
    return dataclasses.asdict(found)


@router.put("/opt-outs/{number}", response_model=OptOutAnswer, openapi_extra=Takes(OptOutBody, required=False))
async def put(number: str, request: Request, services: Here) -> Any:
    """Text a number no more, from now on and also where an SMS is due already. A repeat keeps the first source."""
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    body = await read_json(request) if has_body else {}
    wording.refuse_unknown(body, ("source", "channel"))
    wanted, source = wording.phone(number, "number", services.settings.phone_rules.of_anyone), _source(body, "source")
    return await run_in_threadpool(_add, services, wanted, source, _channel(body.get("channel"), "channel"))


def _add(services: Services, number: str, source: str, channel: str | None) -> dict[str, Any]:
    with writing(services) as conn:
        _say_out(conn, [number], source, channel)
        found = opt_outs.find(conn, [number], secret(services.settings).encode())
    return dataclasses.asdict(found[number])


@router.delete("/opt-outs/{number}", status_code=204, responses=documented("not-found"))
def remove(
    number: str,
    services: Here,
    source: Annotated[str, Visible(_SOURCE_LIMIT, "Who says so; told by webhooks.")] = APPLICATION,
    channel: Annotated[str | None, Visible(50, "Only over this one; an opt-out of all texts stays.")] = None,
) -> None:
    """Let a number be texted again, because its owner asked for it; 404 if it was not on the list."""
    wanted, only = (
        wording.phone(number, "number", services.settings.phone_rules.of_anyone),
        _channel(channel, "channel"),
    )
    own = secret(services.settings).encode()
    with writing(services) as conn:
        if only is None and not opt_outs.remove(conn, [wanted], own, source):
            raise Problem("not-found", "this number has not opted out", field="number")
        if only is not None and not channel_opt_outs.remove(conn, [wanted], only, source):
            all_texts = wanted in (found := opt_outs.find(conn, [wanted], own)) and found[wanted].channels is None
            why = "of all texts; ask without channel to text it again" if all_texts else f"over {only}"
            raise Problem("not-found", f"this number has {'' if all_texts else 'not '}opted out {why}", field="number")


def _say_out(conn: Connection, numbers: list[str], source: str, channel: str | None) -> list[str]:
    if channel is None:
        return opt_outs.add(conn, numbers, source)
    return channel_opt_outs.add(conn, numbers, channel, source)


def _channel(said: object, path: str) -> str | None:
    if said is not None and said not in CONTENTS:
        raise InvalidMessage(path, f"must be one of {', '.join(CONTENTS)}, or left out for all texts")
    return None if said is None else str(said)


def _entry(place: int, entry: object, rules: Rules) -> tuple[str, str, str | None] | InvalidMessage:
    """Return number, source and channel of an entry, or what is wrong with it."""
    path = f"opt_outs[{place}]"
    try:
        if not isinstance(entry, dict):
            raise InvalidMessage(path, 'must be an object like {"number": "+16505550100"}')
        wording.refuse_unknown(entry, ("number", "source", "channel"))
        number, source = wording.phone(entry.get("number"), f"{path}.number", rules), _source(entry, f"{path}.source")
        return number, source, _channel(entry.get("channel"), f"{path}.channel")
    except InvalidMessage as error:
        inside = error.field if error.field.startswith("opt_outs[") else f"{path}.{error.field}"
        return InvalidMessage(inside, error.problem)


def _source(body: Mapping[str, Any], path: str) -> str:
    said = body.get("source", APPLICATION)
    if not isinstance(said, str) or not said.strip() or len(said) > _SOURCE_LIMIT or not said.isprintable():
        raise InvalidMessage(path, f"must be text of 1 to {_SOURCE_LIMIT} printable characters")
    return said


def _cursor(number: str) -> str:
    return base64.urlsafe_b64encode(number.encode()).decode().rstrip("=")


def _number_of(cursor: str) -> str:
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        raise InvalidMessage("after", "must be the next of a page") from None
