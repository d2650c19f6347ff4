"""People: the data that is kept of them, their receipts and replies, and the rights of their apps."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from pydantic import Field, SecretStr

from knocktwice_worker.config.values import CodeText, Days, Group, PerSecond, Seconds


class UnconfirmedPolicy(StrEnum):
    """The meaning of ``not_delivered`` for devices whose kind never confirms a delivery."""

    #: The SMS goes out, as for all other devices.
    TEXT = "text"
    #: The push counts as delivered, so no SMS goes out.
    ACCEPT = "accept"
    #: The SMS goes out unless the person clicks in time.
    NOT_CLICKED = "not_clicked"


class PeopleSettings(Group):
    """People, receipts and apps."""

    # People
    device_stale_days: Days = Field(
        270, ge=0, le=3650, description="A device not seen for so many days is forgotten; FCM calls it stale by then."
    )

    # Retention
    retention_days: Days = Field(
        90,
        ge=0,
        le=36_500,
        description="What ended longer ago is deleted, with its texts, receipts and decisions; 0: never.",
    )

    inbound_days: Days = Field(
        90,
        ge=0,
        le=3650,
        description="How many days it is kept what people write to a sender; 0: only for a week that they wrote, without the words.",
    )

    reply_within_s: Seconds = Field(
        259_200,
        le=2_592_000,
        description="What a person writes answers the newest message to them that is younger; 0: it answers nothing.",
    )

    inbound_replies_per_h: int = Field(
        0,
        ge=0,
        le=100,
        description="SMS to one number per hour that answer what it wrote, as webhook endpoints say; 0: their answers are not read.",
    )

    # Later steps
    withdraw: bool = Field(
        True, description="A message of a later step takes the push off the screen, by a silent push to the app."
    )

    # Receipts
    receipt_secret: SecretStr | None = Field(
        None, description="Keys of receipt URLs, separated by commas, the first signs; empty: from KNOCKTWICE_SECRET."
    )
    receipt_days: Days = Field(
        7, ge=1, le=365, description="How many days after a push has expired its app may still report."
    )
    unconfirmed_policy: UnconfirmedPolicy = Field(
        UnconfirmedPolicy.TEXT,
        description="What not_delivered does where apps never report deliveries: text; accept, FCM's word is enough; "
        "or not_clicked, text who did not click.",
    )
    unconfirmed_sample: int = Field(
        500, ge=1, description="Pushes in seven days from which one can tell whether a kind of device reports them."
    )
    unconfirmed_share: float = Field(
        0.01, ge=0, le=1, description="A kind of device that reports less than this share of them never reports."
    )

    # Apps and pages
    user_token_secret: SecretStr | None = Field(
        None,
        description="Keys of user tokens, separated by commas, the first signs; empty: KNOCKTWICE_SECRET. "
        "See docs/phones-and-pages.md.",
    )
    user_token_per_s: PerSecond = Field(
        5, description="Requests per second that one person's apps and pages may make, to each process."
    )
    user_tags: frozenset[str] = Field(
        frozenset(),
        description='Tags that apps and pages may set for their own person, like ["plan", "interests"]; '
        "subscribed_to_push always.",
    )

    user_devices: int = Field(
        20,
        ge=0,
        le=10_000,
        description="Most devices that one person's apps and pages may register with user tokens; 0: no limit.",
    )

    phone_codes_per_h: int = Field(
        5,
        ge=0,
        le=100,
        description="Codes per hour by which one person proves a number, and to one number; 0: apps cannot bind numbers.",
    )
    phone_code_text: CodeText = Field(
        "{{ code }} is your code. It works for ten minutes.", description="The SMS with the code."
    )

    @property
    def device_stale(self) -> timedelta:
        """The time after which an unseen device is forgotten; zero: never."""
        return timedelta(days=self.device_stale_days)

    @property
    def retention(self) -> timedelta:
        """The time after which finished notifications are deleted; zero: never."""
        return timedelta(days=self.retention_days)

    @property
    def inbound_kept(self) -> timedelta:
        """The time for which the words of texts that people write are kept."""
        return timedelta(days=self.inbound_days)

    @property
    def reply_within(self) -> timedelta:
        """How old a message may be that a reply answers."""
        return timedelta(seconds=self.reply_within_s)

    @property
    def receipt_valid(self) -> timedelta:
        """The time after a push's expiry in which receipts are still accepted."""
        return timedelta(days=self.receipt_days)
