"""The logbook: boxes, grids, entries, files, marks, limits; samples have a life of their own"""

import sqlalchemy as sa
from alembic import op

from vitriflow.catalog.types import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "grid_box",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("experiment_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("container", sa.String(length=64), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiment.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("experiment_id", "name"),
    )
    op.create_table(
        "grid",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("box_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("sample_id", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["box_id"],
            ["grid_box.id"],
        ),
        sa.ForeignKeyConstraint(
            ["sample_id"],
            ["sample.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("box_id", "position"),
    )
    op.create_table(
        "log_entry",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("experiment_id", sa.Integer(), nullable=False),
        sa.Column("sample_id", sa.Integer(), nullable=True),
        sa.Column("session_id", sa.Integer(), nullable=True),
        sa.Column("exposure_id", sa.BigInteger(), nullable=True),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("author", sa.String(length=64), nullable=False),
        sa.Column("automatic", sa.Boolean(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("edited_at", UtcDateTime(), nullable=True),
        sa.Column("struck_at", UtcDateTime(), nullable=True),
        sa.Column("struck_by", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiment.id"],
        ),
        sa.ForeignKeyConstraint(
            ["sample_id"],
            ["sample.id"],
        ),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["session.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("log_entry") as batch_op:
        batch_op.create_index("ix_log_entry_experiment", ["experiment_id", "id"], unique=False)

    op.create_table(
        "mark",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("exposure_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("author", sa.String(length=64), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("undone_at", UtcDateTime(), nullable=True),
        sa.Column("undone_by", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["session.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("mark") as batch_op:
        batch_op.create_index("ix_mark_exposure", ["exposure_id", "id"], unique=False)
        batch_op.create_index("ix_mark_session", ["session_id"], unique=False)

    op.create_table(
        "limits",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("processing_id", sa.Integer(), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.Column("author", sa.String(length=64), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["processing_id"],
            ["processing.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("limits") as batch_op:
        batch_op.create_index("ix_limits_processing", ["processing_id", "id"], unique=False)

    op.create_table(
        "log_file",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("entry_id", BIG_ID, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("media_type", sa.String(length=128), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("blake3", sa.String(length=64), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["entry_id"],
            ["log_entry.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("log_file") as batch_op:
        batch_op.create_index("ix_log_file_entry", ["entry_id"], unique=False)

    with op.batch_alter_table("sample") as batch_op:
        batch_op.add_column(sa.Column("title", sa.Text(), server_default="", nullable=False))
        batch_op.add_column(sa.Column("description", sa.Text(), server_default="", nullable=False))
        batch_op.add_column(sa.Column("state", sa.String(length=16), server_default="new", nullable=False))
        batch_op.add_column(sa.Column("cloned_from", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("created_at", UtcDateTime(), nullable=True))


def downgrade() -> None:

    with op.batch_alter_table("sample") as batch_op:
        batch_op.drop_column("created_at")
        batch_op.drop_column("cloned_from")
        batch_op.drop_column("state")
        batch_op.drop_column("description")
        batch_op.drop_column("title")

    with op.batch_alter_table("log_file") as batch_op:
        batch_op.drop_index("ix_log_file_entry")

    op.drop_table("log_file")
    with op.batch_alter_table("limits") as batch_op:
        batch_op.drop_index("ix_limits_processing")

    op.drop_table("limits")
    with op.batch_alter_table("mark") as batch_op:
        batch_op.drop_index("ix_mark_session")
        batch_op.drop_index("ix_mark_exposure")

    op.drop_table("mark")
    with op.batch_alter_table("log_entry") as batch_op:
        batch_op.drop_index("ix_log_entry_experiment")

    op.drop_table("log_entry")
    op.drop_table("grid")
    op.drop_table("grid_box")
