"""How many threads this process may use."""

import os


def n_threads() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0))
