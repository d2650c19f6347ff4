"""``knocktwice explain`` has a sentence for everything that a ledger may hold."""

from __future__ import annotations

from itertools import chain

from knocktwice_worker.lifecycle import Delay, Note, Refusal, Verdict
from knocktwice_worker.reporting.moments import VERDICTS

#: Looked at again in a moment, and not written to the ledger.
UNWRITTEN = {Verdict.WAIT, Delay.LIMITS_UNAVAILABLE}


def test_every_entry_of_the_ledger_has_its_sentence() -> None:
    entries = set(chain(Verdict, Refusal, Delay, Note)) - UNWRITTEN
    assert {str(entry) for entry in entries} == set(VERDICTS)
