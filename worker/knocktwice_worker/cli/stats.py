"""``knocktwice stats`` and ``knocktwice advise``: what became of notifications, and how long an SMS should wait."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from knocktwice_shared.counted import many
from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.cli.output import AsJson, OfProject, clock, out, print_json, reading, reading_all
from knocktwice_worker.cli.tables import AsCsv, Watch, print_table, watching
from knocktwice_worker.lifecycle import Refusal
from knocktwice_worker.notation import durations
from knocktwice_worker.reporting import delay_curve, figures, rollups
from knocktwice_worker.reporting.figures import Dimension
from knocktwice_worker.services import services
from knocktwice_worker.switches import pauses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from decimal import Decimal

    from knocktwice_worker.reporting.figures import Report
    from knocktwice_worker.reporting.outcome_figures import ChannelLine, Figures

#: The oldest figures that can be asked for.
_LONGEST = timedelta(days=36_500)

#: Heading → what stands below it.
_COLUMNS: dict[str, Callable[[Figures], str]] = {
    "accepted": lambda f: str(f.accepted),
    "pushed": lambda f: str(f.pushed),
    "delivered": lambda f: str(f.delivered),
    "clicked": lambda f: str(f.clicked),
    "fell back": lambda f: _percent(f.fell_back_rate),
    "sms sent": lambda f: str(f.sms_sent),
    "sms delivered": lambda f: str(f.sms_delivered),
    "unreported": lambda f: str(f.sms_unreported),
    "unknown": lambda f: str(f.sms_unknown),
    "wasted": lambda f: str(f.sms_wasted),
    "suppressed": lambda f: str(f.suppressed.total()),
    "replied": lambda f: str(f.replied),
    "reached": lambda f: _percent(f.delivery_rate),
    "responded": lambda f: _percent(f.response_rate),
    "cost": lambda f: _money(f.cost),
    "per reached": lambda f: _money(f.cost_per_delivered),
    "sms only": lambda f: _money(f.sms_only_cost),
    "per reached by sms only": lambda f: _money(f.sms_only_cost_per_delivered),
}
#: The same of a channel beside the others.
_OF_EACH: dict[str, Callable[[ChannelLine], str]] = {
    "sent": lambda c: str(c.sent),
    "share": lambda c: _percent(c.share),
    "delivered": lambda c: str(c.delivered),
    "rate": lambda c: _percent(c.delivery_rate),
    "unreported": lambda c: str(c.unreported),
    "cost": lambda c: _money(c.cost),
}


def _of_channel(name: str) -> dict[str, Callable[[Figures], str]]:
    """Return the columns of a channel that is not SMS."""
    return {
        "sent": lambda f: str(f.channels[name].sent),
        "delivered": lambda f: str(f.channels[name].delivered),
        "read": lambda f: str(f.channels[name].read),
        "unknown": lambda f: str(f.channels[name].unknown),
        "cost": lambda f: _money(f.channels[name].cost),
        "sms cost": lambda f: _money(f.sms_cost),
    }


def stats(
    by: Annotated[Dimension, typer.Option(help="What to tell apart.")] = Dimension.TEMPLATE,
    since: Annotated[str, typer.Option(help="First day, like 2026-11-01, or how long ago, like 7d.")] = "30d",
    template: Annotated[str | None, typer.Option(help="Only notifications with this template.")] = None,
    project: OfProject = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Count first what has changed in this minute.")] = False,
    channels: Annotated[bool, typer.Option("--channels", help="All channels beside each other.")] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    watch: Watch = False,
) -> None:
    """Show what became of notifications, and what it cost, by template, country, day, blast, category or project.

    \b
    knocktwice stats --by country --since 7d
    knocktwice stats --by day --channels --csv
    """
    shown = _as_json if as_json else _print_channels if channels else _print_figures
    watching(lambda: shown(_asked(by, since, template, project, fresh=fresh), as_csv=as_csv), on=watch)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The report that was asked for, with what stands around it.

    Attributes:
        since: the first day.
        zone: whose days these are.
        stopped: the pauses that last.
    """

    told: Report
    since: date
    zone: str
    stopped: Sequence[object]


def _asked(by: Dimension, since: str, template: str | None, project: str | None, *, fresh: bool) -> _Asked:
    here = services()
    zone = here.settings.sms_day_zone
    with reading_all(here) as conns:
        today = datetime.now(here.settings.day_zone).date()
        first = _day(since, today)
        if fresh:
            for one in conns:
                rollups.refresh(one.engine, zone, everything=True)
        # A day more: the database's clock may be ahead of ours.
        until = today + timedelta(days=1)
        told = figures.report(
            *conns,
            by=by,
            since=first,
            until=until,
            template=template,
            project=project,
            prices=here.channels.prices,
        )
        stopped = [one for conn in conns for one in pauses.list_all(conn) if one.ended_at is None]
    return _Asked(told, first, zone, stopped)


