"""An SMS with media, from the decision to the provider: who can send it, what it counts, and what is kept of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import PhoneBound, parse_batch
from knocktwice_worker.audience import people
from knocktwice_worker.content import template_store
from knocktwice_worker.content.templates import check
from knocktwice_worker.evidence import lint
from knocktwice_worker.notifications.pipeline.pauses import PauseGate
from knocktwice_worker.notifications.store.paused import Scope
from knocktwice_worker.reporting import figures, rollups
from knocktwice_worker.reporting.figures import Dimension
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.sandbox.rules import Answer, Rule
from knocktwice_worker.services import Services
from knocktwice_worker.switches import pauses
from knocktwice_worker.switches.audit import By
from support.http_gateway import HttpGateway
from support.sms_provider import TOKEN, SmsProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from knocktwice_worker.sandbox import Sandbox
    from support.clock import Clock

NUMBER = "+16505550100"
PICTURE, OTHER = "https://shop.example/4711.png", "https://shop.example/4712.png"
#: The built-in provider has no account, so all goes by the one of the file.
NOBODY_ELSE = {"twilio_account_sid": None, "twilio_auth_token": None}
TAKES_MEDIA = {"to": "{to}", "from": "{sender}", "text": "{text}", "ref": "{id}", "media_urls": "{media}"}


@pytest.fixture
def install(
    working: Services, acme: SmsProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Services]]:
    """Builds a worker's services with a provider of the file beside the built-in one."""
    monkeypatch.setenv("ACME_TOKEN", TOKEN)
    built: list[Services] = []

    def build(*, twilio: float = 0, settings: dict[str, object] | None = None, **entry: object) -> Services:
        update = {"sms_providers_file": acme.file(tmp_path, twilio=twilio, **entry), **(settings or {})}
        built.append(Services(working.settings.model_copy(update=update)))
        return built[-1]

    yield build
    for one in built:
        one.close()


def _accept(here: Services, *media: str, text: str | None = None, number: str = NUMBER) -> str:
    id_ = str(uuid7())
    step = {"channel": "sms", "text": text or f"Your parcel {id_}", **({"media": list(media)} if media else {})}
    recipients = [{"id": id_, "phone": number}]
    wire: dict[str, Any] = {"v": 1, "id": str(uuid7()), "content": {}, "plan": [step], "recipients": recipients}
    here.pushes.send(parse_batch(wire))
    return id_


def _send(here: Services, *media: str, text: str | None = None, number: str = NUMBER) -> str:
    id_ = _accept(here, *media, text=text, number=number)
    here.later_steps.send(here.fallback.check([id_]))
    return id_


def _row(here: Services, id_: str) -> Any:
    with here.engine.connect() as conn:
        query = sa.text("SELECT * FROM deliveries WHERE notification_id = :id AND step = 1")
        return conn.execute(query, {"id": id_}).one()


def test_the_provider_gets_text_and_addresses_and_the_row_counts_three_parts(
    working: Services, sandbox: Sandbox
) -> None:
    id_ = _send(working, PICTURE, OTHER, text="Your parcel")
    (text,) = sandbox.texts(NUMBER)
    assert (text.body, text.media) == ("Your parcel", (PICTURE, OTHER))
    assert text.sid.startswith("MM")
    assert (_row(working, id_).state, _row(working, id_).parts) == ("sent", 3)
    plain = _send(working, number="+16505550101")
    assert (_row(working, plain).parts, sandbox.texts("+16505550101")[0].media) == (1, ())


def test_one_that_no_provider_priced_costs_what_three_parts_cost(working: Services, clock: Clock) -> None:
    # As short as a text that SQL takes for one part without a look.
    _send(working, "https://a.b", text="Hi")
    _send(working, number="+16505550101")
    clock.advance(timedelta(hours=1))
    rollups.refresh(working.engine, "UTC")
    day = datetime.now(UTC).date()
    with working.engine.connect() as conn:
        found = figures.report(
            conn,
            by=Dimension.DAY,
            since=day - timedelta(days=1),
            until=day + timedelta(days=1),
            prices={"sms": {"*": 0.01}},
        )
    assert (found.total.sms_sent, found.total.sms_parts, found.total.sms_cost) == (2, 4, Decimal("0.04"))


def test_the_sms_of_a_template_alone_takes_its_media_along(working: Services, sandbox: Sandbox) -> None:
    texts = {locale: {"push": {"title": "t", "body": body}} for locale, body in (("en", "Here"), ("de", "Da"))}
    step = {"when": "not_clicked", "after": "5m", "media": {"en": PICTURE, "de": [OTHER]}}
    with working.engine.begin() as conn:
        template_store.put(conn, "t", check("t", {"default_locale": "en", "contents": texts, "fallback": step}))
    id_ = str(uuid7())
    recipients = [{"id": id_, "phone": NUMBER, "locale": "de"}]
    wire = {"v": 1, "id": str(uuid7()), "content": {"template": "t"}, "only": "sms", "recipients": recipients}
    working.pushes.send(parse_batch(wire))
    working.later_steps.send(working.fallback.check([id_]))
    (text,) = sandbox.texts(NUMBER)
    assert (text.body, text.media) == ("Da", (OTHER,))


def test_the_same_text_with_another_picture_is_another_content(working: Services) -> None:
    states = [_row(working, _send(working, *media, text="Look")) for media in ((PICTURE,), (OTHER,), (), (PICTURE,))]
    assert [row.state for row in states] == ["sent", "sent", "sent", "skipped"]
    assert states[3].reason == "duplicate_30s"


