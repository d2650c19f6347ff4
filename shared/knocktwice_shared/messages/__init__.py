"""The messages that producers send, and the one validator both sides run on them.

``shared/CONTRACT.md`` documents every field. A message is plain JSON on the wire; ``parse_*`` turns it into the frozen
types of these modules or raises :class:`InvalidMessage` with the paths of all wrong fields. Unknown fields are
refused: a misspelt ``catgeory`` that is silently ignored sends the wrong message.
"""

from knocktwice_shared.messages.audience import (
    APPLICATION,
    TAG_NAME_LIMIT,
    AudienceChange,
    ConsentSet,
    DeviceRegistered,
    DeviceUnregistered,
    LoggedOutEverywhere,
    OptOutSet,
    PhoneBound,
    Platform,
    TagItem,
    TagsSet,
    TagValue,
    UserErased,
    parse_audience,
)
from knocktwice_shared.messages.blasts import SEGMENT_NAME_LIMIT, THROTTLE_LIMIT, Blast, blast_batch, parse_blast
from knocktwice_shared.messages.cancellations import Cancellation, parse_cancellation
from knocktwice_shared.messages.checks import JSON_BYTES_LIMIT, normalise_phone, parse_moment
from knocktwice_shared.messages.notifications import Batch, Recipient, parse_batch, parse_content
from knocktwice_shared.messages.pushes import address_problem, push_size, whole_badge
from knocktwice_shared.messages.receipts import Receipt, ReceiptEvent, parse_receipts
from knocktwice_shared.messages.steps import parse_step
from knocktwice_shared.messages.values import (
    AFTER_LIMIT,
    AT_ONCE,
    DEFAULT_SOUND,
    PUSH_BYTES_LIMIT,
    PUSH_FIELDS,
    SILENT,
    SMS_CHARS_LIMIT,
    STEPS_LIMIT,
    TEMPLATE_NAME_LIMIT,
    TENCENT_CONDITIONS,
    TTL_LIMIT,
    VALID_FOR_LIMIT,
    Category,
    LocalTime,
    Priority,
    Push,
    Step,
    When,
)

__all__ = [
    "AFTER_LIMIT",
    "APPLICATION",
    "AT_ONCE",
    "DEFAULT_SOUND",
    "JSON_BYTES_LIMIT",
    "PUSH_BYTES_LIMIT",
    "PUSH_FIELDS",
    "SEGMENT_NAME_LIMIT",
    "SILENT",
    "SMS_CHARS_LIMIT",
    "STEPS_LIMIT",
    "TAG_NAME_LIMIT",
    "TEMPLATE_NAME_LIMIT",
    "TENCENT_CONDITIONS",
    "THROTTLE_LIMIT",
    "TTL_LIMIT",
    "VALID_FOR_LIMIT",
    "AudienceChange",
    "Batch",
    "Blast",
    "Cancellation",
    "Category",
    "ConsentSet",
    "DeviceRegistered",
    "DeviceUnregistered",
    "LocalTime",
    "LoggedOutEverywhere",
    "OptOutSet",
    "PhoneBound",
    "Platform",
    "Priority",
    "Push",
    "Receipt",
    "ReceiptEvent",
    "Recipient",
    "Step",
    "TagItem",
    "TagValue",
    "TagsSet",
    "UserErased",
    "When",
    "address_problem",
    "blast_batch",
    "normalise_phone",
    "parse_audience",
    "parse_batch",
    "parse_blast",
    "parse_cancellation",
    "parse_content",
    "parse_moment",
    "parse_receipts",
    "parse_step",
    "push_size",
    "whole_badge",
]
