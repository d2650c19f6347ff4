"""The file of projects: read as it is meant, or refused with all its mistakes, each with its line."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from knocktwice_shared.messages import Category
from knocktwice_worker.config import ConfigurationError, load
from knocktwice_worker.limits.asks import ProjectLimits
from knocktwice_worker.projects.file import Project, ProjectFileError, Projects, read

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
projects:
  shop:
    senders: ["+1 650-555-0100", SHOP]
    whatsapp_sender: whatsapp:+16505550101
    sms_per_day: 3
    sms_same_content: 1h
    budget: {total: 500, reserve: 50, marketing: 100}
    trial: {sms_per_day: 2, budget: {total: 400}}
  no: {senders: "+16505550102"}
"""
BAD = """\
projects:
  Shop:
    sms_per_day: 3
  bank:
    senders: +16505550100
    sms_per_day: -1
    sms_same_content: 25h
    limits: 3
    budget: {total: 5, reserve: 6}
  taxi:
    senders: [MyVeryLongCompanyName, ""]
    sms_per_day: yes
    budget: {total: 1.5}
  post:
"""


def written(folder: Path, text: str, encoding: str = "utf-8") -> str:
    path = folder / "projects.yaml"
    path.write_text(text, encoding=encoding)
    return str(path)


def test_it_says_what_each_project_has_of_its_own(tmp_path: Path) -> None:
    known = read(written(tmp_path, GOOD, "utf-8-sig"))
    shop = known["shop"]
    assert (shop.senders, shop.sender("sms"), shop.sender("whatsapp")) == (
        ("+16505550100", "SHOP"),
        "+16505550100",
        "+16505550101",
    )
    limits = shop.limits
    assert (limits.per_day, limits.same_content) == (3, timedelta(hours=1))
    assert limits.budget.arguments() == [500, 50, 0, 100, 0]
    assert limits.budget.categories[Category.MARKETING] == 100
    # A country's code is the name of a project here, and no "false".
    assert (known["no"].sender("sms"), bool(known["no"].limits)) == ("+16505550102", False)
    assert Projects(known).limits == {"shop": limits}
    (name, tried), *others = Projects(known).trials.items()
    assert (name, tried.per_day, tried.budget.total, others) == ("shop", 2, 400, [])


def test_all_mistakes_are_told_at_once_each_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, BAD)
    with pytest.raises(ProjectFileError) as caught:
        read(path)
    told = str(caught.value).splitlines()
    begins = [
        "2:3: projects.Shop: must be 1 to 40 characters of a-z",
        "5:5: projects.bank.senders[0]: must be a text: put it in quotes",
        "6:5: projects.bank.sms_per_day: ",
        "7:5: projects.bank.sms_same_content: must be between 0 and 1 days",
        "8:5: projects.bank.limits: is not a field here; docs/projects.md lists them",
        "9:5: projects.bank.budget: reserve must not be more than total",
        "11:15: projects.taxi.senders[0]: is a name of 21 characters",
        "11:38: projects.taxi.senders[1]: is no sender",
        "12:5: projects.taxi.sms_per_day: must be a whole number",
        "13:14: projects.taxi.budget.total: must be a whole number",
        "14:3: projects.post: must be an object",
    ]
    for begin in begins:
        assert any(line.startswith(f"{path}:{begin}") for line in told), (begin, told)
    assert len(told) == len(begins)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1:1: must be an object"),
        ("projects: {}", ":1:1: projects: "),
        ("shop: {sms_per_day: 3}", ": projects: is missing: the file begins with 'projects:'"),
        ("projects:\n  shop: {sms_per_day: 1}\n  shop: {sms_per_day: 2}\n", ":3:3: "),
        ("projects:\n\tshop: {}\n", ":2:1: "),
        ("projects: [shop]", ":1:1: projects: must be an object"),
        ("projects: {7: {sms_per_day: 1}}", ":1:12: projects.7: must be a text; put it in quotes"),
        ("projects: {a: {trial: {senders: X}}}", ":1:24: projects.a.trial.senders: is not a field here"),
        ("projects: {a: &own {sms_per_day: 1}, b: *other}", ":1:"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ProjectFileError) as caught:
        read(written(tmp_path, text))
    assert said in str(caught.value)


def test_it_is_checked_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKTWICE_PROJECTS_FILE", str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigurationError, match=r"KNOCKTWICE_PROJECTS_FILE: .*none\.yaml: No such file"):
        load()


@pytest.mark.parametrize("written", ["+16505550100", "16505550100", "whatsapp:+16505550100"])
def test_a_sender_belongs_to_the_project_that_alone_has_it(written: str) -> None:
    shop, bank = Project(senders=("+16505550100", "SHOP")), Project(senders=("+16505550101", "shop"))
    projects = Projects({"shop": shop, "bank": bank}, shared=frozenset({None, "+16505550101"}))
    assert projects.owner(written) == "shop"
    assert [projects.owner(one) for one in ("SHOP", "+16505550101", "+16505550109", None)] == [None] * 4
    assert projects.owners == {"16505550100": "shop", "+16505550100": "shop"}
    assert [projects.may_use(one, written) for one in ("shop", "bank", "other", None)] == [True, False, False, True]
    assert projects.may_use("bank", "SHOP")


def test_nothing_of_its_own_is_no_limit() -> None:
    assert not ProjectLimits()
    assert Projects().sender("shop", "sms") is None