def test_who_takes_no_media_is_passed_over(
    install: Callable[..., Services], acme: SmsProvider, sandbox: Sandbox
) -> None:
    here = install()
    assert _row(here, _send(here, PICTURE)).provider == "twilio"
    assert _row(here, _send(here, number="+16505550101")).provider == "acme"
    # Nor does it get one that the other does not take at the moment.
    sandbox.rule(Rule("sms", times=1, answer=Answer(status=401, error_code=20003)))
    id_ = _send(here, OTHER, number="+16505550102")
    assert (_row(here, id_).state, _row(here, id_).provider, acme.asked) == ("reserved", "twilio", 1)


def test_a_pause_of_the_only_one_that_takes_media_holds_them(
    install: Callable[..., Services], acme: SmsProvider, clock: Clock
) -> None:
    here = install()
    with here.engine.begin() as conn:
        pauses.pause(conn, Scope("sms", provider="twilio"), By("ada", "why"))
    here.pauses._last = PauseGate()._last
    id_, plain = _send(here, PICTURE), _send(here, number="+16505550101")
    assert (_row(here, id_).state, _row(here, plain).state, acme.asked) == ("scheduled", "sent", 1)
    with here.engine.begin() as conn:
        pauses.resume(conn, Scope("sms", provider="twilio"), By("ada", "why"))
    here.pauses._last = PauseGate()._last
    clock.advance(timedelta(minutes=2))
    here.later_steps.send(here.fallback.check([id_]))
    assert (_row(here, id_).state, _row(here, id_).provider, acme.asked) == ("sent", "twilio", 1)


def test_a_provider_whose_request_has_a_place_for_media_sends_them(
    install: Callable[..., Services], acme: SmsProvider
) -> None:
    here = install(json=TAKES_MEDIA)
    _send(here, PICTURE, OTHER, text="Your parcel")
    _send(here, number="+16505550101")
    assert [(one["text"][:11], one.get("media_urls")) for one in acme.texts] == [
        ("Your parcel", [PICTURE, OTHER]),
        ("Your parcel", None),
    ]


def test_without_anybody_who_takes_media_the_step_fails_and_says_why(
    install: Callable[..., Services], acme: SmsProvider
) -> None:
    here = install(settings=NOBODY_ELSE)
    id_ = _accept(here, PICTURE)
    # Nothing is reserved, so it counts against no limit.
    assert here.fallback.check([id_]) == []
    with here.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    assert (told.state, acme.asked) == ("failed", 0)
    assert str(_row(here, id_).reason).startswith("invalid_content: none of the providers takes media")


def test_the_doors_and_lint_say_beforehand_that_nobody_takes_media(install: Callable[..., Services]) -> None:
    here = install(settings=NOBODY_ELSE)
    step = {"channel": "sms", "text": "Hi", "media": PICTURE}
    told = "none of the providers takes media"
    with HttpGateway(here) as gateway:
        client = gateway.client()
        body = {"phone": NUMBER, "steps": [step]}
        refused = client.post("/v1/notifications", json=body)
        assert (refused.status_code, refused.json()["field"]) == (422, "steps[0].media")
        assert told in refused.text
        filter_ = {"field": "can_receive_sms", "op": "=", "value": True}
        blast = client.post("/v1/blasts/preflight", json={"key": "k", "filter": filter_, "steps": [step]})
        assert (blast.status_code, blast.json()["field"]) == (422, "steps[0].media")
        del body["steps"]
        assert client.post("/v1/notifications", json=body | {"sms": "Hi"}).status_code == 202
    texts = {"push": {"title": "t", "body": "b"}}
    made = check("t", {"default_locale": "en", "contents": {"en": texts},
                       "fallback": {"when": "not_clicked", "after": "5m", "media": PICTURE}})  # fmt: skip
    (flaw,) = lint.of_template("t", made, here.settings)
    assert (flaw.rule, flaw.where) == (lint.Rule.MEDIA_UNTAKEN, "t.fallback.media")
    able = install(json=TAKES_MEDIA)
    assert list(lint.of_template("t", made, able.settings)) == []
    with here.engine.begin() as conn:
        people.apply(conn, [PhoneBound("ada", NUMBER, datetime.now(UTC))])
    with HttpGateway(able) as gateway:
        wanted = {"key": "k", "filter": filter_, "steps": [{**step, "media": "https://a.example/{{ user.id }}.png"}]}
        told = gateway.client().post("/v1/blasts/preflight", json=wanted).json()
        assert (told["sms_only"], told["worst_parts"]) == (1, 3)


def test_one_that_lost_its_place_for_media_drops_nothing_silently(
    install: Callable[..., Services], acme: SmsProvider
) -> None:
    before = install(json=TAKES_MEDIA, settings=NOBODY_ELSE)
    id_ = _accept(before, PICTURE)
    assert before.fallback.check([id_]) == [id_]
    after = install(settings=NOBODY_ELSE)
    after.later_steps.send([id_])
    assert (_row(after, id_).state, acme.asked) == ("failed", 0)
    assert str(_row(after, id_).reason).startswith("invalid_content: none of the providers takes media")


def test_a_lost_one_is_found_on_the_list_by_its_text(working: Services, sandbox: Sandbox, clock: Clock) -> None:
    sandbox.rule(Rule("sms", times=1, answer=Answer(accept=True, drop=True)))
    id_ = _send(working, PICTURE, text="Your parcel")
    assert _row(working, id_).state == "sending"
    clock.advance(timedelta(seconds=10))
    working.reconcile.resolve([id_])
    assert (_row(working, id_).state, len(sandbox.texts())) == ("sent", 1)
