"""``/v1/trials``: rules that are only watched."""

from __future__ import annotations

from pydantic import BaseModel, Field


class WatchedRule(BaseModel):
    """A rule, as it is in force and as it is tried."""

    rule: str = Field(description="What it stops messages as, in the words of the ledger, like `capped_daily`.")
    project: str | None = Field(description="The project whose own limit it is; null: the installation's.")
    setting: str = Field(
        description="The environment variables that say when, separated by commas; of a project fields of its file."
    )
    in_force: str = Field(description="Their values.")
    tried: str | None = Field(description="The values that are only watched; null: none.")
    would_have_stopped: int = Field(description="Messages that went and that the watched values would have stopped.")


class TrialAnswer(BaseModel):
    """What rules that are only watched would have stopped."""

    since_s: float = Field(description="How far back it is counted, in seconds.")
    rules: list[WatchedRule]
    would_have_stopped: int = Field(description="The messages that any of the rules would have stopped, each once.")
