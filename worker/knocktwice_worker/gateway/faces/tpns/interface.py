"""Tencent's paths below ``/tpns``: its push, its devices' accounts and tags, and its shape of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.routing import Route

from knocktwice import drafts, tpns, wire
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_blast
from knocktwice_worker.content import numbered_texts
from knocktwice_worker.gateway.auth.access import here, let_in
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.faces import ascii_json, sending
from knocktwice_worker.gateway.faces.face import Face
from knocktwice_worker.gateway.faces.tpns import people
from knocktwice_worker.gateway.faces.tpns.credentials import key_of
from knocktwice_worker.gateway.http.body import json_object, read_any
from knocktwice_worker.gateway.problems import Problem
from knocktwice_worker.gateway.transactions import reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from knocktwice.drafts import Draft
    from knocktwice_worker.gateway.auth.keys import Key
    from knocktwice_worker.gateway.faces.sending import Sent
    from knocktwice_worker.services import Services

#: Most tokens or accounts in a list, by Tencent's reference.
LIST_LIMIT = 1_000
#: Our kinds of problems → Tencent's ``ret_code``, by its table of error codes.
_CODES = {
    "malformed-json": 10107,
    "unauthorized": 10104,
    "forbidden": 10104,
    "too-large": 10117,
    "internal": 10108,
}
_MISSING, _WRONG, _BUSY = 10102, 10103, 10100
_UNSUPPORTED = (
    "is not served; here are POST /tpns/v3/push/app, /tpns/v3/device/account/batchoperate and /tpns/v3/device/tag, and "
    "docs/moving/tencent.md says what stands for the rest"
)


async def push_app(request: Request) -> Response:
    """Push to tokens, accounts, tags or all, with the SMS that may follow."""
    raw = await read_any(request)
    key = await key_of(request, raw)
    payload = json_object(raw)
    request.state.payload = payload
    is_group = payload.get("audience_type") in ("tag", "all")
    await let_in(request, key, Scope.BLASTS if is_group else Scope.NOTIFY, in_tests=True)
    asked = await _read(here(request), payload)
    repeat = sending.repeated(request, asked.key)
    if is_group:
        sent = await _blast(request, key, asked, repeat)
    else:
        asked, sent = await _notify(request, key, asked, payload, repeat)
    return _answer(payload, asked, sent, test=key.test)


async def _read(services: Services, payload: Mapping[str, Any]) -> tpns.Request:
    """Return what a payload asks for, with the SMS of the saved template that it names."""
    settings = services.settings
    id_ = tpns.wanted_sms_template(payload)
    # No template has a name that PostgreSQL cannot hold, such as a NUL.
    saved = None if id_ is None or not id_.isprintable() else await run_in_threadpool(_saved, services, id_, payload)
    asked = tpns.read(
        payload,
        sms_templates={} if id_ is None or saved is None else {id_: saved},
        strict=settings.tpns_strict,
        signature=settings.tpns_signature,
        needs_key=False,
    )
    names = asked.targets.names
    if len(names) > LIST_LIMIT:
        raise InvalidMessage(asked.targets.field, f"has {len(names)} items; {LIST_LIMIT} at most")
    return asked


def _saved(services: Services, id_: str, payload: Mapping[str, Any]) -> tpns.SmsTemplate | None:
    """Return a saved template as Tencent knows it."""
    try:
        with reading(services) as conn:
            found = numbered_texts.find(conn, id_, signed=not payload["sms_info"].get("sms_sign_name"))
    except InvalidMessage as error:
        return tpns.SmsTemplate(problem=error.problem)
    return None if found is None else tpns.SmsTemplate(found.text, found.sender, found.category)


async def _notify(
    request: Request, key: Key, asked: tpns.Request, payload: dict[str, Any], repeat: str | None
) -> tuple[tpns.Request, Sent]:
    """Send to tokens or accounts. What is wrong with the SMS alone leaves the push as it is, unless it is strict."""
    try:
        ready = await _checked(request, key, asked)
    except InvalidMessage as error:
        if asked.strict or not all(one.field.startswith("sms_info") for one in error.problems):
            raise
        asked = asked.without_sms(tuple(error.problems))
        ready = await _checked(request, key, asked)
    return asked, await sending.notify(request, key, ready, payload, repeat)


async def _checked(request: Request, key: Key, asked: tpns.Request) -> Sequence[Draft]:
    shared = wire.Shared(template=None, project=key.project, **asked.shared)

    def made() -> Iterable[Draft]:
        for places in sending.in_batches(len(asked.recipients)):
            with asked.in_payloads_words(), wire.in_callers_words(wire.many(places.start)):
                yield drafts.notifications(asked.recipients[places.start : places.stop], shared)

    with asked.in_payloads_words():
        return await sending.checked(request, made(), lambda error: error.renamed(wire.many(0), wire.many(0)))


async def _blast(request: Request, key: Key, asked: tpns.Request, repeat: str | None) -> Sent:
    """Send to tags or all. Without a key each call is a blast of its own, as it is a push of its own at Tencent's."""
    shared = wire.Shared(template=None, project=key.project, **asked.shared)
    words = wire.one("blast")
    with asked.in_payloads_words():
        with wire.in_callers_words(words):
            message = wire.blast(
                asked.targets.filter or {},
                shared,
                key=repeat or f"tpns-{uuid7()}",
                params=asked.params,
                throttle_per_min=asked.throttle_per_min,
            )
            wanted = parse_blast(message)
        return await sending.blast(request, wanted, lambda error: error.renamed(words, words))


