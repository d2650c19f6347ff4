"""The judgement: which people's pushes are in trouble, by counts of now and of what is usual. Pure; no I/O.

Counts are kept by template, platform and version of the app. A *scope* is a set of these, like "all of ios" or "the
template news on android". What is expected of a scope is what each of its parts usually does, so a blast to people with
other phones than usual is compared with such phones.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from knocktwice_worker.lifecycle import PushTrouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

#: A kind of device that usually reports a smaller share as delivered cannot be said to fail.
_REPORTS = 0.2
#: So many clicks must be expected before it is strange that there is none.
_CLICKS = 300
#: A part of a scope with so many pushes can contradict what the scope as a whole seems to show.
_FEW = 5


@dataclass(frozen=True, slots=True)
class Scope:
    """People, by what they are sent and what they have.

    Attributes:
        template: the template; empty: none; ``None``: any.
        platform: the platform; ``None``: any.
        app_version: the version of the app; empty: not known; ``None``: any.
    """

    template: str | None = None
    platform: str | None = None
    app_version: str | None = None

    def covers(self, other: Scope) -> bool:
        """Return whether everybody in ``other`` is in this scope."""
        return all(
            getattr(self, name) is None or getattr(self, name) == getattr(other, name)
            for name in ("template", "platform", "app_version")
        )

    def __str__(self) -> str:
        device = " ".join(filter(None, (self.platform, self.app_version)))
        if self.app_version == "":
            device += " without a version"
        match self.template:
            case None:
                return device or "all people"
            case "":
                return f"{device or 'people'} without a template"
            case _:
                return f"{device + ' with ' if device else ''}template {self.template}"


@dataclass(frozen=True, slots=True)
class Counts:
    """Pushes, and what became of them within half a minute.

    Attributes:
        refused: those that the provider refused for a reason that is not the device's.
        sent: those that it took.
        delivered, clicked: of these, reported as such.
    """

    refused: int = 0
    sent: int = 0
    delivered: int = 0
    clicked: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Look:
    """The shares that are compared, by the full scope of each part: template, platform and version.

    Attributes:
        now: the latest counts.
        usual: the counts before them, without those of known troubles.
        span_s: the seconds that ``now`` covers.
    """

    now: Mapping[Scope, Counts]
    usual: Mapping[Scope, Counts]
    span_s: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a difference is a jump; see the settings ``KNOCKTWICE_BRAKE_…``.

    Attributes:
        sample: the fewest pushes from which anything can be told, now and of what is usual.
        jump: so much above the usual share, as a difference of shares.
        factor: so many times fewer reports than usual.
    """

    sample: int
    jump: float
    factor: float


@dataclass(frozen=True, slots=True)
class Finding:
    """How the pushes of a scope compare with what is usual.

    Attributes:
        kind: what was looked at.
        scope: whose.
        pushes: how many pushes it rests on.
        share: the share of them that is refused, not reported as delivered, or not clicked.
        usual: the share that would be usual.
        span_s: the seconds in which they were handed over.
    """

    kind: PushTrouble
    scope: Scope
    pushes: int
    share: float
    usual: float
    span_s: float


#: Pushes, those of them that are well, and how many should be.
_Part = tuple[int, int, float]
_Of = tuple["Callable[[Counts], int]", "Callable[[Counts], int]"]

#: Of each trouble: the pushes that it is about, and those of them that are well.
_MEASURES: Mapping[PushTrouble, _Of] = {
    PushTrouble.REFUSED: (lambda c: c.refused + c.sent, lambda c: c.sent),
    PushTrouble.UNDELIVERED: (lambda c: c.sent, lambda c: c.delivered),
    PushTrouble.UNCLICKED: (lambda c: c.sent, lambda c: c.clicked),
}


def _wider(kind: PushTrouble, scope: Scope) -> Iterable[Scope]:
    """Return the scopes whose past tells what is usual in ``scope``, the closest first.

    Whether a push arrives depends on the device. Whether it is clicked depends on what it says.
    """
    yield scope
    if kind is PushTrouble.UNCLICKED:
        yield Scope(scope.template, scope.platform)
        yield Scope(scope.template)
    else:
        yield Scope(None, scope.platform, scope.app_version)
        yield Scope(None, scope.platform)


#: Which fields a scope names, from the widest scope to the narrowest.
_LEVELS: Sequence[tuple[str, ...]] = (
    (),
    ("platform",),
    ("template",),
    ("platform", "app_version"),
    ("template", "platform"),
    ("template", "platform", "app_version"),
)
#: The fields by which a scope is taken apart, to see whether all of it is in trouble.
_PARTS = {
    (): ("platform", "template"),
    ("platform",): ("app_version", "template"),
    ("template",): ("platform",),
    ("platform", "app_version"): ("template",),
    ("template", "platform"): ("app_version",),
    ("template", "platform", "app_version"): (),
}


def _at(level: tuple[str, ...], part: Scope) -> Scope:
    """Return the scope that names of a part only some fields."""
    return Scope(*(getattr(part, name) if name in level else None for name in ("template", "platform", "app_version")))


