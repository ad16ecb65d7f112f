"""Use cases that join the rooms below: run a session, report its status, explain a result."""
