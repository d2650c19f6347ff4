"""The classes of what may never happen, each with its exact meaning. This is the one table of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Violation(StrEnum):
    """A class of what may never happen."""

    LOST = "LOST"
    LOST_RECEIPT = "LOST RECEIPT"
    TWICE = "TWICE"
    AFTER_CLICK = "AFTER-CLICK"
    AFTER_CANCEL = "AFTER-CANCEL"
    AFTER_STOP = "AFTER-STOP"
    WHILE_PAUSED = "WHILE-PAUSED"
    OVER_LIMIT = "OVER-LIMIT"
    UNDER_LIMIT = "UNDER-LIMIT"
    MISMATCH = "MISMATCH"
    UNTOLD = "UNTOLD"
    LATE = "LATE"
    STUCK = "STUCK"
    FALSE_STORY = "FALSE STORY"
    PUSH_AFTER_SMS = "PUSH-AFTER-SMS"
    TEXTED_BY_OUR_DELAY = "TEXTED-BY-OUR-DELAY"
    LEAK = "LEAK"
    POISON = "POISON"
    OVERLOAD = "OVERLOAD"


#: "Taken" is what stands in the provider's books, whether the answer arrived or not. "Accepted at" is when the answer
#: to a call arrived. Each time has the slack of ``Rules.slack_s`` (2 s), and what the provider itself was late in
#: noting.
MEANINGS: dict[Violation, str] = {
    Violation.LOST: "A call was accepted and nobody cancelled it, and in the end there is no row of it; or the person had a "
    "device and neither a push nor an SMS was taken or refused for good; or an SMS was due, nothing that anybody said "
    "stood against it, and none was taken, or only some of which the provider later said that they went to nobody. `unknown` counts as lost if the provider's list was read twice, three seconds or more after "
    "the last try.",
    Violation.LOST_RECEIPT: "A receipt was accepted, and in the end no row shows it; or a STOP was the last word of a number "
    "and the number may be texted.",
    Violation.TWICE: "More messages of one step were taken than there were calls; under one key there is one call. Critical "
    "messages, which prefer a repeat, may have a second one if the answer to the first was lost, and after the provider said "
    "that it sent one to nobody another one may go, up to five times. A push that is repeated "
    "under its id replaces itself; two pushes under different ids and one key count.",
    Violation.AFTER_CLICK: "An SMS was taken more than the slack after a receipt was accepted that makes it needless: a click; "
    "or a delivery, for the step behind the push that waits for one.",
    Violation.AFTER_CANCEL: "A push or an SMS was taken more than the slack after a cancellation was accepted.",
    Violation.AFTER_STOP: "An SMS was taken more than the slack after a STOP of its number was accepted, and nobody had said "
    "START since.",
    Violation.WHILE_PAUSED: "An SMS was asked for more than the slack after an operator was told that SMS are paused, and "
    "before the end of the pause.",
    Violation.OVER_LIMIT: "A number's SMS of one text are closer than `same_s` less the slack; or it has more than `per_day` in "
    "a calendar day of UTC.",
    Violation.UNDER_LIMIT: "A step was skipped as over the daily limit though fewer than `per_day` SMS to its number were tried, "
    "cancelled or answered; or as the same text though nobody else asked for that text.",
    Violation.MISMATCH: "A message at the provider that nobody asked for, or whose text, number or device is not what the caller "
    "said; or any message of a test. A device may be that of its old or new owner while the call that moves it is not answered.",
    Violation.UNTOLD: "The provider took an SMS of which no row has its id (`unknown` is forgiven if its list could not be read twice); or something ended, was skipped or failed without a "
    "reason.",
    Violation.LATE: "A push or SMS came more than `late_s` (10 s) after it was due, and more than `recovery_s` (30 s) after the end of the last "
    "fault that fell into its time.",
    Violation.STUCK: "A notification has not ended though its plan is over, and so is `recovery_s` after the last fault; or "
    "accepted messages remain that nobody works on.",
    Violation.FALSE_STORY: "What the system says of a notification contradicts the provider's books: a text that is not there, "
    "one that is there and is not shown as sent, a push likewise, an SMS called wasted though every receipt came before "
    "it, or a story that cannot be told.",
    Violation.PUSH_AFTER_SMS: "A push that shows something was taken more than the slack after an SMS of its notification.",
    Violation.TEXTED_BY_OUR_DELAY: "An SMS that waits for an answer to the push was taken before the push had its time with the "
    "provider (half a second less is forgiven); or without any push having been taken or refused for good, though the "
    "person had a device when the call was made. A critical message may, a minute after it was due.",
    Violation.LEAK: "Over ten minutes or more the memory of a process grows by more than a quarter and 30 MB, or its threads, "
    "files or connections by more than 16; or in the end there are more than 100 keys without expiry.",
    Violation.POISON: "A message that ends every worker that touches it was not parked with its reason, or only after more than "
    "ten workers had died of it; or a sound message was parked. Whatever was gathered with it must be worked off: if it is "
    "not, it is lost or stuck.",
    Violation.OVERLOAD: "More messages were accepted than may wait; or a caller was told that a notification is refused and it "
    "has a row, or that it is accepted and it has none; or what was cancelled meanwhile was sent; or a backlog made the broker "
    "grow by more than 4 kB for each message that may wait and 20 MB, or a worker by more than 150 MB; or messages remained.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation.

    Attributes:
        who: the token of the notification, or a number or process.
        at: when it happened.
        story: what happened, with times relative to ``at`` where that helps.
    """

    violation: Violation
    who: str
    at: float
    story: str
