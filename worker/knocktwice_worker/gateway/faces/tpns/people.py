"""``POST /v3/device/account/batchoperate`` and ``POST /v3/device/tag``: whose a device is, and what is said of a
person.

At Tencent a token has accounts and tags. Here a device belongs to one user, and tags are the user's; a tag of Tencent's
is a tag of that name with the value ``true``, as pushes to tags have it. A token is looked up by what this interface
said itself, too, because a worker may not have read it yet.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import TAG_NAME_LIMIT, checks
from knocktwice_shared.messages.problems import all_at_once, fail, settle
from knocktwice_worker.audience import hwids, profile
from knocktwice_worker.gateway import wording
from knocktwice_worker.gateway.auth.access import here, let_in, outbox
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.faces.tpns.credentials import key_of
from knocktwice_worker.gateway.http.body import json_object, read_any
from knocktwice_worker.gateway.transactions import reading, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Connection
    from starlette.requests import Request

    from knocktwice_worker.services import Services

Json = dict[str, Any]

#: Most tokens, accounts or pairs of a request, by Tencent's reference.
LIMIT = 500
#: In ``result``: done, and refused; Tencent's code for a wrong value.
DONE, REFUSED = "0", "10103"
#: Begins the names of tokens, among those of other products' installations.
_PREFIX = "tpns-"
_NO_ACCOUNT = "belongs to no account here, and tags are the account's; bind it first by /v3/device/account/batchoperate"
_ONE_ACCOUNT = "has accounts of several types; a device belongs to one user here, so give one account"
_COMMON = {"operator_type", "platform", "seq", "environment", "access_id", "cmd"}
_PLATFORMS = {"android": "android", "ios": "ios"}
_CHANGE = re.compile(r"changes\[(\d+)\]")
#: Tags of one change of the audience, which carries 4,096 bytes.
_TAGS_AT_ONCE = 12
#: What ``operator_type`` does to tags: 1, 3, 7 and 9 add them; 5 and 6 look at those there are.
_REMOVING, _ALL, _INSTEAD, _PAIRS = (2, 4, 8, 10), 5, 6, (9, 10)
#: Operations that take only the first tag, and those that take only the first token.
_ONE_TAG, _ONE_TOKEN = (1, 2, 7, 8), (1, 2, 3, 4, 5, 6)


@dataclass(slots=True)
class Work:
    """The changes that a request asks for.

    Attributes:
        changes: of the audience, and in ``paths`` what the request calls each of them.
        result: for each token, account or pair of the request what became of it.
        told: what was refused or ignored, for ``err_msg``.
        named: whose tokens are from now on: name of the token → registration and user.
        dropped: names of tokens that are nobody's any more.
        left: users who have no token any more.
    """

    changes: list[Json] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    result: list[str] = field(default_factory=list)
    told: list[InvalidMessage] = field(default_factory=list)
    named: dict[str, tuple[str, str]] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def add(self, path: str, **change: object) -> None:
        """Note a change."""
        self.changes.append(change)
        self.paths.append(path)

    def refuse(self, path: str, problem: str) -> None:
        """Note that one item cannot be done."""
        self.result.append(REFUSED)
        self.told.append(InvalidMessage(path, problem))


async def accounts(request: Request) -> Work:
    """Bind tokens to accounts, or unbind them."""
    return await _do(request, _accounts)


async def tags(request: Request) -> Work:
    """Give tags to the accounts of tokens, or take them away."""
    return await _do(request, _tags)


async def _do(request: Request, read: Callable[[Mapping[str, Any]], Callable[[Connection], Work]]) -> Work:
    raw = await read_any(request)
    key = await key_of(request, raw)
    payload = json_object(raw)
    request.state.payload = payload
    await let_in(request, key, Scope.AUDIENCE)
    services, plan = here(request), read(payload)
    work = await run_in_threadpool(_looked_up, services, plan)
    if work.changes:
        try:
            # Everything is checked before anything is written.
            draft = wording.changes({"changes": work.changes}, services.settings.phone_rules, datetime.now(UTC))
        except InvalidMessage as error:
            raise error.renamed(lambda told: _CHANGE.sub(lambda m: work.paths[int(m[1])], told)) from None
        await run_in_threadpool(_remember, services, work)
        await outbox(request).send(draft)
    return work


def _looked_up(services: Services, plan: Callable[[Connection], Work]) -> Work:
    with reading(services) as conn:
        return plan(conn)


def _remember(services: Services, work: Work) -> None:
    if not work.named and not work.dropped and not work.left:
        return
    with writing(services) as conn:
        for name in sorted(work.dropped):
            hwids.drop(conn, name)
        for user in sorted(work.left):
            hwids.drop_of(conn, user, _PREFIX)
        for name, (registration, user) in sorted(work.named.items()):
            hwids.name(conn, name, user=user, registration=registration)


def _name(token: str) -> str:
    """Return the name under which a token is remembered; tokens may be longer than a name."""
    return f"{_PREFIX}{hashlib.sha256(token.encode()).hexdigest()}"


def _owners(conn: Connection, tokens: Iterable[str]) -> dict[str, str]:
    """Return whose devices tokens are; those of nobody are left out."""
    return hwids.owners(conn, {_name(token): token for token in tokens})


@all_at_once
def _accounts(payload: Mapping[str, Any]) -> Callable[[Connection], Work]:
    """Read a request about accounts; return what makes the changes of it.

    Raises:
        InvalidMessage: fields are wrong; all are named.
    """
    wording.refuse_unknown(payload, _COMMON | {"account_list", "token_list", "token_accounts", "account_type"})
    operation = _operation(payload, 5)
    platform = _platform(payload)
    pairs: list[tuple[str, str, list[tuple[str, int]]]] = []
    tokens: list[str] = []
    named: list[tuple[str, int]] = []
    if operation == 4:
        tokens = _texts(payload, "token_list")
    elif operation == 5:
        named = _account_list(payload.get("account_list"), "account_list")
    else:
        for place, entry in enumerate(checks.list_of(payload.get("token_accounts"), "token_accounts", 1, LIMIT)):
            path = f"token_accounts[{place}]"
            raw = checks.object_of(entry, path, {"token", "account_list"})
            token = checks.registration(raw.get("token"), f"{path}.token")
            pairs.append((path, token, _account_list(raw.get("account_list"), f"{path}.account_list")))
    settle()

    def plan(conn: Connection) -> Work:
        work = Work()
        owners = _owners(conn, (token for _, token, _ in pairs)) if operation == 3 else {}
        for path, token, given in pairs:
            if operation != 3:
                _bind(work, path, token, given, platform)
                continue
            for account, _ in given:
                work.add(path, change="unregister_device", user=account, registration=token)
                work.dropped += [_name(token)] if owners.get(token) == account else []
            work.result.append(DONE)
        for place, token in enumerate(tokens):
            # From whoever has it when the change is made.
            work.add(f"token_list[{place}]", change="unregister_device", registration=token)
            work.dropped.append(_name(token))
            work.result.append(DONE)
        for place, (account, _) in enumerate(named):
            work.add(f"account_list[{place}]", change="log_out_everywhere", user=account)
            work.left.append(account)
            work.result.append(DONE)
        return work

    return plan


def _bind(work: Work, path: str, token: str, given: Sequence[tuple[str, int]], platform: str | None) -> None:
    # "An account bound later will override the one bound earlier", says Tencent of accounts of one type.
    by_type = {kind: account for account, kind in given}
    if len(set(by_type.values())) > 1:
        work.refuse(path, _ONE_ACCOUNT)
        return
    user = next(iter(by_type.values()))
    more = {"platform": platform} if platform else {}
    work.add(path, change="register_device", user=user, registration=token, **more)
    work.named[_name(token)] = (token, user)
    work.result.append(DONE)


@all_at_once
def _tags(payload: Mapping[str, Any]) -> Callable[[Connection], Work]:
    """Read a request about tags; return what makes the changes of it. Raises like :func:`_accounts`."""
    wording.refuse_unknown(payload, _COMMON | {"token_list", "tag_list", "tag_token_list"})
    operation = _operation(payload, 10)
    _platform(payload)
    ignored: list[InvalidMessage] = []
    asked: list[tuple[str, str, list[str]]] = []
    if operation in _PAIRS:
        for place, entry in enumerate(checks.list_of(payload.get("tag_token_list"), "tag_token_list", 1, LIMIT)):
            path = f"tag_token_list[{place}]"
            raw = checks.object_of(entry, path, {"tag", "token"})
            tag = checks.text(raw.get("tag"), f"{path}.tag", TAG_NAME_LIMIT)
            asked.append((path, checks.registration(raw.get("token"), f"{path}.token"), [tag]))
    else:
        tokens = _texts(payload, "token_list")
        names = [] if operation == _ALL else _texts(payload, "tag_list", TAG_NAME_LIMIT)
        for name, listed, first in (("token_list", tokens, _ONE_TOKEN), ("tag_list", names, _ONE_TAG)):
            if operation in first and len(listed) > 1:
                ignored.append(InvalidMessage(f"{name}[1]", f"is ignored: operator_type {operation} takes the first"))
                del listed[1:]
        asked = [(f"token_list[{place}]", token, names) for place, token in enumerate(tokens)]
    settle()

    def plan(conn: Connection) -> Work:
        work = Work(told=list(ignored))
        owners = _owners(conn, (token for _, token, _ in asked))
        said: dict[str, tuple[str, dict[str, bool | None]]] = {}
        for path, token, names in asked:
            user = owners.get(token)
            if user is None:
                work.refuse(path, _NO_ACCOUNT)
                continue
            _, own = said.setdefault(user, (path, {}))
            if operation in (_ALL, _INSTEAD):
                own |= dict.fromkeys(_replaced(conn, user, names))
            own |= dict.fromkeys(names, None if operation in _REMOVING else True)
            work.result.append(DONE)
        for user, (path, own) in said.items():
            listed = list(own.items())
            for start in range(0, len(listed), _TAGS_AT_ONCE):
                work.add(path, change="set_tags", user=user, tags=dict(listed[start : start + _TAGS_AT_ONCE]))
        return work

    return plan


def _replaced(conn: Connection, user: str, names: Sequence[str]) -> list[str]:
    """Return the tags that others take the place of: those of the same category (``level`` of ``level:2``), or all."""
    found = profile.find(conn, user)
    labels = [name for name, value in (found.tags if found else {}).items() if value is True]
    if not names or any(":" not in name for name in names):
        return labels
    categories = {name.partition(":")[0] for name in names}
    return [label for label in labels if ":" in label and label.partition(":")[0] in categories]


def _operation(payload: Mapping[str, Any], most: int) -> int:
    value = payload.get("operator_type")
    if value is None:
        return fail("operator_type", "is missing", 0)
    if type(value) is not int or not 1 <= value <= most:
        return fail("operator_type", f"must be a whole number from 1 to {most}", 0)
    return value


def _platform(payload: Mapping[str, Any]) -> str | None:
    value = payload.get("platform")
    if value in (None, ""):
        return None
    known = _PLATFORMS.get(value.lower()) if isinstance(value, str) else None
    return known or fail("platform", "must be android or ios", None)


def _texts(payload: Mapping[str, Any], name: str, limit: int | None = None) -> list[str]:
    listed = checks.list_of(payload.get(name), name, 1, LIMIT)
    if limit is None:
        return [checks.registration(one, f"{name}[{place}]") for place, one in enumerate(listed)]
    return [checks.text(one, f"{name}[{place}]", limit) for place, one in enumerate(listed)]


def _account_list(value: object, path: str) -> list[tuple[str, int]]:
    """Return accounts, each with its type."""
    found: list[tuple[str, int]] = []
    for place, entry in enumerate(checks.list_of(value, path, 1, LIMIT)):
        raw = checks.object_of(entry, f"{path}[{place}]", {"account", "account_type"})
        kind = raw.get("account_type", 0)
        if type(kind) is not int:
            fail(f"{path}[{place}].account_type", "must be a whole number", None)
            continue
        found.append((checks.text(raw.get("account"), f"{path}[{place}].account", 200), kind))
    return found
