"""The example application: one command, and an order is told."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import psutil

from support.documents import ROOT
from support.ports import free_port
from support.stack import Stack
from support.system import eventually

if TYPE_CHECKING:
    from pathlib import Path


class Shop(Stack):
    """The shop, and the stack that it starts."""

    def start(self) -> subprocess.Popen[bytes]:
        self.shop = free_port()
        ports = ["--port", str(self.shop), "--flower-port", str(self.flower), "--sandbox-port", str(self.sandbox)]
        ports += ["--gateway-port", str(self.gateway)]
        command = [sys.executable, str(ROOT / "docs" / "example" / "shop.py"), *ports]
        with self._output.open("ab") as output:
            return subprocess.Popen(command, env=self.environment, stdout=output, stderr=output)


def test_an_order_that_is_ready_is_told_once(tmp_path: Path) -> None:
    shop = Shop(tmp_path / ".knocktwice")
    family: list[psutil.Process] = []
    try:
        eventually(lambda: "the shop is open" in shop.said(), why=shop.said)
        family = shop.children()
        with httpx.Client(base_url=f"http://127.0.0.1:{shop.shop}", timeout=30) as customer:
            eventually(lambda: _opened(customer), why=shop.said)
            assert "<h1>A coffee shop</h1>" in customer.get("/").text
            order = {"customer": "silent-ana", "phone": "+1 650 555 0100", "drink": "A flat white"}
            assert customer.post("/orders", json=order).status_code == 201
            refused = customer.post("/orders", json={**order, "phone": "12"})
            assert (refused.status_code, refused.json()["detail"].partition(":")[0]) == (422, "phone")
            first = customer.post("/orders/1/ready").json()["notification"]
            assert customer.post("/orders/1/ready").json()["notification"] == first
            eventually(lambda: customer.get("/orders").json()[0]["story"].startswith("texted"), why=shop.said)
    finally:
        shop.process.send_signal(signal.SIGTERM)
        assert shop.process.wait(90) == 0
        assert not psutil.wait_procs(family, timeout=30)[1]


def _opened(customer: httpx.Client) -> bool:
    try:
        return customer.get("/orders").status_code == 200
    except httpx.TransportError:
        return False
