"""Redis for the simulation: every command is a step, and the scripts read the simulation's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis

from knocktwice_worker.embedded.installation import connect_redis
from knocktwice_worker.limits.asks import TAG
from simulation.turns import current

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulation.clock import Clock

_NOW = "simulation:now"
#: How long an answer is waited for (seconds of real time).
_PATIENCE_S = 600
# In place of TIME: its two parts, from a key.
_TIME = (
    "(function() local t = redis.call('GET', 'simulation:now'); "
    "return {string.match(t, '^%d+'), string.match(t, '%d+$')} end)()"
)
# What expires by Redis' own clock expires by ours.
_AGE = """
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left >= 0 then
    if left <= tonumber(ARGV[1]) then redis.call('DEL', key) else redis.call('PEXPIRE', key, left - ARGV[1]) end
  end
end
"""
# But for the word that all counts of the limits are there: else they would be made anew from PostgreSQL. The counts
# themselves are of numbers that no later run has.
_FORGET = """
for _, key in ipairs(redis.call('KEYS', '*')) do
  if not string.find(key, '}:complete$') then redis.call('DEL', key) end
end
"""
_LOSE_LIMITS = f"""
for _, key in ipairs(redis.call('KEYS', '{TAG}*')) do redis.call('DEL', key) end
"""
# All that is on some lists, from their right ends.
_TAKE = """
local found = {}
for _, key in ipairs(KEYS) do
  local raw = redis.call('RPOP', key)
  while raw do
    found[#found + 1] = raw
    raw = redis.call('RPOP', key)
  end
end
return found
"""


class Keyspace(redis.Redis):
    """A client whose commands are steps, if a job gives them.

    Args:
        url: kombu's.
        clock: the simulation's.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        pool = connect_redis(url).connection_pool
        # Real time says nothing here: a machine that is busy with other things answers late.
        pool.connection_kwargs.update(socket_timeout=_PATIENCE_S, socket_connect_timeout=_PATIENCE_S)
        super().__init__(connection_pool=pool)
        self._clock = clock
        self._wire: Any = None
        self._scripts: dict[Any, str] = {}

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command."""
        name = str(args[0]).upper()
        if (job := current()) is not None and name != "SCRIPT LOAD":
            job.point(f"Redis: {name}")
        if name not in {"EVAL", "EVALSHA", "SCRIPT LOAD"}:
            return self._run(*args, **options)
        if name != "EVALSHA":
            args = (args[0], self._rewritten(args[1]), *args[2:])
        return self._run(*args, time=self._clock.now, **options)

    def _rewritten(self, script: Any) -> str:
        """Return a script that reads the simulation's clock."""
        if script not in self._scripts:
            self._scripts[script] = str(script).replace("redis.call('TIME')", _TIME)
        return self._scripts[script]

    def _run(self, *args: Any, time: float | None = None, **options: Any) -> Any:
        """Run a command on the only connection, which spares the pool, the retries and the figures of the library.

        Args:
            time: what the time is, told before in the same breath.
        """
        wire = self._wire = self._wire or self.connection_pool.get_connection()
        commands = [args] if time is None else [_set(time), args]
        wire.send_packed_command(wire.pack_commands(commands), check_health=False)
        if time is not None:
            wire.read_response()
        return self.parse_response(wire, args[0], **options)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close all connections."""
        if self._wire is not None:
            self.connection_pool.release(self._wire)
        super().close()

    def pipeline(self, *args: Any, **options: Any) -> Any:
        """Return a pipeline that is sent in one step."""
        made = super().pipeline(*args, **options)
        send = made.execute

        def execute(*given: Any, **more: Any) -> Any:
            if (job := current()) is not None:
                job.point("Redis: several commands")
            return send(*given, **more)

        made.execute = execute  # type: ignore[method-assign]
        return made

    def age(self, seconds: float) -> None:
        """Let keys expire that would have in this time."""
        self._run("EVAL", _AGE, 0, int(seconds * 1000))

    def taken(self, lists: Sequence[str]) -> list[bytes]:
        """Take everything from lists, and return it."""
        found: list[bytes] = self._run("EVAL", _TAKE, len(lists), *lists)
        return found

    def lose_limits(self) -> None:
        """Lose all counts of the limits, as a Redis does that is emptied."""
        self._run("EVAL", _LOSE_LIMITS, 0)

    def forget(self) -> None:
        """Forget what an earlier run has left."""
        self._run("EVAL", _FORGET, 0)
        self._run(*_set(self._clock.now))


def _set(now: float) -> tuple[str, str, str]:
    return "SET", _NOW, f"{int(now)} {int(now % 1 * 1e6):06}"
