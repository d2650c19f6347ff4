"""What was accepted and has not come through is published again: each once, by whoever looks first, and all of them in the end."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from knocktwice_shared.names import INBOX_ACCEPTED, INBOX_MESSAGES, Task

if TYPE_CHECKING:
    from knocktwice_worker.notifications.inbox.accepted import Inbox
    from knocktwice_worker.services import Services

LIMIT = 100


@pytest.fixture
def inbox(here: Services) -> Inbox:
    """One whose grace no test outlives, and which was filled long ago."""
    return replace(here.inbox, grace_s=3600)


def accepted_long_ago(inbox: Inbox, count: int) -> list[str]:
    ids = [f"m{n:04}" for n in range(count)]
    for place, id_ in enumerate(ids):
        inbox.redis.hset(INBOX_MESSAGES, id_, json.dumps({"task": Task.CANCEL, "message": {}}))
        inbox.redis.zadd(INBOX_ACCEPTED, {id_: place})
    return ids


def sweep(inbox: Inbox) -> list[str]:
    published: list[str] = []
    inbox.sweep(lambda _task, _message, id_: published.append(id_))
    return published


def test_the_oldest_come_first_and_the_next_sweep_goes_on_behind_them(inbox: Inbox) -> None:
    ids = accepted_long_ago(inbox, LIMIT + 20)
    assert sweep(inbox) == ids[:LIMIT]
    assert sweep(inbox) == ids[LIMIT:]
    assert sweep(inbox) == []


def test_of_many_sweepers_each_message_has_one(inbox: Inbox) -> None:
    ids = accepted_long_ago(inbox, LIMIT)
    with ThreadPoolExecutor(8) as pool:
        swept = list(pool.map(lambda _: sweep(inbox), range(8)))
    assert sorted(id_ for published in swept for id_ in published) == ids


def test_what_is_swept_and_lost_again_comes_after_another_grace(inbox: Inbox) -> None:
    ids = accepted_long_ago(inbox, 3)
    assert sweep(inbox) == ids
    assert sweep(replace(inbox, grace_s=-1)) == ids
