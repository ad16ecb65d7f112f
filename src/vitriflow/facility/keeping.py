"""The loop of a keeper: look now and then, survive what fails, let go of the lease at the end."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from vitriflow.catalog import Catalog, LeaseHandle, is_away


def keep_looking(
    over: threading.Event, every_s: float, look: Callable[[], Any], log: logging.Logger, trouble: str
) -> None:
    """Call ``look`` every so often until it's over.

    What it raises is logged under ``trouble`` and costs that one look; a catalog that is away isn't even logged,
    since others tell of it.
    """
    while not over.wait(every_s):
        try:
            look()
        except Exception as error:
            if not is_away(error):
                log.exception(trouble)


def let_go(catalog: Catalog, lease: LeaseHandle | None) -> None:
    """Release a lease, where there's one; with the catalog away it runs out by itself."""
    try:
        if lease is not None:
            lease.release(catalog)
    except Exception as error:
        if not is_away(error):
            raise
