"""Rules over results; none yet (issue D)."""
