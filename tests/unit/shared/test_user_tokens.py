"""User tokens: who may sign one, what it must say, and how long it works."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from knocktwice import InvalidMessage, user_token
from knocktwice_shared.user_tokens import LIFETIME_LIMIT, SKEW, RefusedUserToken, UserScope, read, sign

SECRET = "a-secret-that-is-long-enough-for-hs256"
NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


def _claims(**other: Any) -> dict[str, Any]:
    at = int(NOW.timestamp())
    return {"aud": "knocktwice", "sub": "u-17", "iat": at, "exp": at + 60, "scope": "devices tags", **other}


def test_a_token_of_the_library_says_whose_it_is_and_what_it_allows() -> None:
    token = user_token("u-17", secret=SECRET, scopes=["devices"], lifetime=timedelta(minutes=5))
    found = read(token, [SECRET])
    assert (found.user, found.scopes) == ("u-17", frozenset({UserScope.DEVICES}))
    assert found.expires_at - found.issued_at == timedelta(minutes=5)
    decoded = jwt.decode(token, SECRET, algorithms=["HS256"], audience="knocktwice")
    assert (decoded["sub"], decoded["scope"]) == ("u-17", "devices")


def test_a_token_of_another_library_works() -> None:
    found = read(jwt.encode(_claims(aud=["shop", "knocktwice"]), SECRET), [SECRET], now=NOW)
    assert (found.user, found.scopes) == ("u-17", frozenset({UserScope.DEVICES, UserScope.TAGS}))


def test_any_secret_of_the_list_lets_in_and_no_other() -> None:
    old = sign("u-17", "old")
    assert read(old, ["new", "old"]).user == "u-17"
    with pytest.raises(RefusedUserToken, match="not signed by this system"):
        read(old, ["new"])


def test_clocks_may_differ_by_a_minute() -> None:
    token = sign("u-17", SECRET, lifetime=timedelta(minutes=10), now=NOW)
    for at in (NOW - SKEW, NOW + timedelta(minutes=10) + SKEW - timedelta(seconds=1)):
        assert read(token, [SECRET], now=at).user == "u-17"
    with pytest.raises(RefusedUserToken, match="made in the future"):
        read(token, [SECRET], now=NOW - SKEW - timedelta(seconds=1))
    with pytest.raises(RefusedUserToken, match="expired"):
        read(token, [SECRET], now=NOW + timedelta(minutes=10) + SKEW)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"aud": "shop"}, "aud"),
        ({"aud": None}, "aud"),
        ({"sub": ""}, "sub"),
        ({"sub": 17}, "sub"),
        ({"sub": "u" * 201}, "sub"),
        ({"exp": "tomorrow"}, "exp"),
        ({"exp": 10**400}, "exp"),
        ({"exp": True}, "exp"),
        ({"iat": None}, "iat"),
        ({"nbf": int(NOW.timestamp()) + 3_600}, "not valid yet"),
        ({"exp": int(NOW.timestamp()) + int(LIFETIME_LIMIT.total_seconds()) + 1}, "more than 30 days"),
        ({"scope": "devices admin"}, "scope"),
        ({"scope": ""}, "scope"),
        ({"scope": ["devices"]}, "scope"),
    ],
)
def test_a_token_that_lacks_a_claim_is_refused(claims: dict[str, Any], why: str) -> None:
    # By hand: PyJWT refuses some of these itself.
    signed = jwt.PyJWS().encode(json.dumps(_claims(**claims)).encode(), SECRET)
    with pytest.raises(RefusedUserToken, match=why):
        read(signed, [SECRET], now=NOW)


def test_what_is_no_token_and_what_names_another_algorithm_is_refused() -> None:
    token = sign("u-17", SECRET, now=NOW)
    head, payload, mac = token.split(".")
    unsigned = jwt.encode(_claims(), "", algorithm="none")
    longer = jwt.encode(_claims(), SECRET * 2, algorithm="HS512")
    other = base64.urlsafe_b64encode(json.dumps(_claims(sub="u-18")).encode()).rstrip(b"=").decode()
    broken = [
        "", "..", "a.b.c", f"{head}.{payload}", f"{head}.{payload}.", f"{head}.{other}.{mac}", unsigned, longer,
        f"{head}.{payload}.ü", f"{head}.{payload}.{mac}.", token + "x" * 2_000, f"W10.{payload}.{mac}",
        f"kt_{'a' * 12}_{'b' * 32}",
    ]  # fmt: skip
    for one in broken:
        with pytest.raises(RefusedUserToken):
            read(one, [SECRET], now=NOW)


@pytest.mark.parametrize("header", [{"alg": "HS512"}, {"alg": "none"}, {}, {"alg": "HS256", "crit": ["b64"]}])
def test_a_header_that_asks_for_something_else_is_refused_though_its_signature_fits(header: dict[str, Any]) -> None:
    def part(value: dict[str, Any]) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    body = part(header) + b"." + part(_claims())
    mac = base64.urlsafe_b64encode(hmac.digest(SECRET.encode(), body, "sha256")).rstrip(b"=")
    with pytest.raises(RefusedUserToken, match="is not signed with HS256"):
        read((body + b"." + mac).decode(), [SECRET], now=NOW)


def test_the_secret_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KNOCKTWICE_USER_TOKEN_SECRET", "KNOCKTWICE_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InvalidMessage, match="secret"):
        user_token("u-17")
    monkeypatch.setenv("KNOCKTWICE_SECRET", "whole, with a comma")
    assert read(user_token("u-17"), ["whole, with a comma"])
    monkeypatch.setenv("KNOCKTWICE_USER_TOKEN_SECRET", "new, old")
    assert read(user_token("u-17"), ["new"])


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("user", {"user": " "}),
        ("scopes", {"scopes": []}),
        ("scopes", {"scopes": ["admin"]}),
        ("lifetime", {"lifetime": timedelta(days=31)}),
        ("lifetime", {"lifetime": timedelta(0)}),
    ],
)
def test_a_token_that_would_not_work_is_not_made(field: str, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage) as refused:
        user_token(**{"user": "u-17", "secret": SECRET, **given})
    assert refused.value.field == field
