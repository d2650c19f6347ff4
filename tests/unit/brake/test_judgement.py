"""What is a trouble of many pushes at once, and what is an ordinary day."""

from __future__ import annotations

import math
import random
from collections import defaultdict

import pytest

from knocktwice_worker.brake.judgement import Counts, Finding, Look, Scope, Thresholds, eased, judge, measure
from knocktwice_worker.lifecycle import PushTrouble

DEFAULT = Thresholds(sample=100, jump=0.5, factor=4)
ANDROID, IOS, WEB = ("android", "2.0"), ("ios", "4.1"), ("web", "")
NEW = ("ios", "4.2")


def leaf(template: str, kind: tuple[str, str]) -> Scope:
    return Scope(template, *kind)


def well(sent: int, delivered: float = 0.92, clicked: float = 0.1) -> Counts:
    return Counts(0, sent, round(sent * delivered), round(sent * clicked))


#: A fortnight: browsers have never reported anything.
USUAL = {
    leaf("order", ANDROID): well(5_000),
    leaf("order", IOS): well(4_000),
    leaf("order", WEB): well(1_000, 0),
    leaf("news", ANDROID): well(2_000, clicked=0.02),
    leaf("news", IOS): well(2_000, clicked=0.02),
}


def found(now: dict[Scope, Counts], usual: dict[Scope, Counts] | None = None) -> list[tuple[PushTrouble, str]]:
    looked = Look(now, USUAL if usual is None else usual, 60)
    return [(finding.kind, str(finding.scope)) for finding in judge(looked, DEFAULT)]


def test_a_lapsed_apns_key_is_a_trouble_of_all_iphones_and_of_nobody_else() -> None:
    now = {
        leaf("order", IOS): Counts(refused=80),
        leaf("order", NEW): Counts(refused=30),
        leaf("order", ANDROID): well(200),
    }
    assert found(now) == [(PushTrouble.REFUSED, "ios")]


def test_a_dead_receipt_endpoint_is_a_trouble_of_all_who_usually_report() -> None:
    now = {leaf("order", kind): well(100, 0, 0) for kind in (ANDROID, IOS, WEB)}
    assert found(now) == [(PushTrouble.UNDELIVERED, "all people")]


def test_a_release_that_reports_nothing_is_a_trouble_of_that_version() -> None:
    now = {leaf("order", NEW): well(150, 0, 0), leaf("order", IOS): well(150), leaf("order", ANDROID): well(150)}
    assert found(now) == [(PushTrouble.UNDELIVERED, "ios 4.2")]


def test_a_release_that_is_alone_on_its_platform_but_for_a_few_is_the_trouble() -> None:
    now = {leaf("order", NEW): well(150, 0, 0), leaf("order", IOS): well(3), leaf("order", ANDROID): well(150)}
    assert found(now) == [(PushTrouble.UNDELIVERED, "ios 4.2")]


def test_a_wrong_project_is_a_trouble_of_everybody() -> None:
    now = {leaf("order", ANDROID): Counts(refused=100), leaf("order", IOS): Counts(refused=90)}
    assert found(now) == [(PushTrouble.REFUSED, "all people")]
    assert found(now, {}) == [(PushTrouble.REFUSED, "all people")]


def test_a_template_that_fcm_refuses_is_a_trouble_of_the_template() -> None:
    now = {leaf("news", kind): Counts(refused=100) for kind in (ANDROID, IOS)}
    now |= {leaf("order", kind): well(100) for kind in (ANDROID, IOS)}
    assert found(now) == [(PushTrouble.REFUSED, "template news")]


def test_clicks_that_stop_altogether_are_a_trouble_of_the_version_that_lost_them() -> None:
    now = {leaf("order", NEW): well(4_000, clicked=0)}
    now |= {leaf("order", IOS): well(500), leaf("order", ANDROID): well(1_000)}
    assert found(now) == [(PushTrouble.UNCLICKED, "ios 4.2")]


def test_the_first_blast_of_a_new_template_is_compared_with_its_platforms() -> None:
    assert found({leaf("new", ANDROID): well(500, 0, 0)}) == [(PushTrouble.UNDELIVERED, "android")]
    assert found({leaf("new", ANDROID): well(500)}) == []


def test_a_blast_to_browsers_that_never_report_is_none() -> None:
    assert found({leaf("new", WEB): well(5_000, 0, 0)}) == []


def test_a_blast_to_people_who_rarely_click_is_none() -> None:
    assert found({leaf("new", ANDROID): well(5_000, clicked=0), leaf("news", IOS): well(1_000, clicked=0.001)}) == []


def test_that_few_people_of_whom_few_click_do_not_click_is_none() -> None:
    assert found({leaf("news", IOS): well(500, clicked=0)}) == []


def test_without_any_history_only_refusals_tell_something() -> None:
    assert found({leaf("new", ANDROID): well(5_000, 0, 0)}, {}) == []


def test_too_few_pushes_tell_nothing() -> None:
    assert found({leaf("order", IOS): Counts(refused=99)}) == []
    assert found({leaf("order", IOS): Counts(refused=100)}) == [(PushTrouble.REFUSED, "ios")]


def test_a_platform_that_seldom_reports_is_compared_by_how_many_times_fewer_reports() -> None:
    usual = {leaf("order", ANDROID): well(1_000, 0.4)}
    assert found({leaf("order", ANDROID): well(200, 0.2)}, usual) == []
    assert found({leaf("order", ANDROID): well(200, 0.09)}, usual) == [(PushTrouble.UNDELIVERED, "android")]


