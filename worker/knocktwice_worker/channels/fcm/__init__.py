"""Firebase Cloud Messaging: pushes, and the silent ones that withdraw them, through its HTTP v1 API.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages — a contract test holds our JSON against
Google's published discovery document and against firebase-admin's own encoder. No module outside this folder knows
FCM's JSON or its errors; apps know the fields whose names are exported here.
"""

from __future__ import annotations

from knocktwice_worker.channels.fcm.channel import FcmChannel
from knocktwice_worker.channels.fcm.encoding import ID_FIELD, RECEIPT_FIELD, WITHDRAW_FIELD

__all__ = ["ID_FIELD", "RECEIPT_FIELD", "WITHDRAW_FIELD", "FcmChannel"]
