"""Answers as JSON in ASCII: they repeat what callers wrote, and half a character that stood there cannot be UTF-8."""

from __future__ import annotations

import json

from starlette.responses import Response


def answer(body: object, status: int = 200) -> Response:
    """Return an answer."""
    return Response(json.dumps(body), status, media_type="application/json")
