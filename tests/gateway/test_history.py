"""The history: filters, pages, and no page that looks at everything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from knocktwice_shared.ids import created_at
from knocktwice_worker.reporting import history

if TYPE_CHECKING:
    import pytest

    from knocktwice_worker.services import Services
    from support.http_gateway import HttpGateway

_FILL = """
INSERT INTO batches (id, content, category, ttl, reference)
SELECT uuidv7(), CASE n WHEN 1 THEN '{"template": "ready"}' ELSE '{}' END::jsonb, 'transactional', '1 day', '{}'
FROM generate_series(1, 2) n;
INSERT INTO notifications (id, batch_id, user_id, params, key, state, reason, finished_at)
SELECT uuidv7(make_interval(secs => n - 100)), b.id, 'u-' || n % 2, '{}', 'k-' || n,
       CASE n % 5 WHEN 0 THEN 'texted' ELSE 'active' END, CASE n % 5 WHEN 0 THEN 'sent' END,
       CASE n % 5 WHEN 0 THEN now() END
FROM generate_series(1, 50) n
JOIN LATERAL (SELECT id FROM batches ORDER BY (content ? 'template') = (n <= 10) DESC LIMIT 1) b ON true
"""


def _fill(here: Services) -> None:
    with here.engine.begin() as conn:
        conn.execute(sa.text(_FILL))


def test_pages_follow_each_other_and_miss_nobody(gateway: HttpGateway, here: Services) -> None:
    _fill(here)
    client = gateway.client()
    seen, before = [], None
    while True:
        page = client.get("/v1/messages", params={"limit": 7} | ({"before": before} if before else {})).json()
        seen += [message["key"] for message in page["messages"]]
        before = page["next"]
        if before is None:
            break
    assert seen == [f"k-{n}" for n in range(50, 0, -1)]


def test_filters_go_together(gateway: HttpGateway, here: Services) -> None:
    _fill(here)
    client = gateway.client()

    def found(**parameters: str) -> list[str]:
        page = client.get("/v1/messages", params=parameters).json()
        return [message["key"] for message in page["messages"]]

    assert found(state="texted", user="u-0") == ["k-50", "k-40", "k-30", "k-20", "k-10"]
    assert found(template="ready", state="texted") == ["k-10", "k-5"]
    assert found(key="k-3") == ["k-3"]
    at = datetime.now(UTC) - timedelta(seconds=75)
    assert len(found(since=at.isoformat())) + len(found(until=at.isoformat())) == 50
    assert client.get("/v1/messages", params={"since": "2026-01-01T00:00:00"}).json()["field"] == "since"


def test_a_page_looks_at_a_bounded_number_of_rows(here: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(here)
    monkeypatch.setattr(history, "SCAN_LIMIT", 20)
    with here.engine.connect() as conn:
        first = history.page(conn, history.Wanted(template="ready", limit=10))
        assert first.messages == []
        assert first.next is not None
        assert created_at(first.next)
        second = history.page(conn, history.Wanted(template="ready", limit=10, before=first.next))
        third = history.page(conn, history.Wanted(template="ready", limit=10, before=second.next))
    assert [len(page.messages) for page in (second, third)] == [0, 10]
    assert third.next is None
