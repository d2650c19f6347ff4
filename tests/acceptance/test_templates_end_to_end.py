"""A template from the application's call to the phone: push in one language, SMS in the same."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from knocktwice import Recipient
from knocktwice_worker.content import template_store, templates

if TYPE_CHECKING:
    from support.clock import Clock
    from support.system import System


def test_a_template_reaches_the_phone_in_its_language(system: System, clock: Clock) -> None:
    contents = {
        "en": {"push": {"title": "Code", "body": "{1} is your code"}},
        "de": {"push": {"title": "Code", "body": "{1} ist Ihr Code"}, "sms": "Ihr Code: {1}"},
    }
    fallback = {"when": "not_delivered", "after": "10m"}
    code = templates.check("code", {"default_locale": "en", "fallback": fallback, "contents": contents})
    with system.engine.begin() as conn:
        template_store.put(conn, "code", code)
    person = Recipient(registrations=["silent-code"], phone="+16505559901", params=["4711"], locale="de-CH")
    (id_,) = system.client.notify_many([person], template="code")
    (lost,) = system.client.notify_many([Recipient("u-1", params=["4711"])], template="kode")
    system.waiting(id_)
    clock.advance(timedelta(minutes=10))
    assert system.ended(id_).state == "texted"
    assert [p.body for p in system.sandbox.pushes("silent-code")] == ["4711 ist Ihr Code"]
    assert [t.body for t in system.sandbox.texts("+16505559901")] == ["Ihr Code: 4711"]
    assert system.ended(lost).reason == "template: there is none called kode"
