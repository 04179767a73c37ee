"""What Alembic runs for every command: the connection was opened, and its transaction begun, by `opening.bring_up_to_date` (I/O)."""

from alembic import context

from company.chief.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter a column in place
    transactional_ddl=False,  # BEGIN and COMMIT are the caller's
)
context.run_migrations()
