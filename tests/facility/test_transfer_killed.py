"""kill -9 of an acquisition at any byte, again and again: nothing is lost, nothing is called proved that isn't."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.facility.acquiring import Acquiring, frames, write_movie

pytestmark = pytest.mark.slow
KILLS = 4
PROGRAM = """
import sys, threading
from pathlib import Path
from tests.facility.acquiring import Acquiring
acquiring = Acquiring(Path(sys.argv[1]), parallel_copies=3, bandwidth_bytes_per_s=3e6)
with acquiring.running():
    print("running", flush=True)
    threading.Event().wait()
"""


def test_an_acquisition_that_is_killed_at_any_byte_goes_on_where_it_was(tmp_path: Path) -> None:
    acquiring = Acquiring(tmp_path)
    chance = random.Random(KILLS)
    for number in range(4):
        write_movie(acquiring.source / f"m{number}.mrc", frames(number))
    for number in range(8):
        (acquiring.source / f"f{number}.dat").write_bytes(chance.randbytes(1_200_000))
    for number in range(40):
        (acquiring.source / f"note{number}.xml").write_text(f"<x>{number}</x>")
    where = Path(__file__).parents[2]
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path)],
            cwd=where,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(where)},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        time.sleep(chance.uniform(0.1, 0.7))
        process.kill()
        process.wait()
        process.stdout.close()
        acquiring.check_proved()
    acquiring.run_until_settled()
    assert set(acquiring.states().values()) == {"proved"}
    assert acquiring.copies() == {path.name: path.read_bytes() for path in acquiring.source.iterdir()}
    assert {row.state for row in acquiring.exposures().values()} == {"complete"}
    assert not list(acquiring.root.rglob(".vitriflow-*"))
    assert [row.generation for row in acquiring.rows()] == [1] * 52
    acquiring.check_proved()
    acquiring.catalog.close()
