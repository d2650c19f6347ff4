"""The producer works with the oldest redis-py that it allows, as well as with the one that these tests run on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.own_valkey import OwnValkey

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
CALLS = """
import asyncio
import sys

import redis

from knocktwice import AsyncClient, Client, Push, Sms

url, push = sys.argv[1], Push("Hello", "Your code is 4711")
print(redis.__version__)
for durability in ("memory", "disk"):
    with Client(url, durability=durability) as client:
        client.register_device("u-1", "a-registration-token-of-a-phone", platform="android")
        first = client.notify(user="u-1", push=push, sms=Sms("Hello"), key="order-1")
        assert client.notify(user="u-1", push=push, sms=Sms("Hello"), key="order-1") == first
        assert len(client.notify_many(["u-1", "u-2"], push=push)) == 2
        client.record_clicked(first)
        client.cancel(first)


async def call():
    async with AsyncClient(url) as client:
        return await asyncio.gather(*(client.notify(user=f"u-{i}", push=push) for i in range(20)))


assert len(set(asyncio.run(call()))) == 20
"""


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[OwnValkey]:
    with OwnValkey(tmp_path / "valkey", {"appendfsync": "always"}) as running:
        yield running


def oldest() -> str:
    found = re.search(r'^dependencies = .*"redis>=([\d.]+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def test_an_application_may_be_pinned_to_the_oldest_redis_py(tmp_path: Path, valkey: OwnValkey) -> None:
    old = tmp_path / "old"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--target", str(old), f"redis=={oldest()}"], check=True, timeout=120)
    path = os.pathsep.join([str(old), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", CALLS, valkey.url],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.strip().startswith(oldest())
