"""Says plainly when this Python is too old or has no venv. Runs on any Python 3."""

import sys

if sys.version_info < (3, 11):
    sys.exit(
        "vitriflow needs Python 3.11 or later, found %d.%d. Name another one: make PYTHON=python3.12 ..."
        % sys.version_info[:2]
    )
try:
    import ensurepip  # noqa: F401
    import venv  # noqa: F401
except ImportError:
    sys.exit("This Python has no venv. On Debian: apt-get install python3-venv")
