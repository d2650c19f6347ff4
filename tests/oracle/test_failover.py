"""One failover of each kind in the ordinary suite. Many in a row are ``make failover OF=… TIMES=20``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oracle.failover import OF, fail_over, pauses
from oracle.records import Answer, Evidence, Fault, Notify, PushAsked, Told
from oracle.violations import Violation

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("of", OF)
def test_what_was_accepted_outlives_the_server_that_took_it(of: str, tmp_path: Path) -> None:
    shown = fail_over(of, tmp_path, times=1, seed=5, per_s=2)
    assert shown.settled
    assert len(shown.pauses) == 1
    # How long it took is what the command judges; here others work beside it.
    assert [finding for finding in shown.findings if finding.violation is not Violation.LATE] == []
    lost_at = shown.evidence.faults[0].at
    assert any(push.at > lost_at for push in shown.evidence.pushes)


def test_the_judge_sees_what_is_lost_where_nobody_waits_for_the_standby(tmp_path: Path) -> None:
    shown = fail_over("database", tmp_path, times=1, seed=5, per_s=8, synchronous=False)
    assert Violation.LOST in {finding.violation for finding in shown.findings}


def test_a_pause_ends_with_what_was_wanted_after_the_fault() -> None:
    evidence = Evidence(100)
    for token, asked_at in (("before", 9.0), ("after", 11.0)):
        evidence.add(Notify(asked_at, asked_at, Told.ACCEPTED, token, id=None, via="library"))
    for token, at in (("before", 12.0), ("after", 15.0)):
        evidence.add(PushAsked(at, Answer.TAKEN, "device", "id", token, "Hello"))
    evidence.add(Fault(10, 13, "the database is lost"))
    assert pauses(evidence) == [5]
