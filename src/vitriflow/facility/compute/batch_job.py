"""A batch job of its own: runs one pickled call, and leaves what it made in a file. ``python -m`` it with a folder."""

import os
import pickle
import sys
from pathlib import Path
from typing import Any

CALL, RESULT = "call.pkl", "result.pkl"
MPIRUN_VARIABLE = "VITRIFLOW_MPIRUN"  # the words that go before an MPI program, such as: mpirun -n 16


def main() -> int:
    """Run the call of a folder."""
    folder = Path(sys.argv[1])
    function, args, kwargs = pickle.loads((folder / CALL).read_bytes())
    try:
        answer: tuple[str, Any] = ("result", function(*args, **kwargs))
    except Exception as error:
        answer = ("error", error)
    try:
        data = pickle.dumps(answer)
        pickle.loads(data)
    except Exception as error:
        data = pickle.dumps(("error", RuntimeError(f"{type(answer[1]).__name__}: {answer[1]} ({error})")))
    temporary = folder / f".{RESULT}"
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(folder / RESULT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
