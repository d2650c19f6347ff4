"""Text and media as one text, as the row of a message keeps them (``deliveries.text``).

A message without media is kept as its plain text, so most rows are what they say. A message with media is kept as JSON
behind a mark, so that everything which follows the row's text follows the media, too: repeats to one number, erasure,
retention, a second try.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from knocktwice_worker.content import sms_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The first character of a text with media: the ASCII record separator, which no keyboard types. A plain text that
#: begins with it is kept as JSON, too, so that nobody can pretend to have media.
MARK = "\x1e"
#: A message with media is paid by the message, and costs about as much as three parts. It counts as so many parts, or
#: as the parts of its text, if these are more: where operators know no MMS, a provider may send the text with a link.
LEAST_PARTS = 3


def joined(text: str, media: Sequence[str] = ()) -> str:
    """Return a text and the addresses of its media as one text."""
    if not media and not text.startswith(MARK):
        return text
    return MARK + json.dumps([text, *media], ensure_ascii=False, separators=(",", ":"))


def parted(kept: str) -> tuple[str, list[str]]:
    """Return the text and the addresses that :func:`joined` made one of."""
    if not kept.startswith(MARK):
        return kept, []
    try:
        said = json.loads(kept.removeprefix(MARK))
    except ValueError:
        said = None
    if not isinstance(said, list) or not said or not all(isinstance(each, str) for each in said):
        # A plain text that an earlier release reserved.
        return kept, []
    return said[0], said[1:]


def parts(kept: str) -> int:
    """Return the number of SMS parts that a message counts as."""
    text, media = parted(kept)
    count = sms_parts.count(text)
    return max(count, LEAST_PARTS) if media else count
