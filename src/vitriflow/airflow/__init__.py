"""DAG files; none yet (issue E)."""
