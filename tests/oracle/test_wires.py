"""A wire carries, and breaks in each of its ways."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from oracle.wires import Break, Wire
from support.ports import free_port

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

#: Long enough for an echo on a slow machine, and short enough to wait for one that must not come.
PATIENCE_S, SILENCE_S = 30, 0.3


async def _echo(reader: StreamReader, writer: StreamWriter) -> None:
    while chunk := await reader.read(100):
        HEARD.append(chunk)
        writer.write(chunk)
    writer.close()


HEARD: list[bytes] = []


async def _with_wire(how: Break | None) -> bytes | None:
    """Send something over a wire, break it, send something else, and return the answer to that."""
    HEARD.clear()
    there = await asyncio.start_server(_echo, "127.0.0.1", 0)
    wire = Wire("test", free_port(), f"127.0.0.1:{there.sockets[0].getsockname()[1]}")
    await wire.listen()
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(b"one")
    assert await asyncio.wait_for(reader.readexactly(3), PATIENCE_S) == b"one"
    if how is not None:
        wire.break_for(how, 60)
    waits_for_nothing = how in (Break.HOLE, Break.DEAF)
    try:
        writer.write(b"two")
        return await asyncio.wait_for(reader.read(3), SILENCE_S if waits_for_nothing else PATIENCE_S)
    except TimeoutError:
        return None
    finally:
        wire.close()
        writer.close()
        there.close()
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=PATIENCE_S)


@pytest.mark.parametrize("how", [None, Break.SLOW])
def test_it_carries(how: Break | None) -> None:
    assert asyncio.run(_with_wire(how)) == b"two"


def test_a_cut_wire_resets_its_connections() -> None:
    with pytest.raises(ConnectionResetError):
        asyncio.run(_with_wire(Break.CUT))


def test_a_black_hole_swallows_both_directions() -> None:
    assert asyncio.run(_with_wire(Break.HOLE)) is None
    assert HEARD == [b"one"]


def test_of_lost_answers_the_request_has_arrived() -> None:
    assert asyncio.run(_with_wire(Break.DEAF)) is None
    assert HEARD == [b"one", b"two"]
