"""Whether messages to a range of numbers look like SMS pumping."""

from __future__ import annotations

from dataclasses import replace

import pytest

from knocktwice_worker.brake.pumping import Crowding, Outcomes, Record, Sign, judge

SAMPLE = 50
#: A template whose codes are entered by 70 of 100 people.
CODES = Outcomes(2_000, 2_000, 1_400, 1_900)


def sign(record: Record) -> Sign | None:
    found = judge(record, SAMPLE)
    return None if found is None else found.sign


def test_codes_that_nobody_enters_are_pumping_where_others_enter_theirs() -> None:
    attack = Record(Outcomes(60, 60, 0, 60), others_before=CODES, others_now=CODES)
    found = judge(attack, SAMPLE)
    assert found
    assert (found.sign, found.messages, found.share) == (Sign.UNANSWERED, 60, 1.0)
    assert found.usual == pytest.approx(0.3)


@pytest.mark.parametrize(
    "record",
    [
        Record(Outcomes(60, 40, 0, 60), others_before=CODES),
        Record(Outcomes(60, 60, 12, 60), others_before=CODES),
        Record(Outcomes(60, 60, 0, 60), others_before=CODES, others_now=Outcomes(500, 500, 20, 480)),
        Record(Outcomes(60, 60, 0, 60), others_before=Outcomes(2_000, 2_000, 200, 0)),
        Record(Outcomes(60, 60, 0, 60), before=Outcomes(900, 900, 20, 900), others_before=CODES),
        Record(Outcomes(60, 60, 0, 60)),
    ],
    ids=[
        "too few are settled",
        "one of five answers",
        "nobody else answers now",
        "nobody ever answers",
        "these never answered",
        "nothing is known",
    ],
)
def test_ordinary_traffic_is_not(record: Record) -> None:
    assert sign(record) is None


def test_what_arrives_nowhere_is_pumping_where_nobody_answers_anyway() -> None:
    quiet = Outcomes(2_000, 2_000, 0, 1_900)
    assert sign(Record(Outcomes(60, 60, 0, 1), others_before=quiet)) is Sign.UNDELIVERED
    assert sign(Record(Outcomes(60, 60, 0, 50), others_before=quiet)) is None


def test_new_numbers_side_by_side_are_pumping_before_anybody_could_answer() -> None:
    attack = Record(Outcomes(150), crowding=Crowding(150, 2))
    assert sign(attack) is Sign.CROWDED
    assert sign(replace(attack, crowding=Crowding(150, 16))) is None
    assert sign(replace(attack, crowding=Crowding(99, 1))) is None


def test_a_company_whose_numbers_are_side_by_side_and_that_answers_is_not() -> None:
    company = Record(Outcomes(150, 60, 30, 60), crowding=Crowding(150, 2))
    assert sign(company) is None
    assert sign(replace(company, now=Outcomes(150, 60, 2, 60))) is Sign.CROWDED
