"""``getMsgStats`` with ``getResults``, and ``getMessageDetails``: what became of a message."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import created_at
from knocktwice_worker.blasts import standing
from knocktwice_worker.gateway.auth.access import here
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.faces import message_codes
from knocktwice_worker.gateway.faces.pushwoosh.envelope import answer, opened
from knocktwice_worker.gateway.faces.pushwoosh.messages import code_in
from knocktwice_worker.gateway.transactions import reading
from knocktwice_worker.notifications import store
from knocktwice_worker.reporting import history, message_counts

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from knocktwice_worker.reporting.message_counts import Count
    from knocktwice_worker.services import Services

#: Most notifications of a message that ``getMessageDetails`` shows.
SHOWN = 100


async def ask(request: Request) -> Response:
    """Take the order for statistics; ``getResults`` with its number tells them."""
    _, body = await opened(request, Scope.READ)
    return answer({"request_id": _known(code_in(body))})


async def results(request: Request) -> Response:
    """Tell what became of a message, by the hour and in all."""
    key, body = await opened(request, Scope.READ)
    code = body.get("request_id")
    if not isinstance(code, str):
        raise InvalidMessage("request_id", "is missing; give the one that getMsgStats answered")
    counts = await run_in_threadpool(_counts, here(request), _known(code), key.project)
    rows: Counter[tuple[str, str]] = Counter()
    by_channel: dict[str, Counter[str]] = {}
    for one in counts:
        rows[f"{one.hour:%Y-%m-%d %H:%M:%S}", one.action] += one.messages
        by_channel.setdefault(one.channel, Counter())[one.action] += one.messages
    total = Counter[str]()
    for channel in by_channel.values():
        total.update(channel)
    return answer(
        {
            "formatter": "hourly",
            "rows": [{"datetime": hour, "action": action, "count": n} for (hour, action), n in sorted(rows.items())],
            "conversion": {"send": total["send"], "delivery": total["delivery"], "open": total["open"], "events": []},
            "knocktwice": {"channels": by_channel},
        }
    )


async def details(request: Request) -> Response:
    """Tell where a message stands, and each of its notifications up to a number."""
    key, body = await opened(request, Scope.READ)
    code = _known(code_in(body))
    return answer({"message": await run_in_threadpool(_details, here(request), code, key.project)})


def _known(code: str) -> str:
    if message_codes.blast_of(code) is None and not message_codes.notifications_of(code):
        raise InvalidMessage("message", "is no code of a message")
    return code


def _counts(services: Services, code: str, project: str | None) -> list[Count]:
    blast = message_codes.blast_of(code)
    with reading(services) as conn:
        if blast is not None:
            if standing.find(conn, str(blast), project) is None:
                return []
            return message_counts.of_blast(conn, blast)
        ids = message_codes.notifications_of(code)
        if project is not None:
            own = store.belonging(conn, ids, project=project)
            ids = [id_ for id_ in ids if id_ in own]
        return message_counts.of_ids(conn, ids)


def _details(services: Services, code: str, project: str | None) -> dict[str, Any]:
    blast = message_codes.blast_of(code)
    with reading(services) as conn:
        if blast is not None:
            found = standing.find(conn, str(blast), project)
            if found is None:
                raise InvalidMessage("message", "there is none with this code")
            return {"code": code, "status": str(found.state), "knocktwice": found.as_json()}
        ids = message_codes.notifications_of(code)
        shown: dict[str, str] = {}
        tests: list[bool] = []
        for id_ in ids[:SHOWN]:
            page = history.page(conn, history.Wanted(id=id_, limit=1, project=project))
            tests += [message.test for message in page.messages]
            shown[str(id_)] = page.messages[0].state if page.messages else "accepted"
    states = set(shown.values())
    status = "pending" if "accepted" in states else "processing" if "active" in states else "done"
    created = f"{created_at(ids[0]):%Y-%m-%d %H:%M:%S}"
    told: dict[str, Any] = {"states": shown, **({"test": True} if any(tests) else {})}
    return {"code": code, "created": created, "status": status, "knocktwice": told}
