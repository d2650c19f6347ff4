"""Tests from the command line: keys, notifications and endpoints of the test side, and how they are shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from knocktwice_shared.names import INBOX_MESSAGES, Task
from knocktwice_worker import services

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.commands import CommandOutput


def test_keys_notifications_and_endpoints_of_tests_are_made_and_shown(run: Callable[..., CommandOutput]) -> None:
    made = run("key", "create", "shop's tests", "--test", "--project", "shop", "--scope", "notify", "--json").json
    assert (made["project"], made["test"]) == ("shop", True)
    assert run("key", "create", "x", "--test", "--scope", "admin").code != 0
    assert [(one["project"], one["test"]) for one in run("key", "list", "--json").json] == [("shop", True)]
    assert run("webhooks", "add", "https://shop.example/hooks", "--test").code == 0
    assert [one["project"] for one in run("webhooks", "list", "--json").json] == ["~test"]
    words = ("--registration", "silent-1", "--phone", "+16505550100", "--title", "Order", "--body", "It is here.")
    id_ = run("notify", *words, "--test", "--when", "never", "--json").json["id"]
    here = services.services()
    waiting: Any = here.redis.hgetall(INBOX_MESSAGES)
    for message, entry in waiting.items():
        told = json.loads(entry)
        here.inbox.carry_out(Task(told["task"]), message.decode(), told["message"], here.accepted[Task(told["task"])])
    said = run("explain", id_).out
    assert "TEST, pushed" in said
    assert "Here the push would have gone to 1 device." in said
    assert "would have been sent by push to …lent-1: title: Order | body: It is here." in said
    assert "TEST a number: pushed" in run("history", "--project", "~test").out
    assert "TEST" not in run("history", "--project", "shop").out
    assert run("status", id_, "--json").json["test"] is True
