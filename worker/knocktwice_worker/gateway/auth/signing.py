"""Signed requests: a caller proves that they have a key's signing secret without sending it.

Keys are stored as hashes, so nobody here knows a key that was given out. The signing secret follows from that hash and
the installation's secret: it is stored nowhere, it is another for each key and ends with it, and a stolen table opens
nothing. ``knocktwice key sign ID`` shows it.
"""

from __future__ import annotations

import hashlib
import hmac

_LENGTH = 32


def signing_secret(digest: bytes, secret: str) -> str:
    """Return the secret with which requests of a key are signed: 32 hexadecimal digits.

    Args:
        digest: what is stored of the key.
        secret: the installation's.
    """
    root = hashlib.sha256(b"knocktwice signing secret\0" + secret.encode()).digest()
    return hmac.digest(root, digest, "sha256").hex()[:_LENGTH]
