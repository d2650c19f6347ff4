"""Plays an answer: waits, hangs up, stays silent, or lets the handler speak."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from knocktwice_worker.sandbox.rules import Answer

#: Set when the server stops, so that no request hangs longer than the server lives.
STOPPING = web.AppKey("stopping", asyncio.Event)


async def play(answer: Answer, request: web.Request, response: web.Response) -> web.Response:
    """Return the response when and if the answer says so."""
    if answer.latency or answer.hang:
        await _pause(request, None if answer.hang else answer.latency)
    if (answer.drop or answer.hang) and request.transport is not None:
        # aiohttp then finds no connection to answer, and stops.
        request.transport.close()
    if answer.retry_after is not None and answer.refuses:
        response.headers["Retry-After"] = str(answer.retry_after)
    return response


async def _pause(request: web.Request, seconds: float | None) -> None:
    try:
        await asyncio.wait_for(request.app[STOPPING].wait(), seconds)
    except TimeoutError:
        return


def json_response(value: object, status: int = 200) -> web.Response:
    """Return JSON."""
    return web.json_response(value, status=status)


async def read_json(request: web.Request) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: the body is none.
    """
    try:
        value = await request.json()
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object")
    return value
