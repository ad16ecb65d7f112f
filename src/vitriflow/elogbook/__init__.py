"""People, experiments, samples, sessions: what the operator drives."""
