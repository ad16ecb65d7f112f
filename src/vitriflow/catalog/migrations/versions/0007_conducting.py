"""Conducted processing: which, lots of exposures handed to an engine, what its tasks asked for"""

import sqlalchemy as sa
from alembic import op

from vitriflow.catalog.types import UtcDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "conducted",
        sa.Column("processing_id", sa.Integer(), nullable=False),
        sa.Column("dag", sa.String(length=250), nullable=False),
        sa.Column("revisions", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("released_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["processing_id"],
            ["processing.id"],
        ),
        sa.PrimaryKeyConstraint("processing_id"),
    )
    with op.batch_alter_table("conducted") as batch_op:
        batch_op.create_index(batch_op.f("ix_conducted_dag"), ["dag"], unique=False)

    op.create_table(
        "lot",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("processing_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("dag", sa.String(length=250), nullable=False),
        sa.Column("run", sa.String(length=250), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("n_exposures", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("active_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["processing_id"],
            ["processing.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("dag", "run"),
        sa.UniqueConstraint("processing_id", "number"),
    )
    op.create_table(
        "ask",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("processing_id", sa.Integer(), nullable=False),
        sa.Column("lot_id", BIG_ID, nullable=False),
        sa.Column("node", sa.String(length=64), nullable=False),
        sa.Column("nodes", sa.JSON(), nullable=False),
        sa.Column("try_number", sa.Integer(), nullable=False),
        sa.Column("revisions", sa.JSON(), nullable=False),
        sa.Column("redo", sa.Boolean(), nullable=False),
        sa.Column("redo_before", UtcDateTime(), nullable=True),
        sa.Column("author", sa.String(length=64), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("applied_at", UtcDateTime(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("outcome", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(
            ["lot_id"],
            ["lot.id"],
        ),
        sa.ForeignKeyConstraint(
            ["processing_id"],
            ["processing.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("lot_id", "node", "try_number"),
    )
    with op.batch_alter_table("ask") as batch_op:
        batch_op.create_index("ix_ask_processing", ["processing_id", "id"], unique=False)

    op.create_table(
        "lot_member",
        sa.Column("lot_id", BIG_ID, nullable=False),
        sa.Column("exposure_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("processing_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["lot_id"],
            ["lot.id"],
        ),
        sa.ForeignKeyConstraint(
            ["processing_id"],
            ["processing.id"],
        ),
        sa.PrimaryKeyConstraint("lot_id", "exposure_id"),
        sa.UniqueConstraint("processing_id", "exposure_id"),
    )


def downgrade() -> None:
    op.drop_table("lot_member")
    with op.batch_alter_table("ask") as batch_op:
        batch_op.drop_index("ix_ask_processing")

    op.drop_table("ask")
    op.drop_table("lot")
    with op.batch_alter_table("conducted") as batch_op:
        batch_op.drop_index(batch_op.f("ix_conducted_dag"))

    op.drop_table("conducted")
