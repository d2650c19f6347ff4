"""An SMS: a text of its own, or else what the content says."""

from knocktwice_shared.channels.step_content import TEXT, Field, StepContent

#: Providers refuse a body above 1,600 characters.
CHARS_LIMIT = 1_600

CONTENT = StepContent(
    channel="sms",
    called="SMS",
    fields={
        TEXT: Field(
            limit=CHARS_LIMIT,
            localised=True,
            help="For `sms`; left out, what `sms` or the template says, or the push's body.",
        )
    },
    hint="an SMS has text",
)
