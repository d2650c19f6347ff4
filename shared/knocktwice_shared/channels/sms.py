"""An SMS: a text of its own, or else what the content says. With media it is an MMS."""

from knocktwice_shared.channels.step_content import MEDIA, TEXT, Field, Kind, StepContent

#: Providers refuse a body above 1,600 characters.
CHARS_LIMIT = 1_600
#: Twilio takes ten ``MediaUrl`` of a message (https://www.twilio.com/docs/messaging/api/message-resource).
MEDIA_LIMIT = 10
#: Of one address, in characters, also when it is filled in.
ADDRESS_LIMIT = 2_000

CONTENT = StepContent(
    channel="sms",
    called="SMS",
    fields={
        TEXT: Field(
            limit=CHARS_LIMIT,
            localised=True,
            help="For `sms`; left out, what `sms` or the template says, or the push's body.",
        ),
        MEDIA: Field(
            kind=Kind.ADDRESSES,
            limit=ADDRESS_LIMIT,
            most=MEDIA_LIMIT,
            localised=True,
            help="For `sms`: pictures or other files that go with the text: one `https` address, a list of up to ten, or "
            "either for each language. The provider fetches them.",
        ),
    },
    hint="an SMS has text",
)
