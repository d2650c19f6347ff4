"""Short links: what ``{{ url | track }}`` makes of an address, so that a click on it in an SMS counts as an answer.

A token stands for an address; where it leads is in Postgres (``link_store.py``), never in the link, so nobody can make
one that leads elsewhere. Tokens are an HMAC of notification, step and target: whoever fills in the same text again,
before anything is sent, after a crash or at the decision, writes the same link without having to remember it.

A token has 12 characters of base62, 71 bits. Who has none has to guess: among a billion links in use one guess in 10¹²
hits, so at a thousand guesses a second one hit in decades. Two of a billion being the same has a chance of 1 in 6,000,
and then neither leads anywhere.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from urllib.parse import quote, urlsplit
from uuid import UUID

#: The path of links, below their host.
PATH = "/l/"
TOKEN_LENGTH = 12
#: Links in one message. Each is a row, so a loop in a template must not make thousands.
LINKS_LIMIT = 10
#: Longest address that a link may stand for, in characters.
TARGET_LIMIT = 2_000

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TOKEN = re.compile(rf"[0-9A-Za-z]{{{TOKEN_LENGTH}}}")
#: Separates this use of the secret from every other.
_PURPOSE = b"knocktwice link "
#: Controls, white space and what else browsers drop or read as a slash.
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0\\\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\ud800-\udfff]")
_SCHEME = re.compile(r"https?://(?=[^/?#])", re.IGNORECASE)
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
#: The characters of an address that are not escaped; existing escapes stay.
_SAFE = "%/:=&?~#+!$,;'@()*[]"
_NOBODY = str(UUID(int=0))


class RefusedTarget(ValueError):
    """No link may stand for this. The text says why and quotes nothing."""


def checked(target: str) -> str:
    """Return an address as a link leads to it: http or https, and nothing but ASCII.

    Raises:
        RefusedTarget: it is none, or not one that everybody reads in the same way.
    """
    if len(target) > TARGET_LIMIT:
        raise RefusedTarget(f"is {len(target)} characters; {TARGET_LIMIT} at most")
    if not _SCHEME.match(target):
        raise RefusedTarget("must be an http or https address")
    if _FORBIDDEN.search(target):
        raise RefusedTarget("holds white space, a control character or a backslash; escape it")
    try:
        parts = urlsplit(target)
        named = parts.hostname and _HOST.fullmatch(
            parts.netloc.partition(":")[0] if "[" not in target else parts.netloc
        )
        valid = named and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        valid = False
    if not valid:
        raise RefusedTarget("must name a host in ASCII, without a user or password before it")
    return quote(target, safe=_SAFE)


def is_token(text: str) -> bool:
    """Whether a text may be a token."""
    return _TOKEN.fullmatch(text) is not None


class Tracker:
    """The links of one step of one notification.

    Attributes:
        targets: token → where it leads, of the links made so far.
    """

    __slots__ = ("_base", "_key", "_of", "targets")

    def __init__(self, base: str, key: bytes, notification: str, step: int) -> None:
        self._base = base
        self._key = key
        self._of = notification, step
        self.targets: dict[str, str] = {}

    def link(self, target: str) -> str:
        """Return the link that stands for an address which :func:`checked` has returned.

        Raises:
            RefusedTarget: the message has too many.
        """
        notification, step = self._of
        token = _token(hmac.digest(self._key, f"{UUID(notification)} {step} {target}".encode(), "sha256"))
        if token not in self.targets and len(self.targets) == LINKS_LIMIT:
            raise RefusedTarget(f"is one too many; {LINKS_LIMIT} links in a message at most")
        self.targets[token] = target
        return self._base + token

    def content(self, text: str) -> str:
        """Return a text with targets in place of tokens, so that equal texts of two messages are equal."""
        for token, target in self.targets.items():
            text = text.replace(token, target)
        return text


class ShortLinks:
    """Makes the links of an installation.

    Args:
        url: where the world reaches the gateway.
        secret: the tokens' key is made of it.
    """

    def __init__(self, url: str, secret: bytes) -> None:
        self._base = url.rstrip("/") + PATH
        self._key = hashlib.sha256(_PURPOSE + secret).digest()

    def of(self, notification: str, step: int) -> Tracker:
        """Return what makes the links of one step."""
        return Tracker(self._base, self._key, notification, step)


def example(url: str | None) -> Tracker | None:
    """Return what makes links that lead nowhere and are as long as real ones; ``None`` where no real ones are made.

    Args:
        url: where links are reached, if anywhere.
    """
    return ShortLinks(url, b"example").of(_NOBODY, 0) if url else None


def _token(digest: bytes) -> str:
    number = int.from_bytes(digest[:16])
    letters = []
    for _ in range(TOKEN_LENGTH):
        number, place = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[place])
    return "".join(letters)
