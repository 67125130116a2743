"""What alembic runs for each migration command: our connection, our transaction; only `run` starts it."""

from __future__ import annotations

from alembic import context

from vagus.records.engine.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=False,  # the caller's transaction holds every step, so no step may begin or commit its own
)
context.run_migrations()
