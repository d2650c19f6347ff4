"""Pages that are a list, with the actions of each row: what is said and to whom, what providers and apps answer, and
what needs somebody.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from knocktwice_worker.audience import receipt_health, segments
from knocktwice_worker.audience.segment_filter import dump
from knocktwice_worker.config import UnconfirmedPolicy
from knocktwice_worker.content import template_store
from knocktwice_worker.counters import totals
from knocktwice_worker.evidence import holdout as evidence
from knocktwice_worker.evidence import trials
from knocktwice_worker.notation.masking import mask_or_erased
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.notifications.store import unknown
from knocktwice_worker.reporting import delay_curve, figures
from knocktwice_worker.reporting.outcome_figures import Figures
from knocktwice_worker.webhooks import endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from knocktwice_worker.services import Services

#: The days whose figures a page shows.
_DAYS = 7
#: How far back the comparison of the holdout goes, and how long people had to answer.
_HOLDOUT, _WITHIN = timedelta(days=30), timedelta(days=1)
_HOUR = timedelta(hours=1)
#: About how many draws are compared.
_MOST_DRAWS = 10_000
#: How far back it is counted what watched rules would have stopped.
_WATCHED = timedelta(days=1)
#: Minutes of the providers' answers.
_MINUTES = 10
#: The most rows of a page.
_MOST = 100


@dataclass(frozen=True, slots=True)
class Action:
    """A button beside a row.

    Attributes:
        verb: what it does, as ``steering`` knows it.
        label: the same for people.
        ask: what is asked before, if it costs money or cannot be undone.
    """

    verb: str
    label: str
    ask: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a list.

    Attributes:
        cells: one for each column.
        id: what an action is about.
        link: a word to search for, behind the first cell.
        page: the name of a template whose own page is behind the first cell.
        actions: what can be done about it.
    """

    cells: Sequence[str]
    id: str = ""
    link: str | None = None
    page: str | None = None
    actions: Sequence[Action] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """The content of a page.

    Attributes:
        title: its heading.
        columns: the headings of the columns.
        rows: the lines.
        empty: what it says without lines.
        notes: what is said below.
        bars: columns whose cell is also drawn, from 0 to 1 of the width: column → share of each line.
        next: where the next page begins; ``None``: this is the last one.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    empty: str
    notes: Sequence[str] = ()
    bars: Mapping[int, Sequence[float]] = field(default_factory=dict)
    next: int | None = None

    @property
    def acts(self) -> bool:
        """Whether any line has an action."""
        return any(row.actions for row in self.rows)


def content(conn: Connection, here: Services) -> Listing:
    """Return the templates, with what became of what was said with them."""
    today = datetime.now(UTC).astimezone(here.settings.day_zone).date()
    since = today - timedelta(days=_DAYS - 1)
    told = figures.report(conn, by=figures.Dimension.TEMPLATE, since=since, until=today, prices=here.channels.prices)
    rows = []
    for one in template_store.names(conn)[:_MOST]:
        own = told.lines.get(one.name, Figures())
        cells = [one.name, ", ".join(one.locales), f"{one.version} of {_day(one.updated_at)}", _many(own.accepted)]
        cells += [_percent(own.fell_back_rate), _percent(own.response_rate), _money(own.cost)]
        rows.append(Row(cells, page=one.name))
    columns = ("Template", "Languages", "Version", f"Accepted in {_DAYS} days", "Fell back", "Answered", "Cost")
    notes = [
        "Answered: of those who were reached, clicked, replied, or saw it elsewhere.",
        "A template's own page shows its delay curve. Templates are changed by knocktwice apply.",
    ]
    return Listing("Content", columns, rows, "No template is stored: knocktwice apply stores them.", notes)


def template(conn: Connection, name: str) -> Listing:
    """Return the delay curve of a template."""
    title, columns = f"How long {name} should wait", ("Delay", "SMS", "Answered later")
    try:
        found = delay_curve.advise(conn, name)
    except delay_curve.TooLittleHistory as error:
        return Listing(title, columns, [], str(error))
    best = found.suggested
    rows = [
        Row([_span(p.after) + (" (suggested)" if p.after == best else ""), _many(p.sms), _many(p.confirmed_later)])
        for p in found.curve
    ]
    most = max((p.sms for p in found.curve), default=0) or 1
    answered = f"Of the latest {_many(found.pushes)} pushes {_many(found.confirmed)} were answered"
    notes = [
        f"{answered} ({found.when}). Delays of more than {_span(found.horizon)} cannot be judged.",
        "SMS: how many would have gone out. Answered later: how many of these nobody would have needed.",
        "Others would have been decided otherwise: knocktwice whatif counts them.",
    ]
    return Listing(title, columns, rows, "", notes, {1: [p.sms / most for p in found.curve]})


def saved_segments(conn: Connection, _: Services) -> Listing:
    """Return the saved groups of people."""
    rows = [
        Row([one.name, one.description or "-", json.dumps(dump(one.filter), ensure_ascii=False), _day(one.updated_at)])
        for one in segments.list_all(conn)[:_MOST]
    ]
    note = "knocktwice segment show NAME --count says how many people are in one."
    return Listing("Segments", ("Segment", "What it is", "Filter", "Changed"), rows, "No segment is saved.", [note])


def receipts(conn: Connection, here: Services) -> Listing:
    """Return which kinds of devices report their pushes."""
    kinds = receipt_health.examine(conn, here.settings)[:_MOST]
    rows = [
        Row(
            [
                f"{one.platform} {one.app_version}".strip(),
                _many(one.pushes),
                _many(one.delivered),
                _percent(one.share),
                "never reports" if one.silent else "",
            ]
        )
        for one in kinds
    ]
    named = here.settings.unconfirmed_policy
    policy = f"Where the SMS waits for a delivery, {_POLICIES[named]} (KNOCKTWICE_UNCONFIRMED_POLICY={named})."
    columns = ("Device", "Pushes in 7 days", "Reported as delivered", "Ever confirmed", "")
    return Listing("Receipts", columns, rows, "No push has been counted yet.", [policy], {3: [k.share for k in kinds]})


def providers(_: Connection, here: Services) -> Listing:
    """Return what the providers answered in the last minutes."""
    title, columns = "Providers", ("Provider", "Answer", "Code", "Messages")
    try:
        answers, troubles = totals.answers(here.redis, _MINUTES), here.troubles.current()
    except RedisError:
        return Listing(title, columns, [], "Redis, which counts the answers, does not answer.")
    ordered = sorted(answers.items(), key=lambda one: (one[0][0], -one[1]))
    rows = [Row([provider, outcome, code, _many(int(n))]) for (provider, outcome, code), n in ordered[:_MOST]]
    notes = [f"{one.provider} is in trouble: {one.reason}" for one in troubles]
    return Listing(title, columns, rows, f"No provider was asked in the last {_MINUTES} minutes.", notes)


def hooks(conn: Connection, _: Services) -> Listing:
    """Return who is told by webhooks."""
    rows = []
    for one in endpoints.list_all(conn):
        state = "fine"
        if one.disabled_at is not None:
            state = f"disabled: {one.disabled_reason}"
        elif one.failing_since is not None:
            state = f"failing since {_moment(one.failing_since)}: {one.last_error}"
        again = [Action("enable", "Send again")] if one.disabled_at is not None else []
        rows.append(Row([one.url, ", ".join(one.events) or "all", state, _many(one.waiting)], id=one.id, actions=again))
    return Listing("Webhooks", ("Address", "Events", "State", "Wait"), rows, "No endpoint is set.")


def parked(conn: Connection, _: Services, wanted: dead_letters.Wanted = dead_letters.EVERY, after: int = 0) -> Listing:
    """Return a page of the messages that nobody could process, the oldest first.

    Args:
        wanted: only these.
        after: only those with a larger number.
    """
    found = dead_letters.page(conn, wanted, after=after, limit=_MOST + 1)
    actions = [Action("replay", "Try again"), Action("drop", "Forget", "It is gone for good.")]
    rows = [
        Row([str(one.id), _moment(one.at), one.task or "-", one.why], id=str(one.id), actions=actions)
        for one in found[:_MOST]
    ]
    note = "knocktwice dead show says what a message holds. What is done already is not done twice."
    columns = ("Number", "Parked", "Task", "Why")
    empty = (
        "None: every message could be processed." if (wanted, after) == (dead_letters.EVERY, 0) else "No such message."
    )
    more = found[_MOST - 1].id if len(found) > _MOST else None
    return Listing("Parked messages", columns, rows, empty, [note], next=more)


def unknown_steps(conn: Connection, here: Services) -> Listing:
    """Return the messages that may or may not have gone out."""
    rows = []
    for one in unknown.page(conn, unknown.Wanted(), unknown.START)[:_MOST]:
        actions = [Action("close", "Take as settled")]
        if one.last and one.number is not None:
            listable = here.channels.provider(one.channel, one.provider).listable
            ask = None if listable else "The provider has no list, so the person may get it twice."
            actions.insert(0, Action("send", "Look, and send" if listable else "Send again", ask))
        who = mask_or_erased(one.number)
        cells = [one.notification_id, _moment(one.ended_at), f"{one.channel} by {one.provider}", who]
        about = f"{one.notification_id}/{one.step}"
        rows.append(Row([*cells, one.reason or "-"], id=about, link=one.notification_id, actions=actions))
    note = f"The oldest first, {_MOST} at most. knocktwice unknown takes many at once."
    columns = ("Notification", "Given up", "By", "Number", "Why")
    return Listing("Unknown outcome", columns, rows, "None: every outcome is known.", [note])


def worth(conn: Connection, here: Services) -> Listing:
    """Return what the SMS are worth, as the holdout says."""
    since = evidence.reach(conn, _HOLDOUT, _WITHIN, _MOST_DRAWS)
    found = evidence.compare(conn, since, _WITHIN)
    rows = [
        Row(
            [
                arm.replace("_", " "),
                _many(own.notifications),
                _many(own.answered),
                _percent(own.share),
                _many(own.parts),
            ]
        )
        for arm, own in found.groups.items()
        if own.notifications
    ]
    set_ = here.settings
    notes = [
        f"Held out now: {_percent(set_.holdout_share)} of the due fallbacks; waiting longer: {_percent(set_.probe_share)}."
    ]
    if found.uplift is not None:
        points = [f"{100 * n:.1f}" for n in (found.uplift.value, found.uplift.low, found.uplift.high)]
        notes.insert(0, f"With the SMS {points[0]} more of 100 answer ({points[1]} to {points[2]} with 95 %).")
    if since < _HOLDOUT:
        notes.append(
            f"The latest {_many(_MOST_DRAWS)} decisions, of {_span(max(since // _HOUR, 1) * _HOUR)}; knocktwice holdout compares more of them."
        )
    columns = ("Group", "Notifications", "Answered within a day", "Share", "SMS parts")
    empty = "Nothing is held out: KNOCKTWICE_HOLDOUT_SHARE does it."
    if set_.holdout_share or set_.probe_share:
        empty = "Nothing can be said yet: nobody has had a day to answer."
    return Listing("What the SMS are worth", columns, rows, empty, notes)


def limits(conn: Connection, here: Services) -> Listing:
    """Return the rules that stop messages, and what those that are only watched would have stopped."""
    found = trials.report(conn, here.settings, here.projects, _WATCHED)
    rows = [
        Row([one.word, one.setting, one.in_force, one.tried or "-", _many(one.would_have_stopped)])
        for one in found.lines
    ]
    notes = [
        f"{_many(found.messages)} messages of the last 24 hours went that watched rules would have stopped.",
        "KNOCKTWICE_TRIAL tries stricter rules beside those in force; consent, opt-outs and answers are always enforced.",
    ]
    columns = ("Rule", "Setting", "In force", "Tried", "Would have stopped in 24\u00a0h")
    return Listing("Limits", columns, rows, "There are no rules.", notes)


#: What happens to people whose kind of device never reports.
_POLICIES = {
    UnconfirmedPolicy.TEXT: "people with a kind that never reports are texted like all others",
    UnconfirmedPolicy.ACCEPT: "pushes to a kind that never reports count as delivered",
    UnconfirmedPolicy.NOT_CLICKED: "people with a kind that never reports are texted unless they click",
}

#: The pages by the name in their address, with the words of the menu.
PAGES: Mapping[str, tuple[str, Callable[[Connection, Services], Listing]]] = {
    "content": ("Content", content),
    "segments": ("Segments", saved_segments),
    "receipts": ("Receipts", receipts),
    "providers": ("Providers", providers),
    "webhooks": ("Webhooks", hooks),
    "parked": ("Parked", parked),
    "unknown": ("Unknown", unknown_steps),
    "worth": ("Worth", worth),
    "limits": ("Limits", limits),
}


def _many(count: int) -> str:
    return f"{count:,}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _money(amount: object) -> str:
    return "-" if amount is None else f"{amount:,.2f}"


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d}"


def _moment(at: datetime) -> str:
    return f"{at:%m-%d %H:%M:%S}"


def _span(of: timedelta) -> str:
    seconds = int(of.total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds} s"
