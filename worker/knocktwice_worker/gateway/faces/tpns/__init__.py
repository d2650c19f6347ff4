"""Tencent Push Notification Service: ``/tpns/v3/push/app`` takes its push payload, with its two ways to name a key.

The payload is read by ``knocktwice.tpns``, as the library and the command line do, so all three mean the same.
"""

from knocktwice_worker.gateway.faces.tpns.interface import FACE

__all__ = ["FACE"]