def _answer(payload: Mapping[str, Any], asked: tpns.Request, sent: Sent, *, test: bool) -> Response:
    named = [*asked.ignored, *(InvalidMessage(one.field, f"no SMS: {one.problem}") for one in asked.sms_problems)]
    told: dict[str, Any] = {
        **_frame(payload),
        "push_id": sent.code,
        "ret_code": 0,
        "err_msg": "; ".join(map(str, named)),
        "knocktwice": {
            "ids": [str(id_) for id_ in sent.ids],
            "ignored": _told(asked.ignored),
            "sms_problems": _told(asked.sms_problems),
            "duplicate": sent.duplicate,
            "differs": sent.differs,
            **({"test": True} if test else {}),
        },
    }
    if sent.ids:
        told["result"] = f"[{','.join('0' for _ in sent.ids)}]"
    return ascii_json.answer(told)


async def operate_accounts(request: Request) -> Response:
    """Bind tokens to accounts, or unbind them."""
    return _operated(request, await people.accounts(request))


async def operate_tags(request: Request) -> Response:
    """Give tags to the accounts of tokens, or take them away."""
    return _operated(request, await people.tags(request))


def _operated(request: Request, work: people.Work) -> Response:
    """Answer for each token, account or pair. Without any that was done the whole request is refused."""
    done = not work.result or people.DONE in work.result
    told = {
        **_frame(request.state.payload),
        "ret_code": 0 if done else _WRONG,
        "err_msg": "; ".join(map(str, work.told)),
        "result": work.result,
        "knocktwice": {"told": _told(work.told)},
    }
    return ascii_json.answer(told)


def refuse(request: Request, problem: Problem) -> Response:
    """Return an error as Tencent has it: a ``ret_code``, and 200 unless the caller should try again."""
    busy = problem.status in (408, 429) or problem.status >= 500
    code = _CODES.get(problem.kind, _BUSY if busy else _WRONG)
    if problem.errors and all(one.problem.startswith("is missing") for one in problem.errors):
        code = _MISSING
    told = "; ".join(map(str, problem.errors)) or problem.detail
    frame = _frame(getattr(request.state, "payload", {}))
    body = {**frame, "push_id": "0", "ret_code": code, "err_msg": told, "knocktwice": {"errors": _told(problem.errors)}}
    return ascii_json.answer(body, problem.status if busy else 200)


async def unknown(request: Request) -> Response:
    """Name what is not served."""
    raise Problem("invalid-field", f"{request.scope['path']} {_UNSUPPORTED}")


def _frame(payload: Mapping[str, Any]) -> dict[str, Any]:
    seq, environment = payload.get("seq"), payload.get("environment")
    return {
        "seq": seq if type(seq) is int else 0,
        "environment": environment if environment in ("product", "dev") else "product",
    }


def _told(problems: Iterable[InvalidMessage]) -> list[dict[str, str]]:
    return [{"field": one.field, "detail": one.problem} for one in problems]


FACE = Face(
    prefix="/tpns",
    routes=(
        Route("/v3/push/app", push_app, methods=["POST"]),
        Route("/v3/device/account/batchoperate", operate_accounts, methods=["POST"]),
        Route("/v3/device/tag", operate_tags, methods=["POST"]),
        Route("/{rest:path}", unknown, methods=["GET", "POST"]),
    ),
    answer=refuse,
)
