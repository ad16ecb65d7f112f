"""A coordinator in a process of its own, made to be killed."""

import threading
from concurrent.futures import ThreadPoolExecutor

from vitriflow.catalog import Catalog
from vitriflow.pipeline import Coordinator, LocalPool, Settings

SETTINGS = Settings(poll_s=0.05, sweep_s=0.3, backoff_s=0.01, lease_s=20)


def coordinate(url: str, processing_id: int, in_processes: bool) -> None:
    """Run until killed. On threads everything dies in one instant; with a pool, workers outlive it a little."""
    executor = LocalPool(1) if in_processes else ThreadPoolExecutor(2)
    Coordinator(Catalog(url), processing_id, executor, SETTINGS).run(threading.Event())
