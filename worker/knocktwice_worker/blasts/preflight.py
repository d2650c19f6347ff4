"""Before a blast: how many people it would reach in which way, and the cost of the SMS. Writes and sends nothing.

People are grouped in SQL (``people_groups.py``), and the groups are read one by one; so a million people need as much
memory as a thousand.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from knocktwice_shared.channels import SMS
from knocktwice_shared.errors import KnocktwiceError
from knocktwice_shared.messages import Category
from knocktwice_worker.blasts import people_groups, request
from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.content import personal
from knocktwice_worker.content.links.short_links import example
from knocktwice_worker.database.test_rows import is_test
from knocktwice_worker.limits.quiet_hours import zones_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from sqlalchemy import Select

    from knocktwice_shared.messages import Blast
    from knocktwice_worker.blasts.content import BlastContent
    from knocktwice_worker.channels.opened import Channels
    from knocktwice_worker.config import Settings
    from knocktwice_worker.limits.asks import Limits

#: Price list entry for countries that have none of their own.
DEFAULT = "*"
#: Earlier blasts whose outcomes say what is to be expected.
_EARLIER = 3


class OverBudget(KnocktwiceError):
    """The blast may cost more than allowed: raise the budget, or take fewer people."""


@dataclass(slots=True)
class ChannelPreflight:
    """The messages that would go over a channel other than SMS.

    Attributes:
        expected, worst: messages, or parts where the channel has parts.
        expected_cost, worst_cost: what they come to.
        unpriced: countries that the price list does not name.
    """

    expected: float = 0.0
    worst: int = 0
    expected_cost: float = 0.0
    worst_cost: float = 0.0
    unpriced: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Preflight:
    """The effect of a blast if it started now. Each person counts once in ``push``, ``sms_only`` and ``unreachable``.

    Attributes:
        users: who belong.
        push: who have a device with notifications switched on.
        sms_only: who have none, and can be texted.
        unreachable: who can be sent neither, or nothing in their language.
        no_phone, opted_out, no_consent, country_blocked, untextable, capped: who cannot be texted, by the first reason
            that holds.
        shared_number: who could be, and has the same number as somebody who is: it is texted once.
        quiet: who can be texted, but not at this hour.
        fallback_share: part of those with a push who are expected to be texted, 0 to 1.
        share_from: where that is from.
        expected_parts, expected_cost: of all that follows the push, if that comes true.
        worst_parts, worst_cost: if nobody answers anything.
        unpriced: countries that the price list of SMS does not name.
        channels: what goes over other channels; what it comes to is in the costs above, too.
    """

    users: int = 0
    push: int = 0
    sms_only: int = 0
    unreachable: int = 0
    no_phone: int = 0
    opted_out: int = 0
    no_consent: int = 0
    country_blocked: int = 0
    untextable: int = 0
    capped: int = 0
    shared_number: int = 0
    quiet: int = 0
    fallback_share: float = 1.0
    share_from: str = ""
    expected_parts: int = 0
    expected_cost: float = 0.0
    worst_parts: int = 0
    worst_cost: float = 0.0
    unpriced: set[str] = field(default_factory=set)
    channels: dict[str, ChannelPreflight] = field(
        default_factory=lambda: {name: ChannelPreflight() for name in CHANNELS if name != SMS}
    )

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        plain = asdict(self) | {"unpriced": sorted(self.unpriced)}
        del plain["channels"]
        for name, channel in self.channels.items():
            plain |= {f"expected_{name}": channel.expected, f"worst_{name}": channel.worst}
            plain |= {f"expected_{name}_cost": channel.expected_cost, f"worst_{name}_cost": channel.worst_cost}
            plain[f"unpriced_{name}"] = sorted(channel.unpriced)
        return plain

    @property
    def lacking(self) -> Iterator[tuple[set[str], str]]:
        """The countries without a price, and the setting that has the prices."""
        for name, unpriced in {SMS: self.unpriced, **{n: c.unpriced for n, c in self.channels.items()}}.items():
            if unpriced:
                yield unpriced, CHANNELS[name].prices_setting

    def require(self, *, parts: int | None, cost: float | None) -> None:
        """Compare the worst case with a budget.

        Raises:
            OverBudget: it is more, or cannot be known.
        """
        if parts is not None and self.worst_parts > parts:
            raise OverBudget(f"up to {self.worst_parts} SMS parts; the budget is {parts}")
        if cost is None:
            return
        for unpriced, setting in self.lacking:
            missing = ", ".join(sorted(unpriced))
            raise OverBudget(f"no price for {missing}; add it, or {DEFAULT}, to {setting}")
        if self.worst_cost > cost:
            raise OverBudget(f"messages for up to {self.worst_cost:.2f}; the budget is {cost:.2f}")


@dataclass(frozen=True, slots=True)
class _Texts:
    """The texts of a blast, with their sizes and prices."""

    said: BlastContent
    #: Channel → language → parts, or messages where there are no parts. Without a sender a channel's steps are passed
    #: over.
    sizes: Mapping[str, Mapping[str, int]]
    #: Channel → price of one by country.
    prices: Mapping[str, Mapping[str, float]]


def examine(
    conn: Connection,
    blast: Blast,
    settings: Settings,
    limits: Limits,
    channels: Channels,
    *,
    share: float | None = None,
    only: Select[Any] | None = None,
) -> Preflight:
    """Look at what a blast would do.

    Args:
        limits: of the numbers.
        channels: over which steps go.
        share: part of those with a push who will be texted, 0 to 1; ``None`` asks the latest blasts with this template
            and the same plan of their own, and expects the worst if there were none.
        only: a query for users; others of the segment are not notified.

    Raises:
        InvalidMessage: it could not be started.
    """
    wanted = request.audience(conn, blast)
    said = request.check_content(conn, blast, settings)
    texts = _texts(conn, said, settings, channels)
    found = Preflight()
    found.fallback_share, found.share_from = _share(conn, blast, share)
    now: datetime = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
    _, day, _ = limits.day(now)
    groups = people_groups.alike(wanted, settings, said.category, bool(said.plan), only)
    values = {"since": day, "cap": limits.per_day or 1 << 30, "again": timedelta(days=settings.untextable_days)}
    rows = conn.execute(groups, values, execution_options={"stream_results": True, "yield_per": 1_000})
    expected = 0.0
    for row in rows:
        expected += _count(found, row, texts, settings, now)
    found.expected_parts = round(expected)
    found.expected_cost, found.worst_cost = round(found.expected_cost, 4), round(found.worst_cost, 4)
    for channel in found.channels.values():
        channel.expected_cost, channel.worst_cost = round(channel.expected_cost, 4), round(channel.worst_cost, 4)
        channel.expected = round(channel.expected)
    return found


def _count(found: Preflight, row: Any, texts: _Texts, settings: Settings, now: datetime) -> float:
    """Add a group of people who are alike; return the SMS parts to expect from them."""
    n, said = row.n, texts.said
    found.users += n
    locale = said.choose(row.locale)
    if locale is None:
        found.unreachable += n
        return 0.0
    textable, pushable = bool(said.plan) and row.obstacle == "", row.pushable and said.pushes
    if said.plan and not textable:
        setattr(found, row.obstacle, getattr(found, row.obstacle) + n)
    if pushable:
        found.push += n
    elif textable:
        found.sms_only += n
    else:
        found.unreachable += n
    if not textable:
        return 0.0
    if said.category is Category.MARKETING:
        zones = zones_of(row.number, row.zone, settings.default_zone)
        found.quiet += n if settings.quiet.end_of(now, zones) else 0
    share = found.fallback_share if pushable else 1.0
    country, all_parts = row.region or "", n * texts.sizes[SMS][locale]
    cost = all_parts * _price(texts.prices[SMS], country, all_parts, found.unpriced)
    for name, channel in found.channels.items():
        count = n * texts.sizes[name][locale]
        its_cost = count * _price(texts.prices[name], country, count, channel.unpriced)
        channel.worst += count
        channel.expected += count * share
        channel.worst_cost += its_cost
        channel.expected_cost += its_cost * share
        cost += its_cost
    expected: float = all_parts * share
    found.worst_parts += all_parts
    found.worst_cost += cost
    found.expected_cost += cost * share
    return expected


def _price(prices: Mapping[str, float], country: str, count: int, unpriced: set[str]) -> float:
    """Return the price of one; if something is to be paid and has none, note that."""
    price = prices.get(country, prices.get(DEFAULT))
    if price is None and count:
        unpriced.add(country or "numbers of no country")
    return price or 0.0


def _texts(conn: Connection, said: BlastContent, settings: Settings, channels: Channels) -> _Texts:
    links = example(settings.link_address)
    used = said.person
    person = {} if used is None else used.stand_in(personal.longest(conn, used))
    nothing = dict.fromkeys(said.contents, 0)
    sizes = {
        entry.name: nothing if opened.silent else said.sizes(entry.name, links, person)
        for entry, opened in channels.all()
    }
    return _Texts(said, sizes, channels.prices)


# Only those whose push went out are counted here; people without a device are counted by themselves.
_FELL_BACK = text(f"""
SELECT
  count(*) AS pushed,
  count(*) FILTER (WHERE n.state IN ('texted', 'unknown')) AS texted
