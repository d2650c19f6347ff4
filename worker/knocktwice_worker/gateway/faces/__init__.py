"""Faces: the HTTP interfaces of other products, so that their customers move in by changing an address.

A face is one folder and one line in :data:`FACES`. It translates a request of that product into what our own routes
take, with the same validators, limits, keys and idempotency, and the answer back. It decides nothing about
notifications, and faces do not know each other. What it cannot do is an error of that product and is never dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_worker.gateway.faces.onesignal import FACE as ONESIGNAL
from knocktwice_worker.gateway.faces.pushwoosh import FACE as PUSHWOOSH
from knocktwice_worker.gateway.faces.tpns import FACE as TPNS

if TYPE_CHECKING:
    from knocktwice_worker.gateway.faces.face import Face

#: Every face there is; one line adds one.
FACES: tuple[Face, ...] = (ONESIGNAL, TPNS, PUSHWOOSH)
