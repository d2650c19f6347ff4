"""The figures a business asks for, from the roll-ups, by one dimension. ``docs/numbers.md`` defines each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import text

from knocktwice_shared.channels import SMS
from knocktwice_worker.database.schema.figures import COUNTS
from knocktwice_worker.lifecycle import Refusal
from knocktwice_worker.reporting.outcome_figures import ChannelFigures, Figures, plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date, datetime
    from typing import Any

    from sqlalchemy import Connection, Row

#: The country whose price holds where a country has none of its own.
OTHERS = "*"
#: So many SMS without any report make a country a silent one.
SILENT_FROM = 20


class Dimension(StrEnum):
    """The dimensions by which figures can be split."""

    TEMPLATE = "template"
    COUNTRY = "country"
    DAY = "day"
    BLAST = "blast"
    CATEGORY = "category"
    PROJECT = "project"


@dataclass(frozen=True, slots=True)
class Report:
    """Figures by one dimension.

    Attributes:
        lines: value of the dimension → its figures; days in order, others by how many were accepted. The empty value is
            for notifications without one: no template, or a country that nobody knows.
        total: of all lines.
        as_of: what happened later is not counted yet; ``None`` if nothing was ever counted.
        silent: country → SMS sent, where many went and no operator has reported on any.
    """

    by: Dimension
    lines: Mapping[str, Figures]
    total: Figures
    as_of: datetime | None
    silent: Mapping[str, int] = field(default_factory=dict)


_READ = text(f"""
SELECT
  day,
  template,
  blast,
  country,
  category,
  project,
  {", ".join(f"sum({name}) AS {name}" for name in COUNTS)},
  sum(price) AS price,
  sum(reached) AS reached,
  jsonb_agg(channels) FILTER (WHERE channels <> '{{}}') AS channels,
  jsonb_agg(suppressed) FILTER (WHERE suppressed <> '{{}}') AS suppressed
FROM rollups
WHERE day >= :since
  AND day <= :until
  AND (CAST(:template AS text) IS NULL OR template = :template)
  AND (CAST(:project AS text) IS NULL OR project = :project)
GROUP BY day, template, blast, country, category, project
""")

_AS_OF = text("SELECT seen_until FROM followers WHERE name = 'rollups'")


def report(
    *conns: Connection,
    by: Dimension,
    since: date,
    until: date,
    template: str | None = None,
    project: str | None = None,
    prices: Mapping[str, Mapping[str, float]] | None = None,
) -> Report:
    """Return what became of the notifications that were accepted in some days.

    Args:
        conns: the databases whose notifications are counted: one, or those of all cells.
        since, until: first and last day, in the zone whose calendar day counts.
        template: only notifications with this template.
        project: only notifications of this project; empty: only those of none.
        prices: channel → price of one message (of an SMS: of one part) by country code, ``*`` for all others; counts
            where the provider's price is not known.
    """
    lines: dict[str, Figures] = {}
    total = Figures()
    asked = {"since": since, "until": until, "template": template, "project": project}
    rows = [row for conn in conns for row in conn.execute(_READ, asked)]
    counted = [conn.execute(_AS_OF).scalar() for conn in conns]
    silent = _silent(rows)
    for row in rows:
        line = lines.setdefault(str(getattr(row, by)), Figures())
        cost, instead = _sms_costs(row, _price(prices, SMS, row.country))
        spared = _spared(row, _price(prices, SMS, row.country))
        for figures in (line, total):
            for name in (*COUNTS, "reached"):
                setattr(figures, name, getattr(figures, name) + int(getattr(row, name)))
            figures.silent_sms += int(row.sms_sent) if row.country in silent else 0
            for reasons in row.suppressed or ():
                figures.suppressed.update(reasons)
            figures.sms_cost = plus(figures.sms_cost, cost)
            for counts in row.channels or ():
                for name, own in counts.items():
                    figures.channels.setdefault(name, ChannelFigures()).add(own, _price(prices, name, row.country))
            figures.sms_only_cost = plus(figures.sms_only_cost, instead)
            figures.untextable_saved = plus(figures.untextable_saved, spared)
    as_of = None if None in counted else min(at for at in counted if at is not None)
    return Report(by, _ordered(lines, by), total, as_of, silent)


def _silent(rows: Iterable[Row[Any]]) -> dict[str, int]:
    sent, heard = Counter[str](), Counter[str]()
    for row in rows:
        sent[row.country] += int(row.sms_sent)
        heard[row.country] += int(row.sms_delivered) + int(row.sms_undelivered)
    return {country: n for country, n in sorted(sent.items()) if n >= SILENT_FROM and not heard[country]}


def _price(prices: Mapping[str, Mapping[str, float]] | None, channel: str, country: str) -> Decimal | None:
    own = (prices or {}).get(channel, {})
    price = own.get(country, own.get(OTHERS))
    return None if price is None else Decimal(str(price))


def _sms_costs(row: Row[Any], price: Decimal | None) -> tuple[Decimal | None, Decimal | None]:
    """Return what was spent on the SMS of a line, and what it would have cost to text everybody at once.

    The texts of those who were not texted were never made. They are taken to be as long as those that were, or one
    part.
    """
    if row.unpriced_parts and price is None:
        return None, None
    cost = row.price + int(row.unpriced_parts) * (price or Decimal())
    if row.sms_sent:
        return cost, cost / int(row.sms_sent) * int(row.accepted)
    return cost, None if price is None else price * int(row.accepted)


def _spared(row: Row[Any], price: Decimal | None) -> Decimal | None:
    """Return what the SMS of a line would have cost that nobody could have got. They count as one part each."""
    passed_over = sum(int(reasons.get(Refusal.UNTEXTABLE, 0)) for reasons in row.suppressed or ())
    if not passed_over:
        return Decimal()
    return None if price is None else price * passed_over


def _ordered(lines: Mapping[str, Figures], by: Dimension) -> dict[str, Figures]:
    def place(item: tuple[str, Figures]) -> tuple[int, str]:
        return (0 if by is Dimension.DAY else -item[1].accepted, item[0])

    return dict(sorted(lines.items(), key=place))
