"""A WhatsApp message: a content template of Twilio's that WhatsApp has approved, with its variables."""

from knocktwice_shared.channels.step_content import Field, Kind, StepContent

CONTENT = StepContent(
    channel="whatsapp",
    called="WhatsApp",
    fields={
        "content_sid": Field(
            limit=64,
            required=True,
            filled=False,
            localised=True,
            pattern="HX[0-9a-fA-F]{32}",
            problem="must be a content template of Twilio's: HX and 32 hex digits",
            missing="write whatsapp:HX…, Twilio's id of the content template",
            help="For `whatsapp`: the approved content template.",
            label="content",
        ),
        "variables": Field(
            kind=Kind.TEXTS,
            limit=1_600,
            help="For `whatsapp`: its variables; placeholders are filled from `params`.",
            label="variable",
        ),
    },
    hint="WhatsApp takes templates that it has approved: give content_sid and variables, a picture's path among them",
    first_field="content_sid",
)
