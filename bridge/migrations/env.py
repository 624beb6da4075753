"""What alembic runs: the steps, on the connection and in the transaction that `record_database` has opened and locked."""

from __future__ import annotations

from alembic import context

# Batches: SQLite changes a table by making it anew.
context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
context.run_migrations()