def _as_json(asked: _Asked, *, as_csv: bool) -> None:  # noqa: ARG001 - one form for all three
    told = asked.told
    print_json(
        {
            "by": told.by,
            "since": asked.since.isoformat(),
            "zone": asked.zone,
            "as_of": told.as_of,
            "lines": [{str(told.by): name or None, **line.as_json()} for name, line in told.lines.items()],
            "total": told.total.as_json(),
            "silent": told.silent,
        }
    )


def _print_figures(asked: _Asked, *, as_csv: bool) -> None:
    told = asked.told
    print_table(_table(told, told.by.value, _COLUMNS), as_csv=as_csv)
    if as_csv:
        return
    for name, channel in told.total.channels.items():
        if channel.sent or channel.unknown:
            print_table(_table(told, name, _of_channel(name)))
    _print_rest(asked)


def _print_channels(asked: _Asked, *, as_csv: bool) -> None:
    told = asked.told
    # A wide table goes on below with its first column alone, so on the screen that says both.
    table = Table(told.by.value, "channel") if as_csv else Table(f"{told.by.value}, channel")
    for heading in _OF_EACH:
        table.add_column(heading, justify="right")
    lines = dict(told.lines)
    for name, line in [*lines.items(), *([("all", told.total)] if len(lines) != 1 and not as_csv else [])]:
        for channel, own in line.by_channel.items():
            if own.sent or channel not in line.channels:
                about = (name or "—", channel) if as_csv else (f"{name or '—'}, {channel}",)
                table.add_row(*about, *(shown(own) for shown in _OF_EACH.values()))
        table.add_section()
    print_table(table, as_csv=as_csv)
    if not as_csv:
        _print_rest(asked)


def _print_rest(asked: _Asked) -> None:
    told = asked.told
    if told.silent:
        where = ", ".join(f"{country or 'no country'} {n}" for country, n in told.silent.items())
        out.print(f"no operator has reported on any SMS to: {where}", soft_wrap=True)
    for reason, count in told.total.suppressed.most_common():
        spared = f", which saved about {_money(told.total.untextable_saved)}" if reason == Refusal.UNTEXTABLE else ""
        out.print(f"suppressed: {reason} {count}{spared}", soft_wrap=True)
    until = clock(told.as_of) or "never"
    out.print(f"accepted since {asked.since} ({asked.zone}); counted until {until}", soft_wrap=True)
    for one in asked.stopped:
        out.print(f"paused: {escape(str(one))}", soft_wrap=True)


def _table(told: Report, title: str, columns: Mapping[str, Callable[[Figures], str]]) -> Table:
    table = Table(title)
    for heading in columns:
        table.add_column(heading, justify="right")
    for name, line in told.lines.items():
        table.add_row(name or "—", *(shown(line) for shown in columns.values()))
    if len(told.lines) != 1:
        table.add_section()
        table.add_row("all", *(shown(told.total) for shown in columns.values()), style="bold")
    return table


def advise(
    template: Annotated[str, typer.Argument(help="The template's name.")],
    project: OfProject = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show how many SMS each delay would have sent, and suggest one. Exits 1 with too little history.

    Example: knocktwice advise order_ready
    """
    with reading(services()) as conn:
        told = delay_curve.advise(conn, template, project)
    if as_json:
        print_json(told.as_json())
        return
    table = Table("after")
    for heading in ("sms", "of the pushes", "confirmed later", "of the sms"):
        table.add_column(heading, justify="right")
    for point in told.curve:
        table.add_row(
            durations.written(point.after),
            str(point.sms),
            _percent(point.sms / told.pushes),
            str(point.confirmed_later),
            _percent(point.confirmed_later / point.sms if point.sms else None),
            style="bold green" if point.after == told.suggested else None,
        )
    print_table(table, as_csv=as_csv)
    if as_csv:
        return
    what = "delivered" if told.when == "not_delivered" else "clicked"
    out.print(
        f"from the latest {many(told.pushes, 'push', 'pushes')}, {told.confirmed} of them ever {what}", soft_wrap=True
    )
    if told.suggested:
        share = f"{delay_curve.PATIENCE:.0%}"
        out.print(
            f"suggested: {durations.written(told.suggested)}; by then {share} of those who confirm at all had done so",
            soft_wrap=True,
        )
    else:
        out.print("no delay here waits for most of those who confirm", soft_wrap=True)
    out.print(
        f"longer than {durations.written(told.horizon)} cannot be judged: these pushes could be confirmed no longer",
        soft_wrap=True,
    )


def _day(since: str, today: date) -> date:
    try:
        return date.fromisoformat(since)
    except ValueError:
        pass
    try:
        return today - durations.parse(since, _LONGEST)
    except ValueError:
        raise InvalidMessage("since", "must be a day like 2026-11-01 or a time like 7d") from None


def _percent(share: float | None) -> str:
    return "—" if share is None else f"{share:.1%}"


def _money(money: Decimal | None) -> str:
    return "—" if money is None else f"{money:.4f}"
