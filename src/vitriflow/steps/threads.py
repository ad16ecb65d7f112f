"""Holds torch to the threads of a step.

On images of a few hundred pixels a side threads cost more than they bring: each operation ends
with a meeting of all of them, and on a busy machine one is always late.
"""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["torch_threads"]


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch use so many CPU threads inside the block, and as many as before after it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, number))
    try:
        yield
    finally:
        torch.set_num_threads(before)
