"""Parsl's interchange as a process that goes when the pool that started it goes, however it goes."""

import ctypes
import os
import pickle
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Read Parsl's configuration from standard input, as its own command does, and serve."""
    parent = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)  # it went before we could ask
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pool, which ends us
    from parsl.executors.high_throughput.interchange import Interchange

    Interchange(**pickle.load(sys.stdin.buffer)).start()


if __name__ == "__main__":
    main()
