"""The first tables"""

import sqlalchemy as sa
from alembic import op

from vitriflow.catalog.types import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "experiment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("owner", sa.String(length=256), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "microscope",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "sample",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("experiment_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiment.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("experiment_id", "name"),
    )
    op.create_table(
        "session",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("microscope_id", sa.Integer(), nullable=False),
        sa.Column("sample_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("survey", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("closed_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["microscope_id"],
            ["microscope.id"],
        ),
        sa.ForeignKeyConstraint(
            ["sample_id"],
            ["sample.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    op.create_table(
        "exposure",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=512), nullable=False),
        sa.Column("item", sa.String(length=512), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("software", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("problem_code", sa.String(length=64), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("blake3", sa.String(length=64), nullable=True),
        sa.Column("optics_group", sa.Integer(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("first_seen_at", UtcDateTime(), nullable=False),
        sa.Column("complete_at", UtcDateTime(), nullable=True),
        sa.Column("copied_at", UtcDateTime(), nullable=True),
        sa.Column("proved_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["session.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("session_id", "key"),
    )
    op.create_index("ix_exposure_intake", "exposure", ["session_id", "state", "id"])

    op.create_table(
        "processing",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["session.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("session_id", "name"),
    )
    op.create_table(
        "event",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=True),
        sa.Column("processing_id", sa.Integer(), nullable=True),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["processing_id"],
            ["processing.id"],
        ),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["session.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_event_session", "event", ["session_id", "id"])

    op.create_table(
        "measure",
        sa.Column("processing_id", sa.Integer(), nullable=False),
        sa.Column("exposure_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason_code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("early_A", sa.Double(), nullable=True),
        sa.Column("late_A", sa.Double(), nullable=True),
        sa.Column("total_A", sa.Double(), nullable=True),
        sa.Column("net_A", sa.Double(), nullable=True),
        sa.Column("mean_intensity", sa.Double(), nullable=True),
        sa.Column("defocus_A", sa.Double(), nullable=True),
        sa.Column("astigmatism_A", sa.Double(), nullable=True),
        sa.Column("defocus_angle_deg", sa.Double(), nullable=True),
        sa.Column("phase_shift_deg", sa.Double(), nullable=True),
        sa.Column("cross_correlation", sa.Double(), nullable=True),
        sa.Column("fit_resolution_A", sa.Double(), nullable=True),
        sa.Column("ice_ring", sa.Double(), nullable=True),
        sa.Column("ctf_quality", sa.String(length=16), nullable=True),
        sa.Column("n_picks", sa.Integer(), nullable=True),
        sa.Column("complete_at", UtcDateTime(), nullable=True),
        sa.Column("first_result_at", UtcDateTime(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("latency_s", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["processing_id"],
            ["processing.id"],
        ),
        sa.PrimaryKeyConstraint("processing_id", "exposure_id"),
    )
    op.create_index("ix_measure_change", "measure", ["processing_id", "change"])
    op.create_index("ix_measure_status", "measure", ["processing_id", "status"])

    op.create_table(
        "result",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("processing_id", sa.Integer(), nullable=False),
        sa.Column("node", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("item_type", sa.String(length=16), nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["processing_id"],
            ["processing.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("processing_id", "node", "revision", "item_type", "item_id"),
    )
    op.create_table(
        "task",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("processing_id", sa.Integer(), nullable=False),
        sa.Column("node", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("item_type", sa.String(length=16), nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", UtcDateTime(), nullable=True),
        sa.Column("reason_code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("queued_at", UtcDateTime(), nullable=True),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("worker", sa.String(length=128), nullable=True),
        sa.ForeignKeyConstraint(
            ["processing_id"],
            ["processing.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("processing_id", "node", "revision", "item_type", "item_id"),
    )
    op.create_index("ix_task_item", "task", ["processing_id", "item_type", "item_id"])
    op.create_index("ix_task_state", "task", ["processing_id", "state", "node", "revision"])

    op.create_table(
        "attempt",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("task_id", BIG_ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("reason_code", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("ended_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_id"],
            ["task.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_attempt_task", "attempt", ["task_id"])


def downgrade() -> None:
    op.drop_index("ix_attempt_task", table_name="attempt")

    op.drop_table("attempt")
    op.drop_index("ix_task_state", table_name="task")
    op.drop_index("ix_task_item", table_name="task")

    op.drop_table("task")
    op.drop_table("result")
    op.drop_index("ix_measure_status", table_name="measure")
    op.drop_index("ix_measure_change", table_name="measure")

    op.drop_table("measure")
    op.drop_index("ix_event_session", table_name="event")

    op.drop_table("event")
    op.drop_table("processing")
    op.drop_index("ix_exposure_intake", table_name="exposure")

    op.drop_table("exposure")
    op.drop_table("session")
    op.drop_table("sample")
    op.drop_table("microscope")
    op.drop_table("lease")
    op.drop_table("experiment")
