"""Intake: messages for the broker, receipts and callbacks for PostgreSQL; many requests are written together."""
