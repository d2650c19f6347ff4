"""The figures a business asks for, from the roll-ups. ``docs/numbers.md`` defines each."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from knocktwice_shared.channels import SMS
from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.database.schema.figures import COUNTS
from knocktwice_worker.lifecycle import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date, datetime

    from sqlalchemy import Connection, Row

#: The country whose price holds where a country has none of its own.
OTHERS = "*"
_PUSH = "push"
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


def others() -> list[str]:
    """Return the channels of later steps beside SMS."""
    return [name for name in CHANNELS if name != SMS]


_RATES = ("fell_back_rate", "delivery_rate", "response_rate", "wasted_rate")
_MONEY = (
    "sms_cost",
    "cost",
    "cost_per_delivered",
    "sms_only_cost",
    "sms_only_cost_per_delivered",
    "saved",
    "untextable_saved",
)


@dataclass(slots=True)
class ChannelFigures:
    """The outcomes of the messages of a channel other than SMS.

    Attributes:
        sent: taken by a provider.
        delivered: and reported as delivered or read.
        read: and reported as read.
        unknown: nobody can tell whether they went out.
        unpriced: sent, and of unknown price.
        cost: what they have cost; ``None`` where a price is missing.
    """

    sent: int = 0
    delivered: int = 0
    read: int = 0
    unknown: int = 0
    unpriced: int = 0
    cost: Decimal | None = Decimal()

    def add(self, counts: Mapping[str, Any], price: Decimal | None) -> None:
        """Add a line of the roll-ups; ``price`` is that of one message whose own is not known."""
        unpriced = int(counts["unpriced"])
        self.sent += int(counts["sent"])
        self.delivered += int(counts["delivered"])
        self.read += int(counts["read"])
        self.unknown += int(counts["unknown"])
        self.unpriced += unpriced
        known = Decimal(str(counts["price"]))
        self.cost = _plus(self.cost, None if unpriced and price is None else known + unpriced * (price or Decimal()))


@dataclass(frozen=True, slots=True)
class ChannelLine:
    """One channel beside the others.

    Attributes:
        sent: messages that a provider took; of the push, people to whom one went.
        share: of the messages of all channels, from 0 to 1.
        delivered: reported as delivered.
        delivery_rate: of SMS, the share of those that were reported at all; of others, of those sent.
        unreported: sent, and reported neither as delivered nor as lost.
        cost: what they have cost; pushes are free.
    """

    sent: int
    share: float | None
    delivered: int
    delivery_rate: float | None
    unreported: int
    cost: Decimal | None


@dataclass(slots=True)
class Figures:
    """The outcomes of the notifications that were accepted on some days.

    Rates are shares from 0 to 1, and ``None`` where there is nothing to divide by. Money is in the currency of the
    price table; ``None`` where a price is missing.
    """

    accepted: int = 0
    duplicates: int = 0
    cancelled: int = 0
    failed: int = 0
    pushed: int = 0
    delivered: int = 0
    clicked: int = 0
    fell_back: int = 0
    alone: int = 0
    sms_sent: int = 0
    sms_delivered: int = 0
    sms_undelivered: int = 0
    sms_unknown: int = 0
    sms_wasted: int = 0
    sms_parts: int = 0
    unpriced_parts: int = 0
    replied: int = 0
    responded: int = 0
    reached: int = 0
    silent_sms: int = 0
    suppressed: Counter[str] = field(default_factory=Counter)
    sms_cost: Decimal | None = Decimal()
    channels: dict[str, ChannelFigures] = field(default_factory=lambda: {name: ChannelFigures() for name in others()})
    sms_only_cost: Decimal | None = Decimal()
    untextable_saved: Decimal | None = Decimal()

    @property
    def fell_back_rate(self) -> float | None:
        """Of those that begin with a step which another one may follow, the share for whom that was due."""
        return _share(self.fell_back, self.accepted - self.alone)

    @property
    def delivery_rate(self) -> float | None:
        """Of those accepted, the share that was reached on some channel."""
        return _share(self.reached, self.accepted)

    @property
    def response_rate(self) -> float | None:
        """Of those reached, the share that clicked, wrote back or saw it elsewhere."""
        return _share(self.responded, self.reached)

    @property
    def sms_unreported(self) -> int:
        """The SMS of which no operator has said whether they arrived."""
        return max(0, self.sms_sent - self.sms_delivered - self.sms_undelivered)

    @property
    def wasted_rate(self) -> float | None:
        """The share of the SMS sent that a later receipt showed to be unnecessary."""
        return _share(self.sms_wasted, self.sms_sent)

    @property
    def cost(self) -> Decimal | None:
        """The cost of all messages; pushes are free."""
        total = self.sms_cost
        for channel in self.channels.values():
            total = _plus(total, channel.cost)
        return total

    @property
    def cost_per_delivered(self) -> Decimal | None:
        """The cost of each person reached."""
        return self.cost / self.reached if self.cost is not None and self.reached else None

    @property
    def sms_only_cost_per_delivered(self) -> Decimal | None:
        """The cost of each person reached, had everybody been texted; as many SMS get lost as did. An estimate."""
        arrived = 1 - self.sms_undelivered / self.sms_sent if self.sms_sent else 1
        if self.sms_only_cost is None or not self.accepted or not arrived:
            return None
        return self.sms_only_cost / self.accepted / Decimal(str(arrived))

    @property
    def by_channel(self) -> dict[str, ChannelLine]:
        """The channels beside each other: the push, the others, and the SMS last."""
        messages = self.pushed + self.sms_sent + sum(own.sent for own in self.channels.values())
        lines: dict[str, tuple[int, int, int, int, Decimal | None]] = {}
        lines[_PUSH] = (self.pushed, self.delivered, self.pushed, self.pushed - self.delivered, Decimal())
        lines |= {
            name: (own.sent, own.delivered, own.sent, own.sent - own.delivered, own.cost)
            for name, own in self.channels.items()
        }
        reported = self.sms_delivered + self.sms_undelivered
        lines[SMS] = (self.sms_sent, self.sms_delivered, reported, self.sms_unreported, self.sms_cost)
        return {
            name: ChannelLine(sent, _share(sent, messages), came, _share(came, of), max(0, silent), cost)
            for name, (sent, came, of, silent, cost) in lines.items()
        }

    @property
    def saved(self) -> Decimal | None:
        """The money saved because not everybody got an SMS; an estimate."""
        return None if self.cost is None or self.sms_only_cost is None else self.sms_only_cost - self.cost

    def as_json(self) -> dict[str, object]:
        """Return all figures by name, money as text."""
        plain: dict[str, object] = {name: getattr(self, name) for name in (*COUNTS, "reached")}
        plain["suppressed"] = dict(sorted(self.suppressed.items()))
        for name in ("sms_unreported", "silent_sms", *_RATES):
            plain[name] = getattr(self, name)
        for name in _MONEY:
            plain[name] = _as_text(getattr(self, name))
        for name, channel in self.channels.items():
            plain |= {f"{name}_{count}": getattr(channel, count) for count in ("sent", "delivered", "read", "unknown")}
            plain |= {f"unpriced_{name}": channel.unpriced, f"{name}_cost": _as_text(channel.cost)}
        plain["by_channel"] = {
            name: asdict(line) | {"cost": _as_text(line.cost)} for name, line in self.by_channel.items()
        }
        return plain


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
            figures.sms_cost = _plus(figures.sms_cost, cost)
            for counts in row.channels or ():
                for name, own in counts.items():
                    figures.channels.setdefault(name, ChannelFigures()).add(own, _price(prices, name, row.country))
            figures.sms_only_cost = _plus(figures.sms_only_cost, instead)
            figures.untextable_saved = _plus(figures.untextable_saved, spared)
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


def _as_text(money: Decimal | None) -> str | None:
    return None if money is None else f"{money:.4f}"


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


def _plus(sum_: Decimal | None, more: Decimal | None) -> Decimal | None:
    return None if sum_ is None or more is None else sum_ + more


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _ordered(lines: Mapping[str, Figures], by: Dimension) -> dict[str, Figures]:
    def place(item: tuple[str, Figures]) -> tuple[int, str]:
        return (0 if by is Dimension.DAY else -item[1].accepted, item[0])

    return dict(sorted(lines.items(), key=place))
