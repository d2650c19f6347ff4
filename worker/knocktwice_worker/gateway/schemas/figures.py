"""``/v1/stats`` and ``/v1/templates/…/advice``: figures, and the delay curve of a template."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from knocktwice_worker.gateway.schemas.channel_fields import of_channels
from knocktwice_worker.reporting.figures import Dimension

_FIGURES = of_channels(
    channel_sent="count",
    channel_delivered="count",
    channel_read="count",
    channel_unknown="count",
    unpriced_channel="count",
    channel_cost="money",
)


class ChannelAnswer(BaseModel):
    """One channel beside the others."""

    sent: int
    share: float | None = Field(description="Of the messages of all channels.")
    delivered: int
    delivery_rate: float | None = Field(description="Of SMS, the share of those that were reported at all.")
    unreported: int = Field(description="Reported neither as delivered nor as lost.")
    cost: str | None


class FiguresAnswer(BaseModel):
    """The outcomes of notifications. Shares are from 0 to 1, money is text; null: nothing to divide by, or no price."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_FIGURES)

    accepted: int
    duplicates: int
    cancelled: int
    failed: int
    pushed: int
    delivered: int
    clicked: int
    fell_back: int
    alone: int = Field(description="Of `accepted`, single messages that follow nothing, such as an SMS without a push.")
    sms_sent: int
    sms_delivered: int
    sms_undelivered: int
    sms_unknown: int
    sms_wasted: int
    sms_parts: int
    unpriced_parts: int
    replied: int = Field(description="Somebody wrote back within three days of a message.")
    responded: int = Field(description="Clicked, wrote back, or saw it elsewhere.")
    reached: int
    sms_unreported: int = Field(description="SMS of which no operator has said whether they arrived.")
    silent_sms: int = Field(description="Of these, SMS to countries where no operator has reported on any.")
    suppressed: dict[str, int]
    fell_back_rate: float | None
    delivery_rate: float | None
    response_rate: float | None
    wasted_rate: float | None
    sms_cost: str | None
    cost: str | None
    cost_per_delivered: str | None
    sms_only_cost: str | None
    sms_only_cost_per_delivered: str | None
    saved: str | None
    untextable_saved: str | None
    by_channel: dict[str, ChannelAnswer]


class StatsLine(FiguresAnswer):
    """Figures of one value of the dimension, which stands under its own name."""

    template: str | None = None
    country: str | None = None
    day: str | None = None
    blast: str | None = None
    category: str | None = None


class StatsAnswer(BaseModel):
    """Figures by one dimension."""

    by: Dimension
    since: date
    until: date
    zone: str = Field(description="The time zone whose days these are.")
    as_of: datetime | None = Field(description="What happened later is not counted yet.")
    lines: list[StatsLine]
    total: FiguresAnswer
    silent: dict[str, int] = Field(description="Country → SMS sent, where no operator has reported on any of many.")


class DelayPoint(BaseModel):
    """One delay of the curve."""

    after_s: float
    sms: int = Field(description="How many of the pushes an SMS would have followed.")
    confirmed_later: int = Field(description="How many of those were confirmed afterwards: SMS that nobody needed.")


class AdviceAnswer(BaseModel):
    """The delay curve of a template."""

    template: str
    when: Literal["not_delivered", "not_clicked", "not_answered"]
    pushes: int
    confirmed: int
    horizon_s: float = Field(description="Longer delays cannot be judged.")
    suggested_s: float | None
    curve: list[DelayPoint]
