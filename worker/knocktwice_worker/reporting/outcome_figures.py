"""The figures of some notifications: their outcomes, the rates and the money. ``docs/numbers.md`` defines each."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from knocktwice_shared.channels import SMS
from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.database.schema.figures import COUNTS

if TYPE_CHECKING:
    from collections.abc import Mapping

_PUSH = "push"


def other_channels() -> list[str]:
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
        self.cost = plus(self.cost, None if unpriced and price is None else known + unpriced * (price or Decimal()))


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
    channels: dict[str, ChannelFigures] = field(
        default_factory=lambda: {name: ChannelFigures() for name in other_channels()}
    )
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
            total = plus(total, channel.cost)
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


def _as_text(money: Decimal | None) -> str | None:
    return None if money is None else f"{money:.4f}"


def plus(sum_: Decimal | None, more: Decimal | None) -> Decimal | None:
    """Add money; ``None`` where a price is missing."""
    return None if sum_ is None or more is None else sum_ + more


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
