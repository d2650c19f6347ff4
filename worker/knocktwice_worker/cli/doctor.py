"""The checks of ``knocktwice doctor``: is an installation complete? Each answer contains the fix."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import text

from knocktwice_shared.channels import SMS
from knocktwice_shared.counted import many
from knocktwice_shared.durability import Durability
from knocktwice_shared.names import INBOX_ACCEPTED, INBOX_BACKLOG, Queue
from knocktwice_worker.audience import receipt_health
from knocktwice_worker.brake import brakes, watch
from knocktwice_worker.channels.outcomes import CredentialsUnavailable
from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.lifecycle import BrakeState
from knocktwice_worker.limits import budget
from knocktwice_worker.notation import number_plans
from knocktwice_worker.notifications.store import alarms
from knocktwice_worker.switches import overrides, pauses

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.channels.provider import StepProvider
    from knocktwice_worker.services import Services


class Level(StrEnum):
    """The result of a check."""

    #: It works.
    OK = "ok"
    #: It works, and somebody should look at it.
    WARNING = "warning"
    #: It does not work.
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Check:
    """One answer.

    Attributes:
        name: what was looked at.
        finding: what there is, or what is wrong and what would mend it.
    """

    name: str
    level: Level
    finding: str


#: The share of the backlog's limits from which somebody should look.
_NEARLY_FULL = 0.7


def examine(here: Services) -> list[Check]:
    """Run all checks; none of them changes anything, and one that cannot run reports itself as an error."""
    others = {name: partial(_other_channel, name=name) for name in CHANNELS if name != SMS}
    return [_run(name, check, here) for name, check in (_CHECKS | others).items()]


def _run(name: str, check: Callable[[Services], tuple[Level, str]], here: Services) -> Check:
    try:
        level, finding = check(here)
    except CredentialsUnavailable as error:
        return Check(name, Level.WARNING, f"{error}; 'knocktwice up' lets the sandbox stand in")
    except Exception as error:
        return Check(
            name, Level.ERROR, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
        )
    return Check(name, level, finding)


def _postgres(here: Services) -> tuple[Level, str]:
    with here.engine.connect() as conn:
        version = conn.execute(text("SHOW server_version")).scalar_one()
        migrated = conn.execute(text("SELECT to_regclass('public.deliveries') IS NOT NULL")).scalar_one()
    if not migrated:
        return Level.ERROR, f"PostgreSQL {version} answers but has no tables; run: knocktwice migrate"
    return Level.OK, f"PostgreSQL {version}"


def _broker(here: Services) -> tuple[Level, str]:
    info = here.redis.info()
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version", info["redis_version"])
    if not info.get("aof_enabled"):
        disk = here.settings.durability is Durability.DISK
        asked = ", and KNOCKTWICE_DURABILITY is disk, so no call is confirmed" if disk else ""
        return (
            Level.ERROR if disk else Level.WARNING,
            f"{name} {version} without append-only file: a crash forgets accepted messages{asked}; set appendonly yes",
        )
    if info.get("maxmemory_policy") not in (None, "noeviction"):
        return Level.ERROR, f"{name} {version} evicts keys when full; set maxmemory-policy noeviction"
    return _durable(here, info, f"{name} {version}, append-only file on")


def _durable(here: Services, info: dict[str, Any], found: str) -> tuple[Level, str]:
    """Say what accepted means, and whether the broker can hold it."""
    asked, replicas = here.settings.durability, here.settings.durability_replicas
    if asked is Durability.REPLICA and int(info.get("connected_slaves", 0)) < replicas:
        there = info.get("connected_slaves", 0)
        return Level.ERROR, (
            f"{found}; KNOCKTWICE_DURABILITY is replica, but {there} of {many(replicas, 'replica')} {'is' if replicas == 1 else 'are'} connected, so no call "
            "is confirmed: connect them, or set disk or memory"
        )
    return Level.OK, f"{found}; accepted means: {asked.promise}"


def _workers(here: Services) -> tuple[Level, str]:
    from knocktwice_worker.celery import app

    answers = app.control.ping(timeout=1.5) or []
    if not answers:
        return Level.ERROR, "no worker answers; start one: celery -A knocktwice_worker worker"
    return Level.OK, many(len(answers), "worker")


def _push(here: Services) -> tuple[Level, str]:
    here.push.authorize()
    if until := here.push_pace.paused_until():
        paused = f"the project gets more pushes than FCM allows it: they are paused until {until:%H:%M:%S} UTC"
        return Level.WARNING, f"{paused}; lower KNOCKTWICE_PUSH_PER_S, or ask Google for a higher limit"
    return Level.OK, "FCM credentials work"


def _sms(here: Services) -> tuple[Level, str]:
    opened = here.channels[SMS]
    if opened.weights is not None and opened.usual not in opened.weights:
        return Level.OK, f"not by {opened.usual}; see sms providers"
    return _examined(here.channels.usual(SMS))


def _other_channel(here: Services, name: str) -> tuple[Level, str]:
    if here.channels[name].sender is None:
        return Level.OK, f"not used; {here.channels.entry(name).sender_setting} names a sender"
    return _examined(here.channels.usual(name))


def _examined(provider: StepProvider) -> tuple[Level, str]:
    found = provider.examine()
    return (Level.OK if found.works else Level.ERROR), found.finding


def _providers(here: Services) -> tuple[Level, str]:
    opened, choice = here.channels[SMS], here.channels.choice(SMS)
    if choice is None:
        return Level.OK, f"only {opened.usual}; KNOCKTWICE_SMS_PROVIDERS_FILE adds others"
    level, found = Level.OK, []
    for one in choice.health():
        try:
            provider = here.channels.provider(SMS, one.provider)
            provider.authorize()
            provider.authorize_callbacks()
            state = f"demoted, {one.reason}" if one.reason else "fine"
        except CredentialsUnavailable as error:
            state = str(error)
        level = level if state == "fine" else Level.WARNING
        counts = f"{one.bad} of {one.ok + one.bad} SMS failed in the last minute"
        found.append(f"{one.provider} (weight {one.weight:g}): {state}; {counts}")
    return level, ". ".join(found)


def _refusals(here: Services) -> tuple[Level, str]:
    found = here.troubles.current()
    if not found:
        return Level.OK, "no provider refuses us"
    told = [
        f"{t.provider} {'refuses us' if t.operators else 'fails'} ({many(t.count, 'message')}, last at {t.at:%H:%M} UTC): {t.reason}"
        for t in found
    ]
    level = Level.ERROR if any(t.operators for t in found) else Level.WARNING
    return level, ". ".join(told) + ". Messages that can wait are tried again"


def _number_plans(_: Services) -> tuple[Level, str]:
    return number_plans_on(datetime.now(UTC).date())


def number_plans_on(today: date) -> tuple[Level, str]:
    """Return whether the installed number plans are young enough on a day, in words for a person."""
    release = number_plans.installed()
    day = number_plans.released(release)
    if day is not None and today - day > number_plans.OLD:
        finding = (
            f"phonenumbers {release} is of about {day:%B %Y}, and ranges assigned since are refused as not assigned"
        )
        return Level.WARNING, f"{finding}; upgrade it, or set KNOCKTWICE_NUMBERS=possible"
    return Level.OK, f"phonenumbers {release}"


def _backlog(here: Services) -> tuple[Level, str]:
    waiting = {q.value: here.redis.llen(q.value) for q in Queue}
    inbox = here.redis.zcard(INBOX_ACCEPTED)
    used = int(cast("bytes | None", here.redis.hget(INBOX_BACKLOG, "used")) or 0)
    most, most_bytes = here.settings.backlog_messages, here.settings.backlog_bytes
    share = max(inbox / most, used / most_bytes)
    with here.engine.connect() as conn:
        overdue = conn.execute(
            text("SELECT count(*) FROM deliveries WHERE wake_at < knocktwice_now() - interval '1 minute'")
        )
        late = overdue.scalar_one()
    full = f"{share:.0%} full by KNOCKTWICE_BACKLOG_MESSAGES and KNOCKTWICE_BACKLOG_BYTES"
    finding = ", ".join(f"{name} {n}" for name, n in waiting.items()) + f"; inbox {inbox}; overdue rows {late}"
    if share >= 1:
        return Level.ERROR, f"notifications are refused, {full}; start workers, or raise the limits; {finding}"
    if share >= _NEARLY_FULL:
        return Level.WARNING, f"{full}; beyond that notifications are refused; {finding}"
    return (Level.WARNING if late else Level.OK), finding


def _budget(here: Services) -> tuple[Level, str]:
    limits = here.settings.budget
    if not limits:
        return Level.OK, "none; KNOCKTWICE_SMS_BUDGET sets one"
    with here.engine.connect() as conn:
        now = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
        spent = budget.today(conn, here.limits.limits.day(now)[1]).spent
    uses = [(limits.total, sum(spent.values()), "in all"), *((limits.categories[c], spent[c], c) for c in spent)]
    full = any(limit and used >= limit - (limits.reserve if name == "in all" else 0) for limit, used, name in uses)
    told = ", ".join(f"{used}{f' of {limit}' if limit else ''} {name}" for limit, used, name in uses)
    reserve = f"; the last {limits.reserve} in all are for critical" if limits.reserve else ""
    return (Level.WARNING if full else Level.OK), f"SMS parts today: {told}{reserve}"


def _dead_letters(here: Services) -> tuple[Level, str]:
    with here.engine.connect() as conn:
        count, last = conn.execute(text("SELECT count(*), max(reason) FROM dead_letters")).one()
    return (Level.WARNING, f"{count} parked, for example: {last}") if count else (Level.OK, "none")


def _brake(here: Services) -> tuple[Level, str]:
    with here.engine.connect() as conn:
        found = brakes.list_all(conn)
    if not found:
        rules = watch.Rules.of(here.settings)
        return Level.OK, f"none is on; one would hold {rules.holds}" if rules.watched else "off (KNOCKTWICE_BRAKE)"
    told = []
    for one in found[:5]:
        state = "holds" if one.state is BrakeState.ON else "is off, and still holds"
        passed = f", would have held {one.passed} more" if one.passed else ""
        told.append(
            f"brake {one.id} {state} {many(one.held, 'message')}{passed} since {one.since:%Y-%m-%d %H:%M} UTC: {one.why}"
        )
    return Level.WARNING, f"{'. '.join(told)}; see 'knocktwice brake list'"


def _pauses(here: Services) -> tuple[Level, str]:
    with here.engine.connect() as conn:
        found = [one for one in pauses.list_all(conn) if one.ended_at is None]
    if not found:
        return Level.OK, "nothing is paused"
    told = ". ".join(f"pause {one.id}: {one}" for one in found[:5])
    return Level.WARNING, f"{told}; 'knocktwice resume' ends one, 'knocktwice switches' lists them"


def _overrides(here: Services) -> tuple[Level, str]:
    with here.engine.connect() as conn:
        found = overrides.list_all(conn)
    if not found:
        return Level.OK, "none; 'knocktwice set' changes budgets, countries, quiet hours and paces"
    told = ", ".join(f"{one.name}={one.value} since {one.since:%Y-%m-%d %H:%M} UTC" for one in found)
    return Level.OK, f"{told}; 'knocktwice unset' restores one"


#: For how long a decision that did not wait is a warning.
_LATELY = timedelta(hours=24)


def _awaited(here: Services) -> tuple[Level, str]:
    with here.engine.connect() as conn:
        count, last = alarms.lately_not_awaited(conn, _LATELY)
    if not count:
        return Level.OK, "every decision of the last day waited for what had been accepted before it"
    finding = f"{many(count, 'decision')} of the last day did not wait for an accepted message, the last after {last:%H:%M} UTC"
    return (
        Level.WARNING,
        f"{finding}; receipts and cancellations are processed too late: look at backlog and dead letters",
    )


def _receipts(here: Services) -> tuple[Level, str]:
    with here.engine.connect() as conn:
        kinds = receipt_health.examine(conn, here.settings)
    silent = [k for k in kinds if k.silent]
    if not silent:
        pushes, confirmed = sum(k.pushes for k in kinds), sum(k.confirmed for k in kinds)
        return (
            Level.OK,
            f"{confirmed} of {many(pushes, 'push', 'pushes')} of the last seven days {'was' if confirmed == 1 else 'were'} confirmed",
        )
    names = ", ".join(f"{k.platform} {k.app_version}".strip() for k in silent[:5])
    policy = here.settings.unconfirmed_policy
    finding = f"never reported as delivered: pushes to {names}; not_delivered then does: {policy}"
    return Level.WARNING, f"{finding} (KNOCKTWICE_UNCONFIRMED_POLICY); see 'knocktwice receipts health'"


_CHECKS: dict[str, Callable[[Services], tuple[Level, str]]] = {
    "postgres": _postgres,
    "broker": _broker,
    "workers": _workers,
    "push": _push,
    "sms": _sms,
    "sms providers": _providers,
    "refusals": _refusals,
    "number plans": _number_plans,
    "backlog": _backlog,
    "sms budget": _budget,
    "receipts": _receipts,
    "brake": _brake,
    "pauses": _pauses,
    "changed": _overrides,
    "awaited": _awaited,
    "dead letters": _dead_letters,
}
