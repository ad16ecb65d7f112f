"""Custody: files, optics groups, places, tilt series, archive copies, holds, nodes and alarms"""

import sqlalchemy as sa
from alembic import op

from vitriflow.catalog.types import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "node",
        sa.Column("name", sa.String(length=192), nullable=False),
        sa.Column("service", sa.String(length=32), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "alarm",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=192), nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=True),
        sa.Column("microscope", sa.String(length=64), nullable=True),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("raised_at", UtcDateTime(), nullable=False),
        sa.Column("cleared_at", UtcDateTime(), nullable=True),
        sa.Column("acknowledged_by", sa.String(length=128), nullable=True),
        sa.Column("acknowledged_at", UtcDateTime(), nullable=True),
        sa.Column("told", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["session.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("alarm") as batch_op:
        batch_op.create_index("ix_alarm_open", ["cleared_at", "rule"], unique=False)

    op.create_table(
        "archive_copy",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("tier", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("n_files", sa.Integer(), nullable=False),
        sa.Column("n_bytes", sa.BigInteger(), nullable=False),
        sa.Column("manifest_blake3", sa.String(length=64), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("proved_at", UtcDateTime(), nullable=True),
        sa.Column("checked_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["session.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("archive_copy") as batch_op:
        batch_op.create_index("ix_archive_copy_session", ["session_id", "tier"], unique=False)

    op.create_table(
        "hold",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("placed_by", sa.String(length=128), nullable=False),
        sa.Column("placed_at", UtcDateTime(), nullable=False),
        sa.Column("lifted_by", sa.String(length=128), nullable=True),
        sa.Column("lifted_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["session.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "optics_group",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("basis", sa.String(length=16), nullable=False),
        sa.Column("centre_x", sa.Double(), nullable=True),
        sa.Column("centre_y", sa.Double(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["session.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("session_id", "number"),
    )
    op.create_table(
        "place",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("parent", sa.String(length=128), nullable=True),
        sa.Column("stage_x_um", sa.Double(), nullable=True),
        sa.Column("stage_y_um", sa.Double(), nullable=True),
        sa.Column("image", sa.String(length=512), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["session.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("session_id", "kind", "name"),
    )
    op.create_table(
        "source_file",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=512), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=24), nullable=False),
        sa.Column("software", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("problem_code", sa.String(length=64), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("stamp", sa.BigInteger(), nullable=False),
        sa.Column("blake3", sa.String(length=64), nullable=True),
        sa.Column("destination", sa.String(length=600), nullable=True),
        sa.Column("decodable", sa.Boolean(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", UtcDateTime(), nullable=True),
        sa.Column("first_seen_at", UtcDateTime(), nullable=False),
        sa.Column("complete_at", UtcDateTime(), nullable=True),
        sa.Column("copied_at", UtcDateTime(), nullable=True),
        sa.Column("proved_at", UtcDateTime(), nullable=True),
        sa.Column("freed_at", UtcDateTime(), nullable=True),
        sa.Column("gone_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["session.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("session_id", "key", "generation"),
    )
    with op.batch_alter_table("source_file") as batch_op:
        batch_op.create_index("ix_source_file_state", ["session_id", "state", "id"], unique=False)

    op.create_table(
        "tilt_series",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("software", sa.String(length=32), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["session.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("session_id", "name"),
    )
    with op.batch_alter_table("exposure") as batch_op:
        batch_op.add_column(sa.Column("grid_square", sa.String(length=128), nullable=True))
        batch_op.add_column(sa.Column("foil_hole", sa.String(length=128), nullable=True))
        batch_op.add_column(sa.Column("tilt_series", sa.String(length=256), nullable=True))
        batch_op.add_column(sa.Column("tilt_angle_deg", sa.Double(), nullable=True))

    with op.batch_alter_table("session") as batch_op:
        batch_op.add_column(
            sa.Column("mode", sa.String(length=16), server_default="in_place", nullable=False)
        )
        batch_op.add_column(
            sa.Column("residence", sa.String(length=16), server_default="resident", nullable=False)
        )


def downgrade() -> None:

    with op.batch_alter_table("session") as batch_op:
        batch_op.drop_column("residence")
        batch_op.drop_column("mode")

    with op.batch_alter_table("exposure") as batch_op:
        batch_op.drop_column("tilt_angle_deg")
        batch_op.drop_column("tilt_series")
        batch_op.drop_column("foil_hole")
        batch_op.drop_column("grid_square")

    op.drop_table("tilt_series")
    with op.batch_alter_table("source_file") as batch_op:
        batch_op.drop_index("ix_source_file_state")

    op.drop_table("source_file")
    op.drop_table("place")
    op.drop_table("optics_group")
    op.drop_table("hold")
    with op.batch_alter_table("archive_copy") as batch_op:
        batch_op.drop_index("ix_archive_copy_session")

    op.drop_table("archive_copy")
    with op.batch_alter_table("alarm") as batch_op:
        batch_op.drop_index("ix_alarm_open")

    op.drop_table("alarm")
    op.drop_table("node")
