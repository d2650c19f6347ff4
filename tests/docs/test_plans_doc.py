"""The examples of ``docs/plans.md`` are what the code takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from knocktwice_shared.messages import STEPS_LIMIT
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.channels.fcm import ID_FIELD, WITHDRAW_FIELD
from knocktwice_worker.content import templates

if TYPE_CHECKING:
    import pytest
    import redis

DOCUMENT = (Path(__file__).parents[2] / "docs" / "plans.md").read_text()


def _block(language: str) -> str:
    """Return what a document says in a language; several examples go on one after the other."""
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE))


def test_its_calls_are_accepted(valkey_url: str, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKTWICE_BROKER_URL", valkey_url)
    exec(_block("python"), {})  # noqa: S102 - our own document
    assert valkey.hlen(INBOX_MESSAGES) == 6


def test_its_template_can_be_declared() -> None:
    declared: dict[str, Any] = yaml.safe_load(_block("yaml"))["templates"]
    ((name, definition),) = declared.items()
    assert [str(step.channel) for step in templates.check(name, definition).plan] == ["whatsapp", "sms"]


def test_its_snippets_look_for_the_fields_that_are_sent() -> None:
    assert all(WITHDRAW_FIELD in _block(language) for language in ("kotlin", "swift", "js"))
    assert ID_FIELD in _block("swift")
    assert STEPS_LIMIT == 10
    assert "up to ten messages" in DOCUMENT
