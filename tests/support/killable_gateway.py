"""The gateway that ends at a named point as ``kill -9`` would end it:
``python -m support.killable_gateway gateway --port 8080``.

``KILL_AT`` names the point, and it ends there not at first but when it has answered a few groups of requests. The
shipped code has no hook: this module wraps its functions before the gateway starts.
"""

from __future__ import annotations

import itertools
import os
import signal
from functools import wraps
from typing import TYPE_CHECKING, Any

from knocktwice.broker import KombuBroker
from knocktwice_worker.cli import main
from knocktwice_worker.gateway.intake import idempotency

if TYPE_CHECKING:
    from collections.abc import Callable

#: How often it passes the point before it ends there.
PASSED = 12


def _kill(owner: Any, name: str, *, after: bool = False) -> Callable[[], None]:
    def arm() -> None:
        original = getattr(owner, name)
        calls = itertools.count()

        @wraps(original)
        def deadly(*args: Any, **kwargs: Any) -> Any:
            last = next(calls) >= PASSED
            if last and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*args, **kwargs)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, deadly)

    return arm


#: Every step between a request and its answer.
POINTS: dict[str, Callable[[], None]] = {
    "between the claim of keys and the broker": _kill(idempotency, "hold", after=True),
    "before the broker has anything": _kill(KombuBroker, "accept"),
    "between the broker and the answer": _kill(KombuBroker, "accept", after=True),
    "between finished keys and the answer": _kill(idempotency, "finish", after=True),
}

if __name__ == "__main__":
    POINTS[os.environ["KILL_AT"]]()
    main.main()
