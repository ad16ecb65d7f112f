"""What gates and triggers cost an exposure, and how long a moved limit takes for a whole session.

A catalog is filled with exposures whose motion and CTF stand. They're judged by five gates and come to a
trigger, through the real coordinator's own transactions; then a limit is moved, so that a tenth of all
marks change, and back.

    python -m benchmarks.gates [--full]
"""

import argparse
import json
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from benchmarks.engine import _session
from vitriflow.catalog import Catalog, Exposure, Measure, ResultRow, Task, now, upgrade
from vitriflow.pipeline import Coordinator, Settings, ask_change, counts, parse_template, start_processing
from vitriflow.pipeline.revising import begin_next

FEW, MANY = 10_000, 50_000
GATED = """
name: gated
nodes:
  motion: {step: motion.native, inputs: {movie: exposure.movie}}
  ctf: {step: ctf.native, inputs: {power_spectrum: motion.power_spectrum}}
  still: {step: gate.max_shift, inputs: {motion: motion.motion, micrograph: motion.micrograph}, set: {max_path_A: 60}}
  even: {step: gate.dose, inputs: {motion: motion.motion, micrograph: still.micrograph}}
  sharp: {step: gate.ctf, inputs: {ctf: ctf.ctf, micrograph: even.micrograph}}
  clear: {step: gate.ice, inputs: {ctf: ctf.ctf, micrograph: sharp.micrograph}}
  own: {step: gate.custom, inputs: {micrograph: clear.micrograph, ctf: ctf.ctf}, set: {accept: 'total_A < 1000'}}
  flow: {step: trigger, inputs: {micrograph: own.micrograph}, set: {micrographs: 500}}
"""


def run(full: bool) -> tuple[str, dict[str, Any]]:
    """Measure, and give a Markdown section and the numbers."""
    count = MANY if full else FEW
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(f"sqlite:///{folder}/catalog.db")
        upgrade(catalog)
        session = _session(catalog, Path(folder))
        parameters = {"pixel_size_A": 1.0, "voltage_kV": 300.0}
        processing = start_processing(
            catalog, session, "p1", parse_template(GATED, "gated"), parameters, Path(folder) / "p1"
        )
        _fill(catalog, session, processing, count)
        judged_s = _judge(catalog, processing, count)
        moves = []
        for limit in (54.0, 60.0) * (3 if full else 1):
            ask_change(catalog, processing, {"still.max_path_A": limit})
            started = time.perf_counter()
            begin_next(catalog, processing, _no_fence)
            moves.append(time.perf_counter() - started)
            started = time.perf_counter()
            _settle(catalog, processing)
            moves.append(time.perf_counter() - started)
        found = counts(catalog, processing)
        assert found.reconciles
        catalog.close()
    numbers = {
        "exposures": count,
        "ms_an_exposure_for_5_gates_and_a_trigger": round(1e3 * judged_s / count, 3),
        "s_a_moved_limit_marks": [round(one, 3) for one in moves[::2]],
        "s_until_all_that_hangs_on_it_is_settled": [round(one, 3) for one in moves[1::2]],
    }
    marks = ", ".join(f"{one:.2f}" for one in moves[::2])
    text = (
        f"Five gates and a trigger cost {1e3 * judged_s / count:.2f} ms an exposure, the catalog's writes included. "
        f"A limit that changes a tenth of the marks of {count:,} exposures is through in {marks} s (there, back).\n"
    )
    return text, numbers


def _fill(catalog: Catalog, session: int, processing: int, count: int) -> None:
    """Exposures whose motion and fit are done, and whose gates wait."""
    dice = random.Random(1)
    for start in range(0, count, 1000):
        numbers = range(start + 1, min(start + 1000, count) + 1)

        def work(orm: Any, numbers: range = numbers) -> None:
            moment = now()
            key = {"processing_id": processing}
            item = {"item_type": "exposure", "revision": 1}
            orm.execute(
                insert(Exposure),
                [
                    {
                        "id": n, "session_id": session, "key": f"m{n}.mrc", "item": f"m{n}",
                        "path": f"/movies/m{n}.mrc", "state": "complete", "kind": "movie",
                        "first_seen_at": moment, "complete_at": moment, "details": {},
                    }
                    for n in numbers
                ],
            )  # fmt: skip
            orm.execute(
                insert(Measure),
                [{**key, "exposure_id": n, "status": "open", "complete_at": moment} for n in numbers],
            )
            tasks = []
            results = []
            for n in numbers:
                for node, record in (("motion", _motion(n, dice)), ("ctf", _ctf(n, dice))):
                    tasks.append({**key, **item, "node": node, "item_id": n, "state": "done", "attempts": 1})
                    results.append(
                        {
                            **key, **item, "node": node, "item_id": n,
                            "status": "done", "record": record, "created_at": moment,
                        }
                    )  # fmt: skip
                tasks += [
                    {**key, **item, "node": node, "item_id": n, "state": "waiting", "attempts": 0}
                    for node in ("still", "even", "sharp", "clear", "own", "flow")
                ]
            orm.execute(insert(Task), tasks)
            orm.execute(insert(ResultRow), results)

        catalog.write(work)


def _motion(n: int, dice: random.Random) -> dict[str, Any]:
    def file(kind: str) -> dict[str, Any]:
        return {
            "kind": kind,
            "path": f"/p1/MotionCorr/job002/m{n}.{kind}",
            "pixel_size_A": 1.0,
            "blake3": None,
        }

    shifts = [(0.1 * i, dice.random()) for i in range(40)]
    return {
        "step": "motion.native", "status": "done", "total_A": dice.uniform(0, 60), "early_A": 2.0, "late_A": 3.0,
        "net_A": 2.0, "mean_intensity": dice.gauss(10, 0.5), "frame_shifts_A": shifts, "n_frames": 40,
        "outputs": {kind: file(kind) for kind in ("micrograph", "motion", "power_spectrum")},
    }  # fmt: skip


def _ctf(n: int, dice: random.Random) -> dict[str, Any]:
    defocus = dice.uniform(8000, 25000)
    curves = [round(dice.random(), 4) for _ in range(300)]
    return {
        "step": "ctf.native", "status": "done", "defocus_u_A": defocus + 50, "defocus_v_A": defocus - 50,
        "astigmatism_A": 100.0, "fit_resolution_A": dice.uniform(3, 8), "phase_shift_deg": 0.0,
        "cross_correlation": 0.2, "ice_ring": dice.uniform(0.8, 1.2), "quality": "good",
        "curves": {"spectrum": curves, "fit": curves},
        "outputs": {"ctf": {"kind": "ctf", "path": f"/p1/CtfFind/job003/m{n}.ctf"}},
    }  # fmt: skip


def _judge(catalog: Catalog, processing: int, count: int) -> float:
    """Seconds in which all gates judge all exposures, in transactions like a coordinator's."""
    with ThreadPoolExecutor(1) as executor:
        coordinator = Coordinator(catalog, processing, executor, Settings())
        ledger = coordinator._ledger
        ledger.recover()
        started = time.perf_counter()
        for start in range(1, count + 1, 100):
            ledger.resettle(range(start, start + 100))
        return time.perf_counter() - started


def _no_fence(_orm: Any) -> None:
    """Nobody else has this catalog."""


def _settle(catalog: Catalog, processing: int) -> None:
    with ThreadPoolExecutor(1) as executor:
        Coordinator(catalog, processing, executor, Settings()).carry_out_changes()


def main() -> None:
    """Run by itself."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    text, numbers = run(parser.parse_args().full)
    print(text)
    print(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
