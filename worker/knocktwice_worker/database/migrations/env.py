"""Alembic's entry point: runs the migrations on the connection that ``upgrade()`` hands over."""

from alembic import context

from knocktwice_worker.database.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