FROM (
  SELECT id
  FROM blasts
  WHERE message -> 'content' ->> 'template' = :template
    AND (CAST(:project AS text) IS NULL OR project = :project)
    AND NOT {is_test("project")}
    AND state = 'finished'
    AND coalesce(message -> 'plan', 'null') = CAST(:plan AS jsonb)
  ORDER BY created_at DESC
  LIMIT :earlier
) b
JOIN blast_pages p ON p.blast_id = b.id AND p.sent_at IS NOT NULL
JOIN notifications n ON n.id > p.id AND n.id <= p.last_id AND n.batch_id = p.id AND n.state <> 'active'
JOIN deliveries d ON d.notification_id = n.id AND d.step = 0 AND d.state = 'sent'
""")


def _share(conn: Connection, blast: Blast, share: float | None) -> tuple[float, str]:
    if share is not None:
        return share, "as you said"
    if blast.template is None:
        return 1.0, "the worst case, as there is no template whose earlier blasts could tell"
    plan = blast.message.get("plan")
    wanted = {"template": blast.template, "plan": json.dumps(plan), "project": blast.project, "earlier": _EARLIER}
    seen = conn.execute(_FELL_BACK, wanted).one()
    if seen.pushed:
        which = blast.template + ("" if plan is None else " and these steps")
        return seen.texted / seen.pushed, f"the latest blasts with {which}: {seen.texted} of {seen.pushed}"
    which = "this template" if plan is None else "this template and these steps"
    return 1.0, f"the worst case, as no earlier blast with {which} has finished"
