"""``knocktwice stats`` and ``knocktwice advise``: the figures add up, and what cannot be said is not said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import blast_id, uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, Step, When, parse_batch, parse_blast
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.audience.opt_out_words import Wish
from knocktwice_worker.blasts import states
from knocktwice_worker.channels.reports import StatusReport
from knocktwice_worker.content.rendering import fingerprint
from knocktwice_worker.lifecycle import AttemptState, DeliveryState, ProviderState, Refusal
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline import replies
from knocktwice_worker.notifications.store import provider_reports
from knocktwice_worker.reporting import delay_curve, rollups
from knocktwice_worker.services import process
from support.sent_messages import SentMessages, placed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from knocktwice_worker.services import Services
    from support.clock import Clock
    from support.commands import CommandOutput

LEASE, MINUTE, HOUR = timedelta(minutes=1), timedelta(minutes=1), timedelta(hours=1)


def send(
    here: Services, people: int, *, template: str | None = "news", ttl: timedelta = HOUR, early: timedelta = timedelta()
) -> list[UUID]:
    """Accept and push notifications that fall back if nobody clicks.

    Args:
        early: how long before now their ids are made.
    """

    def new_id() -> UUID:
        return UUID(int=uuid7().int - (early // timedelta(milliseconds=1) << 80))

    recipients = [
        {"id": str(new_id()), "registrations": [f"phone-{n}"], "phone": f"+1650253{n:04}"} for n in range(people)
    ]
    wire = {
        "v": 1,
        "id": str(new_id()),
        "content": {"push": {"title": "t", "body": "b"}},
        "plan": [{"channel": "sms", "when": "not_clicked", "after_s": 300}],
        "recipients": recipients,
    }
    content = {"template": template, "push": {"title": "t", "body": "b"}, "sms": None} if template else None
    batch = parse_batch(wire)
    with here.engine.begin() as conn:
        work = store.accept(conn, [store.Intake(batch, {}, ttl, content)], lease=LEASE)
        store.record_push(
            conn,
            [store.PushResult(w.notification_id, w.registration, state=AttemptState.SENT) for w in work],
            retry_for=HOUR,
        )
    return [UUID(str(r.id)) for r in batch.recipients]


def receive(here: Services, ids: Sequence[UUID], kind: Receipt) -> None:
    with here.engine.begin() as conn:
        store.settle_receipts(
            conn, store.record_receipts(conn, [ReceiptEvent(id_, kind, datetime.now(UTC), "") for id_ in ids])
        )


def text(here: Services, ids: Sequence[UUID], body: str) -> None:
    wanted = [str(id_) for id_ in ids]
    with here.engine.begin() as conn:
        store.reserve(conn, [store.Reservation(i, "+16502530000", body, fingerprint(body)) for i in wanted], LEASE)
        claimed, _ = store.claim_steps(conn, placed(wanted), LEASE)
        store.record_steps(conn, [store.StepResult(i, DeliveryState.SENT, provider_id=f"SM{i}") for i in claimed])


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKTWICE_SMS_PRICES", '{"US": 0.01, "*": 0.05}')


@pytest.mark.usefixtures("priced")
def test_the_figures_are_what_the_documents_say(
    here: Services, run: Callable[..., CommandOutput], clock: Clock
) -> None:
    first, second, third, fourth = send(here, 4)
    receive(here, [first], Receipt.CLICKED)
    text(here, [second, third], "x" * 161)
    receive(here, [second], Receipt.CLICKED)
    with here.engine.begin() as conn:
        store.skip(conn, [store.Decision(str(fourth), Refusal.CAPPED_DAILY, {})])
    clock.advance(MINUTE)
    said = run("stats", "--json", "--fresh").json
    (line,) = said["lines"]
    assert line["template"] == "news"
    assert line["accepted"] == line["pushed"] == 4
    assert (line["clicked"], line["fell_back"], line["sms_sent"], line["sms_wasted"]) == (2, 3, 2, 1)
    assert line["fell_back_rate"] == 0.75
    assert line["suppressed"] == {"capped_daily": 1}
    # One clicked, two were texted, and one of these clicked, too.
    assert line["delivery_rate"] == 0.75
    assert line["response_rate"] == pytest.approx(2 / 3)
    # Two SMS of two parts, and four of them had everybody been texted.
    assert (line["cost"], line["sms_only_cost"], line["saved"]) == ("0.0400", "0.0800", "0.0400")
    assert line["cost_per_delivered"] == "0.0133"
    assert said["total"] == {name: line[name] for name in said["total"]}


@pytest.mark.usefixtures("priced")
def test_what_the_provider_reports_makes_price_and_arrival_real_and_a_blast_has_its_line(
    here: Services, run: Callable[..., CommandOutput], clock: Clock
) -> None:
    ids = send(here, 3)
    with here.engine.begin() as conn:
        wire = {"v": 1, "key": "tea-47", "filter": {"everyone": True}, "content": {"template": "news"}}
        states.start(conn, parse_blast(wire), {"everyone": True})
        page = """INSERT INTO blast_pages (id, last_id, blast_id, count, sent_at)
          SELECT batch_id, batch_id, :blast, 3, knocktwice_now() FROM notifications LIMIT 1"""
        conn.execute(sa.text(page), {"blast": blast_id("tea-47")})
    text(here, ids, "x")
    clock.advance(MINUTE)
    run("stats", "--json", "--fresh")
    clock.advance(HOUR)
    reports = [(ids[0], ProviderState.DELIVERED, "0.0075"), (ids[1], ProviderState.UNDELIVERED, "0.5")]
    with here.engine.begin() as conn:
        now = datetime.now(UTC)
        provider_reports.accept(
            conn, [StatusReport("twilio", f"SM{id_}", status, now, price=price) for id_, status, price in reports]
        )
        provider_reports.bring(conn)
    clock.advance(MINUTE)
    (line,) = run("stats", "--by", "blast", "--json", "--fresh").json["lines"]
    assert line["blast"] == "tea-47"
    assert (line["sms_sent"], line["sms_delivered"], line["sms_undelivered"], line["reached"]) == (3, 1, 1, 2)
    # A report that an SMS arrived says nothing of the push.
    assert (line["delivered"], line["sms_wasted"]) == (0, 0)
    # Two prices of the provider's, and the table's for the third.
    assert (line["cost"], line["cost_per_delivered"]) == ("0.5175", "0.2588")


HX = "HX" + "0" * 32


def send_by_whatsapp(here: Services, statuses: Sequence[tuple[str | None, str | None]]) -> None:
    """Take people's WhatsApp messages over a push to the provider,
    which reports a status and a price of each, if any.
    """
    post = SentMessages(here)
    ids = post.handed_over(
        Step("whatsapp", When.NOT_DELIVERED, HOUR, content={"content_sid": HX}), people=len(statuses)
    )
    heard = [
        StatusReport("twilio", f"SM{n}", ProviderState(status), datetime.now(UTC), price=price, price_unit="USD")
        for n, (status, price) in enumerate(statuses)
        if status
    ]
    with here.engine.begin() as conn:
        provider_reports.accept(conn, heard)
        provider_reports.bring(conn)
        unknown = "UPDATE deliveries SET state = 'unknown' WHERE notification_id = :id AND step = 1"
        conn.execute(sa.text(unknown), {"id": ids[-1]})


@pytest.mark.usefixtures("priced")
def test_whatsapp_is_counted_and_paid_for(
    here: Services, run: Callable[..., CommandOutput], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses = [("read", None), ("delivered", "0.004"), ("undelivered", None), (None, None), (None, None)]
    send_by_whatsapp(here, statuses)
    clock.advance(MINUTE)
    (line,) = run("stats", "--json", "--fresh").json["lines"]
    names = ("whatsapp_sent", "whatsapp_delivered", "whatsapp_read", "whatsapp_unknown", "unpriced_whatsapp")
    assert [line[name] for name in names] == [4, 2, 1, 1, 2]
    assert (line["sms_cost"], line["whatsapp_cost"], line["cost"], line["saved"]) == ("0.0000", None, None, None)
    monkeypatch.setenv("KNOCKTWICE_WHATSAPP_PRICES", '{"US": 0.02}')
    process._services.clear()
    shown = run("stats")
    (line,) = run("stats", "--json").json["lines"]
    # Two by the table, one as reported; nobody pays for what did not arrive. Five SMS would have cost a cent each.
    assert (line["whatsapp_cost"], line["cost"]) == ("0.0440", "0.0440")
    assert (line["sms_only_cost"], line["saved"], line["reached"]) == ("0.0500", "0.0060", 2)
    (row,) = [words for words in map(str.split, shown.out.splitlines()) if "0.0440" in words and "4" in words[:4]]
    assert [word for word in row if word != "│"][1:] == ["4", "2", "1", "1", "0.0440", "0.0000"]


def heard(here: Services, ids: Sequence[UUID], status: ProviderState) -> None:
    with here.engine.begin() as conn:
        now = datetime.now(UTC)
        provider_reports.accept(conn, [StatusReport("twilio", f"SM{id_}", status, now) for id_ in ids])
        provider_reports.bring(conn)


def write_back(here: Services, *wishes: Wish | None) -> None:
    said = [InboundText(f"IN{uuid7()}", "+16502530000", wish, "On my way", channel="sms") for wish in wishes]
    with here.engine.begin() as conn:
        replies.receive(conn, said, b"secret", here.channels, here.settings.reply_within)


def test_a_reply_is_a_response_to_the_last_message_before_it(
    here: Services, run: Callable[..., CommandOutput], clock: Clock
) -> None:
    first, last = send(here, 1), send(here, 1, template="order")
    text(here, first, "x")
    clock.advance(MINUTE)
    text(here, last, "y")
    clock.advance(MINUTE)
    run("stats", "--json", "--fresh")
    write_back(here, None, None, Wish.STOP)
    clock.advance(MINUTE)
    lines = {line["template"]: line for line in run("stats", "--json", "--fresh").json["lines"]}
    assert [(lines[name]["replied"], lines[name]["responded"]) for name in ("news", "order")] == [(0, 0), (1, 1)]
    assert (lines["order"]["clicked"], lines["order"]["response_rate"]) == (0, 1.0)


def test_a_text_that_comes_days_later_or_is_a_command_is_no_reply(
    here: Services, run: Callable[..., CommandOutput], clock: Clock
) -> None:
    text(here, send(here, 1), "x")
    clock.advance(MINUTE)
    write_back(here, Wish.HELP)
    clock.advance(timedelta(days=3))
    write_back(here, None)
    clock.advance(MINUTE)
    assert run("stats", "--json", "--fresh").json["total"]["replied"] == 0


@pytest.mark.usefixtures("priced")
def test_channels_stand_beside_each_other_and_silent_operators_apart(
    here: Services, run: Callable[..., CommandOutput], clock: Clock
) -> None:
    ids = send(here, 22)
    text(here, ids[:20], "x")
    clock.advance(MINUTE)
    said = run("stats", "--json", "--fresh").json
    # Nobody has said whether they arrived: no rate is made of that, and the country is named.
    assert said["silent"] == {"US": 20}
    assert (said["total"]["sms_unreported"], said["total"]["silent_sms"]) == (20, 20)
    assert said["total"]["by_channel"]["sms"]["delivery_rate"] is None
    assert "no operator has reported on any SMS to: US 20" in run("stats").out
    heard(here, ids[:3], ProviderState.DELIVERED)
    heard(here, ids[3:4], ProviderState.UNDELIVERED)
    receive(here, ids[20:21], Receipt.DELIVERED)
    clock.advance(MINUTE)
    said = run("stats", "--json", "--fresh").json
    assert said["silent"] == {}
    assert said["total"]["by_channel"]["sms"] == {
        "sent": 20,
        "share": pytest.approx(20 / 42),
        "delivered": 3,
        "delivery_rate": 0.75,
        "unreported": 16,
        "cost": "0.2000",
    }
    assert said["total"]["by_channel"]["push"]["delivery_rate"] == pytest.approx(1 / 22)
    # 22 people at a cent each, and one text of twenty gets lost.
    assert said["total"]["sms_only_cost_per_delivered"] == "0.0105"
    shown = run("stats", "--channels", "--csv").out.splitlines()
    assert shown[0] == "template,channel,sent,share,delivered,rate,unreported,cost"
    assert shown[1:] == ["news,push,22,52.4%,1,4.5%,21,0.0000", "news,sms,20,47.6%,3,75.0%,16,0.2000"]
    (row,) = [line for line in run("stats", "--channels").out.splitlines() if "news, sms" in line]
    assert [cell.strip() for cell in row.split("│")[2:5]] == ["20", "47.6%", "3"]


def test_where_there_was_no_whatsapp_it_has_no_table(
    here: Services, run: Callable[..., CommandOutput], clock: Clock
) -> None:
    send(here, 1)
    clock.advance(MINUTE)
    assert "whatsapp" not in run("stats", "--fresh").out


def test_without_a_price_nothing_is_said_about_money(
    here: Services, run: Callable[..., CommandOutput], clock: Clock
) -> None:
    text(here, send(here, 1), "x")
    clock.advance(MINUTE)
    (line,) = run("stats", "--json", "--fresh").json["lines"]
    assert line["cost"] is line["cost_per_delivered"] is line["sms_only_cost"] is line["saved"] is None


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("template", {"news": 3, None: 1}),
        ("country", {"US": 4}),
        ("category", {"transactional": 4}),
        ("blast", {None: 4}),
    ],
)
def test_figures_are_told_apart(
    here: Services, run: Callable[..., CommandOutput], clock: Clock, by: str, expected: dict[str | None, int]
) -> None:
    send(here, 3)
    send(here, 1, template=None)
    clock.advance(MINUTE)
    lines = run("stats", "--by", by, "--json", "--fresh").json["lines"]
    assert {line[by]: line["accepted"] for line in lines} == expected


def test_days_are_in_order_and_since_leaves_older_ones_out(
    here: Services, run: Callable[..., CommandOutput], clock: Clock
) -> None:
    with here.engine.connect() as conn:
        today: datetime = conn.execute(sa.text("SELECT now()")).scalar_one()
    for ago in (3, 1):
        clock.set(today - timedelta(days=ago))
        send(here, ago)
    clock.set(today)
    shown = run("stats", "--by", "day", "--fresh").out
    days = [(today - timedelta(days=ago)).date().isoformat() for ago in (3, 1)]
    assert shown.index(f"│ {days[0]}") < shown.index(f"│ {days[1]}") < shown.index("│ all")
    assert days[0] not in run("stats", "--by", "day", "--since", "2d").out
    assert [line["day"] for line in run("stats", "--by", "day", "--since", days[1], "--json").json["lines"]] == days[1:]


@pytest.mark.parametrize("since", ["yesterday", "2026-13-01", "7"])
def test_a_wrong_since_is_named(run: Callable[..., CommandOutput], since: str) -> None:
    done = run("stats", "--since", since)
    assert (done.code, done.out) == (1, "")
    assert "since: must be a day like 2026-11-01 or a time like 7d" in done.err


def test_advice_counts_what_each_delay_would_have_sent(
    here: Services, run: Callable[..., CommandOutput], clock: Clock
) -> None:
    ids = send(here, 300)
    clock.advance(timedelta(seconds=45))
    receive(here, ids[:200], Receipt.CLICKED)
    # Delivered is not what this template waits for.
    receive(here, ids[200:], Receipt.DELIVERED)
    clock.advance(timedelta(seconds=400))
    receive(here, ids[200:240], Receipt.CLICKED)
    clock.advance(timedelta(hours=2))
    rollups.refresh(here.engine, "UTC", everything=True)
    told = run("advise", "news", "--json").json
    assert (told["when"], told["pushes"], told["confirmed"]) == ("not_clicked", 300, 240)
    curve = {point["after_s"]: (point["sms"], point["confirmed_later"]) for point in told["curve"]}
    assert curve[30] == (300, 240)
    assert curve[60] == curve[300] == (100, 40)
    assert curve[600] == (60, 0)
    assert told["suggested_s"] == 600
    # The pushes lived for an hour: nobody knows what a longer delay would have brought.
    assert max(curve) == 3600
    assert "suggested: 10m" in run("advise", "news").out
    assert "0 pushes" in run("advise", "news", "--project", "shop").err
    for command in (("advise", "news"), ("stats",), ("history",), ("blast", "list"), ("inbound", "list")):
        assert "must be 1 to 40" in " ".join(run(*command, "--project", "Shop!").err.replace("│", " ").split())


_PAGE_OF_A_BLAST = """
WITH blast AS (
  INSERT INTO blasts (id, key, segment, filter, message, state, total, started_at, expanded_at, finished_at)
  VALUES (gen_random_uuid(), 'sale-1', 'all', '{"everyone": true}', '{}', 'finished', 200, now(), now(), now()) RETURNING id
)
INSERT INTO blast_pages (id, last_id, blast_id, count, sent_at)
SELECT b.id, b.id, blast.id, 200, knocktwice_now() FROM batches b, blast WHERE b.content ->> 'template' = 'sale'
"""


def test_advice_needs_no_index_by_time_unless_the_clocks_of_producers_are_wrong(
    here: Services, run: Callable[..., CommandOutput], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = {"news": timedelta(), "sale": timedelta(hours=6), "odd": timedelta(days=-2)}
    for template, by in early.items():
        receive(here, send(here, 200, template=template, early=by)[:100], Receipt.CLICKED)
    with here.engine.begin() as conn:
        # The pages of a blast with a throttle are made long before they are sent.
        conn.execute(sa.text(_PAGE_OF_A_BLAST))
    clock.advance(timedelta(hours=2))
    rollups.refresh(here.engine, "UTC", everything=True)
    with monkeypatch.context() as patched:
        patched.setattr(delay_curve, "_PUSHES_BY_TIME", sa.text("SELECT 1 / 0"))
        for template in ("news", "sale"):
            told = run("advise", template, "--json").json
            assert (told["pushes"], told["confirmed"]) == (200, 100), template
    assert run("advise", "odd", "--json").json["pushes"] == 200


def test_advice_is_refused_with_too_little_history(
    here: Services, run: Callable[..., CommandOutput], clock: Clock
) -> None:
    ids = send(here, delay_curve.FEWEST_PUSHES)
    receive(here, ids[: delay_curve.FEWEST_CONFIRMED - 1], Receipt.CLICKED)
    clock.advance(timedelta(hours=2))
    rollups.refresh(here.engine, "UTC", everything=True)
    refused = run("advise", "news")
    assert refused.code == 1
    assert "200 pushes older than an hour, 49 of them confirmed; at least 200 and 50 are needed" in refused.err
    assert "0 pushes" in run("advise", "nobody-used-this").err
