"""The wires between the parts: proxies on 127.0.0.1 that can be cut, become black holes, go deaf or slow.

A process of its own, so that a wire works while whoever uses it is stopped. Run by :mod:`oracle.installation`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

_CHUNK = 65_536


class Break(StrEnum):
    """What a wire can do besides carrying."""

    #: Connections are reset, and new ones too.
    CUT = "cut"
    #: Nothing arrives in either direction, and nobody is told.
    HOLE = "black hole"
    #: What is asked arrives; the answers do not.
    DEAF = "answers lost"
    #: Everything arrives a little later.
    SLOW = "slow"


#: How much later (seconds).
_DELAY_S = 0.2


@dataclass
class Wire:
    """One proxy.

    Attributes:
        to: where it leads: ``unix:PATH`` or ``HOST:PORT``.
    """

    name: str
    port: int
    to: str
    broken: Break | None = None
    until: float = 0
    _open: set[StreamWriter] = field(default_factory=set)

    async def listen(self) -> None:
        """Begin to carry."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port, backlog=1024)

    def now(self) -> Break | None:
        """Return what is wrong with it now."""
        return self.broken if time.time() < self.until else None

    def break_for(self, how: Break, seconds: float) -> None:
        """Break it for a while."""
        self.broken, self.until = how, time.time() + seconds
        if how is Break.CUT:
            self.reset()
        elif how is not Break.SLOW:
            # What was swallowed cannot come later, so these connections are of no use any more.
            asyncio.get_running_loop().call_later(seconds, self.reset)

    def lead(self, to: str) -> None:
        """Lead somewhere else from now on, as the address of a primary does after a failover."""
        self.to = to
        self.reset()

    def mend(self) -> None:
        """Carry as usual; connections that have lost something are reset."""
        if self.now() in (Break.HOLE, Break.DEAF):
            self.reset()
        self.until = 0

    def reset(self) -> None:
        """Reset all connections."""
        for writer in self._open:
            writer.transport.abort()

    def close(self) -> None:
        """Stop carrying."""
        self._server.close()
        self.reset()

    async def _carry(self, reader: StreamReader, writer: StreamWriter) -> None:
        if self.now() is Break.CUT:
            writer.transport.abort()
            return
        try:
            there = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        both = {writer, there[1]}
        self._open |= both
        try:
            await asyncio.gather(self._copy(reader, there[1], Break.HOLE), self._copy(there[0], writer, Break.DEAF))
        finally:
            self._open -= both
            for one in both:
                one.transport.abort()

    async def _connect(self) -> tuple[StreamReader, StreamWriter]:
        if self.to.startswith("unix:"):
            return await asyncio.open_unix_connection(self.to.removeprefix("unix:"))
        host, _, port = self.to.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _copy(self, reader: StreamReader, writer: StreamWriter, swallowed_by: Break) -> None:
        """Carry one direction until it ends, and then end the other side's reading, too."""
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                broken = self.now()
                if broken in (Break.HOLE, swallowed_by):
                    continue
                if broken is Break.SLOW:
                    await asyncio.sleep(_DELAY_S)
                writer.write(chunk)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()


async def _serve(control_port: int, wires: dict[str, Wire]) -> None:
    async def control(request: web.Request) -> web.Response:
        wanted = await request.json()
        wire = wires[request.match_info["name"]]
        if "to" in wanted:
            wire.lead(wanted["to"])
        elif wanted:
            wire.break_for(Break(wanted["how"]), wanted["seconds"])
        else:
            wire.mend()
        return web.Response()

    for wire in wires.values():
        await wire.listen()
    app = web.Application()
    app.add_routes([web.post("/{name}", control)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", control_port).start()
    await asyncio.Event().wait()


def main() -> None:
    """Carry until the process is ended. The arguments are the port of the control and the wires as JSON."""
    described = json.loads(sys.argv[2])
    wires = {name: Wire(name, port, to) for name, (port, to) in described.items()}
    asyncio.run(_serve(int(sys.argv[1]), wires))


if __name__ == "__main__":
    main()
