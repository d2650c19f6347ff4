"""Providers' error codes that are words, or numbers that mean something else than Twilio's.

Revision ID: 0017
Revises: 0016
"""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give them room: columns without a default, which rewrite nothing."""
    op.execute("ALTER TABLE provider_reports ADD COLUMN error_text TEXT")
    op.execute("ALTER TABLE deliveries ADD COLUMN provider_error_text TEXT")


def downgrade() -> None:
    """Forget them."""
    op.execute("ALTER TABLE deliveries DROP COLUMN provider_error_text")
    op.execute("ALTER TABLE provider_reports DROP COLUMN error_text")
