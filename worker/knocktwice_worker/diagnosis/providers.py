"""Checks of the providers: credentials, accounts, refusals, and what they answered lately."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from knocktwice_shared.channels import SMS
from knocktwice_shared.counted import many
from knocktwice_worker.channels.outcomes import CredentialsUnavailable
from knocktwice_worker.counters import totals
from knocktwice_worker.diagnosis.check import Finding, Level
from knocktwice_worker.diagnosis.workers import of_role
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.fleet.fingerprints import differences, fingerprints

if TYPE_CHECKING:
    from knocktwice_worker.channels.provider import StepProvider
    from knocktwice_worker.services import Services


def push(here: Services) -> Finding:
    """Whether pushes may go."""
    tried = _tried_by_workers(here, "push")
    if tried is None:
        here.push.authorize()
    elif tried[0] is not Level.OK:
        return tried
    if until := here.push_pace.paused_until():
        paused = f"the project gets more pushes than FCM allows it: they are paused until {until:%H:%M:%S} UTC"
        return Level.WARNING, f"{paused}; lower KNOCKTWICE_PUSH_PER_S, or ask Google for a higher limit"
    return tried or (Level.OK, "FCM credentials work, as this shell has them")


def _tried_by_workers(here: Services, channel: str) -> Finding | None:
    """Return what the workers found when they tried a channel's credentials; ``None``: none of them says."""
    try:
        alive, _ = of_role(here, "worker")
    except RedisError:
        return None
    said = {one.name: one.credentials[channel] for one in alive if channel in one.credentials}
    if not said:
        return None
    failing = {name: why for name, why in said.items() if why}
    if failing:
        name, why = next(iter(failing.items()))
        return Level.ERROR, f"{len(failing)} of {len(said)} workers have no credentials that work, {name}: {why}"
    return Level.OK, f"credentials work, as {len(said)} worker{'s' if len(said) > 1 else ''} tried"


def _as_workers_have_it(here: Services) -> bool:
    """Whether this environment has the settings of the workers; without workers nobody knows better."""
    try:
        alive, _ = of_role(here, "worker")
    except RedisError:
        return True
    return not alive or not differences(alive[0].settings, fingerprints(here.settings, secret(here.settings)))


def sms(here: Services) -> Finding:
    """Whether the account for SMS works, and its sender."""
    if not _as_workers_have_it(here) and (tried := _tried_by_workers(here, SMS)):
        return tried
    opened = here.channels[SMS]
    if opened.weights is not None and opened.usual not in opened.weights:
        return Level.OK, f"not by {opened.usual}; see sms providers"
    return _examined(here.channels.usual(SMS))


def other_channel(here: Services, name: str) -> Finding:
    """Whether the account for another channel works, and its sender."""
    if not _as_workers_have_it(here) and (tried := _tried_by_workers(here, name)):
        return tried
    if here.channels[name].sender is None:
        return Level.OK, f"not used; {here.channels.entry(name).sender_setting} names a sender"
    return _examined(here.channels.usual(name))


def _examined(provider: StepProvider) -> Finding:
    found = provider.examine()
    return (Level.OK if found.works else Level.ERROR), found.finding


def several(here: Services) -> Finding:
    """How the providers of SMS do, where there are several."""
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


def refusals(here: Services) -> Finding:
    """Whether a provider refuses us, or fails."""
    found = here.troubles.current()
    if not found:
        return Level.OK, "no provider refuses us"
    told = [
        f"{t.provider} {'refuses us' if t.operators else 'fails'} ({many(t.count, 'message')}, last at {t.at:%H:%M} UTC): {t.reason}"
        for t in found
    ]
    level = Level.ERROR if any(t.operators for t in found) else Level.WARNING
    return level, ". ".join(told) + ". Messages that can wait are tried again"


#: Minutes whose answers are told, and from how many answers of a provider a share of failures is a warning.
_MINUTES, _SAMPLE = 10, 5
#: Outcomes that are the provider's or the operator's fault, not the recipient's.
_BAD = {"refused", "retry", "unknown"}
#: The most codes of a provider that are told.
_TOLD = 4


def answers(here: Services) -> Finding:
    """What providers answered in the last minutes, by their own codes."""
    found: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for (provider, outcome, code), count in totals.answers(here.redis, _MINUTES).items():
        found[provider][outcome, code] += int(count)
    if not found:
        return Level.OK, f"no provider was asked in the last {_MINUTES} minutes"
    level, told = Level.OK, []
    for provider, own in sorted(found.items()):
        bad = sum(count for (outcome, _), count in own.items() if outcome in _BAD)
        if own.total() >= _SAMPLE and bad * 2 >= own.total():
            level = Level.WARNING
        each = [
            f"{count} {outcome}{'' if code == 'none' else f' {code}'}"
            for (outcome, code), count in own.most_common(_TOLD)
        ]
        told.append(f"{provider}: {', '.join(each)}")
    return level, f"in {_MINUTES} minutes {'; '.join(told)}"