def judge(look: Look, thresholds: Thresholds) -> list[Finding]:
    """Return the troubles, each with the widest scope of which all parts are in trouble."""
    found: list[Finding] = []
    for kind in PushTrouble:
        judged = _Judged(kind, look, thresholds)
        for level in _LEVELS:
            for scope in judged.scopes(level):
                finding = judged.finding(scope)
                if finding is None or not judged.trips(finding):
                    continue
                if not any(explains(f.kind, f.scope, finding) for f in found) and judged.whole(scope, level):
                    found.append(finding)
    return found


def explains(kind: PushTrouble, scope: Scope, finding: Finding) -> bool:
    """Return whether a known trouble is the whole of what was found.

    Who reports no delivery reports no click, either.
    """
    same = kind is finding.kind or (kind is PushTrouble.UNDELIVERED and finding.kind is PushTrouble.UNCLICKED)
    return same and scope.covers(finding.scope)


def measure(look: Look, kind: PushTrouble, scope: Scope, thresholds: Thresholds) -> Finding | None:
    """Return how a scope does now; ``None``: too few pushes, or nothing to compare them with."""
    return _Judged(kind, look, thresholds).finding(scope)


def eased(now: Finding, usual: float, thresholds: Thresholds) -> bool:
    """Return whether a trouble is over.

    Args:
        now: how its scope does now.
        usual: the share that was usual when the trouble began.
    """
    if now.pushes < thresholds.sample:
        return False
    if now.kind is PushTrouble.UNCLICKED:
        return now.share < 1
    return now.share <= usual + thresholds.jump / 2 and (1 - now.share) >= (1 - usual) / 2


class _Judged:
    """The pushes now and as they usually are, for one kind of trouble."""

    def __init__(self, kind: PushTrouble, look: Look, thresholds: Thresholds) -> None:
        self._kind = kind
        self._thresholds = thresholds
        self._span_s = look.span_s
        total, well = _MEASURES[kind]
        rates = _Rates(kind, look.usual, thresholds.sample)
        #: Scope → its parts, each with its pushes, those that are well, and how many should be.
        self._scopes: dict[Scope, list[tuple[Scope, _Part]]] = defaultdict(list)
        for part, counts in look.now.items():
            rate, pushes = rates.of(part), total(counts)
            if rate is not None and pushes:
                own = pushes, well(counts), pushes * rate
                for level in _LEVELS:
                    self._scopes[_at(level, part)].append((part, own))

    def scopes(self, level: tuple[str, ...]) -> list[Scope]:
        return [scope for scope in self._scopes if scope == _at(level, self._scopes[scope][0][0])]

    def finding(self, scope: Scope) -> Finding | None:
        return self._compare(scope, [own for _, own in self._scopes.get(scope, ())])

    def _compare(self, scope: Scope, own: Sequence[_Part]) -> Finding | None:
        pushes = sum(n for n, _, _ in own)
        if not pushes:
            return None
        share = 1 - sum(n for _, n, _ in own) / pushes
        usual = 1 - sum(n for _, _, n in own) / pushes
        return Finding(self._kind, scope, pushes, share, usual, self._span_s)

    def trips(self, finding: Finding) -> bool:
        return finding.pushes >= self._thresholds.sample and self._bad(finding, 1)

    def _bad(self, finding: Finding, leniency: float) -> bool:
        limits, well, expected = self._thresholds, 1 - finding.share, 1 - finding.usual
        if self._kind is PushTrouble.UNCLICKED:
            return well == 0 and finding.pushes * expected >= _CLICKS / leniency
        jumped = finding.share >= finding.usual + limits.jump / leniency
        return jumped or well <= expected / max(limits.factor / leniency, 1.5)

    def whole(self, scope: Scope, level: tuple[str, ...]) -> bool:
        """Return whether no part of a scope does well, and none of its devices alone explains the whole."""
        for name in _PARTS[level]:
            parts: dict[str, list[_Part]] = defaultdict(list)
            for part, own in self._scopes[scope]:
                parts[getattr(part, name)].append(own)
            large = [f for own in parts.values() if (f := self._compare(scope, own)) and f.pushes >= _FEW]
            # Clicks are too rare to tell one part from another; if there is none at all, no part has any.
            if self._kind is not PushTrouble.UNCLICKED and any(not self._bad(f, 2) for f in large):
                return False
            # One platform tells nothing of the others; one version does, if there is no other.
            if (name == "platform" and len(large) < 2) or (name == "app_version" and len(large) == 1 < len(parts)):
                return False
        return True


class _Rates:
    """The share of pushes that usually are well, by scope."""

    def __init__(self, kind: PushTrouble, usual: Mapping[Scope, Counts], sample: int) -> None:
        self._kind, self._sample = kind, sample
        self._sums: dict[Scope, Counts] = defaultdict(Counts)
        for part, counts in usual.items():
            for scope in dict.fromkeys(_wider(kind, part)):
                self._sums[scope] += counts

    def of(self, part: Scope) -> float | None:
        """Return the usual share of a part; ``None``: nobody can tell, or it is not for this kind of trouble to say."""
        total, well = _MEASURES[self._kind]
        for scope in _wider(self._kind, part):
            known = self._sums.get(scope, Counts())
            if total(known) >= self._sample:
                rate = well(known) / total(known)
                return None if self._kind is PushTrouble.UNDELIVERED and rate < _REPORTS else rate
        # It is never usual that a provider refuses pushes for reasons of ours.
        return 1.0 if self._kind is PushTrouble.REFUSED else None
