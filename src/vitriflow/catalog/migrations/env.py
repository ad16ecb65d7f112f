"""Lets Alembic work on the connection that vitriflow hands it: there is no ini file."""

from alembic import context

from vitriflow.catalog import Base


def run() -> None:
    """Run the migrations on ``config.attributes['connection']``."""
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


run()
