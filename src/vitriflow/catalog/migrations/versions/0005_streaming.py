"""Streaming: batches and their members, changes asked of a processing, more columns to judge by"""

import sqlalchemy as sa
from alembic import op

from vitriflow.catalog.types import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "batch",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("processing_id", sa.Integer(), nullable=False),
        sa.Column("node", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("cause", sa.String(length=16), nullable=False),
        sa.Column("n_items", sa.Integer(), nullable=False),
        sa.Column("n_new", sa.Integer(), nullable=False),
        sa.Column("particles", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["processing_id"],
            ["processing.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("processing_id", "node", "revision", "number"),
    )
    op.create_table(
        "change_request",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("processing_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("author", sa.String(length=64), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("applied_at", UtcDateTime(), nullable=True),
        sa.Column("refused", sa.Text(), nullable=True),
        sa.Column("outcome", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(
            ["processing_id"],
            ["processing.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("change_request") as batch_op:
        batch_op.create_index("ix_change_request_open", ["processing_id", "applied_at"], unique=False)

    op.create_table(
        "batch_member",
        sa.Column("batch_id", BIG_ID, nullable=False),
        sa.Column("exposure_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_id"],
            ["batch.id"],
        ),
        sa.PrimaryKeyConstraint("batch_id", "exposure_id"),
    )
    with op.batch_alter_table("batch_member") as batch_op:
        batch_op.create_index("ix_batch_member_exposure", ["exposure_id"], unique=False)

    with op.batch_alter_table("measure") as batch_op:
        batch_op.add_column(sa.Column("n_particles", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("max_frame_A", sa.Double(), nullable=True))
        batch_op.add_column(sa.Column("tilt_deg", sa.Double(), nullable=True))
        batch_op.add_column(sa.Column("masked_fraction", sa.Double(), nullable=True))

    with op.batch_alter_table("processing") as batch_op:
        batch_op.add_column(sa.Column("jobs", sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("processing") as batch_op:
        batch_op.drop_column("jobs")

    with op.batch_alter_table("measure") as batch_op:
        batch_op.drop_column("masked_fraction")
        batch_op.drop_column("tilt_deg")
        batch_op.drop_column("max_frame_A")
        batch_op.drop_column("n_particles")

    with op.batch_alter_table("batch_member") as batch_op:
        batch_op.drop_index("ix_batch_member_exposure")

    op.drop_table("batch_member")
    with op.batch_alter_table("change_request") as batch_op:
        batch_op.drop_index("ix_change_request_open")

    op.drop_table("change_request")
    op.drop_table("batch")
