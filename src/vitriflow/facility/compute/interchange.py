"""Parsl's interchange as a process that goes when the pool that started it goes, however it goes.

Started by the path of this file: it needs nothing of vitriflow. It looks for its parent itself: what the
kernel offers for that (PR_SET_PDEATHSIG) goes by the thread that started it, which may end earlier.
"""

import os
import pickle
import signal
import sys
import threading
import time

_LOOK_S = 0.5


def main() -> None:
    """Read Parsl's configuration from standard input, as its own command does, and serve."""
    parent = int(sys.argv[1])
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pool, which ends us
    from parsl.executors.high_throughput.interchange import Interchange

    Interchange(**pickle.load(sys.stdin.buffer)).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)


if __name__ == "__main__":
    main()