def test_two_troubles_of_the_same_people_are_two() -> None:
    now = {leaf("order", IOS): Counts(refused=200, sent=150)}
    assert found(now) == [(PushTrouble.REFUSED, "ios"), (PushTrouble.UNDELIVERED, "ios")]
    assert found({leaf("order", IOS): well(4_000, 0, 0)}) == [(PushTrouble.UNDELIVERED, "ios")]


def test_a_finding_says_the_shares() -> None:
    (finding,) = judge(Look({leaf("order", IOS): Counts(100, 100, 100, 100)}, USUAL, 60), DEFAULT)
    assert finding == Finding(PushTrouble.REFUSED, Scope(None, "ios"), 200, 0.5, 0, 60)


@pytest.mark.parametrize(
    ("share", "usual", "pushes", "over"),
    [
        (0.08, 0.08, 100, True),
        (0.3, 0.08, 100, True),
        (0.08, 0.08, 99, False),
        (0.5, 0.08, 1_000, False),
        (0.6, 0.08, 1_000, False),
        # Where only three of ten report, one of ten is not nearly as usual.
        (0.9, 0.7, 1_000, False),
        (0.8, 0.7, 1_000, True),
    ],
)
def test_a_trouble_is_over_when_enough_pushes_are_nearly_as_usual(
    share: float, usual: float, pushes: int, over: bool
) -> None:
    now = Finding(PushTrouble.UNDELIVERED, Scope(), pushes, share, 0.9, 60)
    assert eased(now, usual, DEFAULT) is over


def test_one_click_ends_a_trouble_of_clicks() -> None:
    looked = Look({leaf("order", IOS): well(1_000, clicked=0.001)}, USUAL, 60)
    now = measure(looked, PushTrouble.UNCLICKED, Scope(None, "ios"), DEFAULT)
    assert now is not None
    assert eased(now, 0.9, DEFAULT)


class OrdinaryTraffic:
    """Some weeks of an application that works: small templates, nights, new versions,
    campaigns to people who rarely click.
    """

    KINDS = (("android", 0.9), ("ios", 0.95), ("web", 0.0))

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.templates = {f"small-{n}": self.random.uniform(0, 3) for n in range(6)} | {"login": 40.0, "order": 8.0}
        self.clicks = {name: self.random.choice((0.001, 0.05, 0.3, 0.6)) for name in self.templates}
        self.versions = {"android": ["1"], "ios": ["1"], "web": [""]}

    def day(self, day: int) -> None:
        """Release something new on some days."""
        for platform in ("android", "ios"):
            if self.random.random() < 0.2:
                self.versions[platform].append(f"{day}.0")
        if self.random.random() < 0.3:
            self.templates[f"new-{day}"] = self.random.uniform(0, 20)
            self.clicks[f"new-{day}"] = self.random.choice((0.0005, 0.02, 0.4))

    def minute(self, hour: int) -> dict[Scope, Counts]:
        """Return what is pushed in a minute. At night phones sleep, and few people click."""
        asleep = 1 + math.cos((hour - 3) / 24 * 2 * math.pi)
        sent: dict[Scope, Counts] = defaultdict(Counts)
        for template, pace in self.templates.items():
            self._send(sent, template, pace * (1 - asleep / 2.5), asleep)
        if self.random.random() < 0.01:
            name = self.random.choice(list(self.templates))
            self._send(sent, name, self.random.choice((100, 500, 5_000)), asleep, self.random.choice((1, 0.02)))
        return sent

    def _send(
        self, sent: dict[Scope, Counts], template: str, pushes: float, asleep: float, interest: float = 1
    ) -> None:
        # A campaign may go to people who differ from the others.
        shares = [self.random.uniform(0.1, 1) for _ in self.KINDS]
        for (platform, reports), share in zip(self.KINDS, shares, strict=True):
            for n, version in enumerate(reversed(self.versions[platform])):
                count = self._of(pushes * share / sum(shares) * (0.5**n))
                refused = sum(self.random.random() < 0.003 for _ in range(min(count, 50)))
                delivered = min(count - refused, self._of((count - refused) * reports * (1 - 0.2 * asleep)))
                clicked = min(delivered, self._of(delivered * self.clicks[template] * interest * (1 - asleep / 3)))
                if count:
                    sent[Scope(template, platform, version)] += Counts(refused, count - refused, delivered, clicked)

    def _of(self, expected: float) -> int:
        return max(0, round(self.random.gauss(expected, math.sqrt(max(expected, 0.01)))))


@pytest.mark.parametrize("seed", range(3))
def test_ordinary_traffic_trips_nothing_for_weeks(seed: int) -> None:
    traffic = OrdinaryTraffic(seed)
    history: dict[Scope, Counts] = defaultdict(Counts)
    window: list[dict[Scope, Counts]] = []
    for day in range(5):
        traffic.day(day)
        for hour in range(24):
            # Of each hour some minutes: enough to see what a night, a release or a campaign does.
            for _ in range(5):
                window.append(traffic.minute(hour))
                in_window: dict[Scope, Counts] = defaultdict(Counts)
                before: dict[Scope, Counts] = defaultdict(Counts, history)
                for n, minute in enumerate(window):
                    for scope, counts in minute.items():
                        in_window[scope] += counts
                        if n < len(window) - 1:
                            before[scope] += counts
                looked = Look(window[-1], before, 60)
                wide = Look(in_window, history, 600)
                assert judge(looked, DEFAULT) == [], (day, hour)
                assert judge(wide, DEFAULT) == [], (day, hour)
                if len(window) == 10:
                    for scope, counts in window.pop(0).items():
                        history[scope] += counts
