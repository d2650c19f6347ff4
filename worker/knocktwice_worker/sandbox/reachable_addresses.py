"""The addresses that the sandbox may call: this machine's, and the gateway that it was configured with.

The sandbox gets addresses from outside, in a push's data and in a text's parameters. It must not call any other server
for them.
"""

from __future__ import annotations

import re

from knocktwice_worker.content.links.receipt_urls import PATH

#: Names of this machine.
LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
#: The form of the path after ``/r/``.
_TOKEN = re.compile(r"[A-Za-z0-9_=-]{1,200}")
#: A public URL on this machine, written in the one way in which everybody reads it.
_LOCAL_BASE = re.compile(r"https?://(?:127\.0\.0\.1|localhost|\[::1\])(?::(\d{1,5}))?(?:/[A-Za-z0-9._~-]+)*")
_LAST_PORT = 65_535


def receipt_address(told: str, gateway: str | None) -> bool:
    """Return whether an app of ours may report to the address that a push carries.

    Args:
        told: the address, without ``/delivered`` or ``/clicked``.
        gateway: the gateway's public URL; ``None`` if only this machine is to be called.
    """
    base, _, token = told.rpartition(PATH)
    if not _TOKEN.fullmatch(token):
        return False
    if gateway is not None and base == gateway.rstrip("/"):
        return True
    local = _LOCAL_BASE.fullmatch(base)
    return local is not None and int(local[1] or 80) <= _LAST_PORT
