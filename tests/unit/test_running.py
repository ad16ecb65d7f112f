"""run_step always comes back with a record."""

import errno
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from vitriflow.errors import BadImage, Reason
from vitriflow.steps import Artifact, Context, Kind, Port, Result, Status, Step, StepParameters, run_step


class Trouble(StepParameters):
    pass


class Troubled(Step[Trouble, Result]):
    name = "test.troubled"
    version = "1"
    summary = "Raises what it's told to"
    inputs = {"movie": Port(Kind.MOVIE, "anything")}
    outputs = {}
    Parameters = Trouble
    Record = Result

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def run(self, inputs: Mapping[str, Artifact], parameters: Trouble, context: Context) -> Result:
        context.say("started")
        if self.error is not None:
            raise self.error
        return Result()


def _run(error: BaseException | None, out: Path) -> Result:
    inputs = {"movie": Artifact(kind=Kind.MOVIE, path=out / "m.mrc")}
    return run_step(Troubled(error), inputs, Trouble(), Context(out=out, item="m"))


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BadImage(Reason.ALL_ZERO, "m.mrc", "counts", "only zeros"), Status.QUARANTINED, "image.all_zero"),
        (OSError(errno.ENOSPC, "No space left on device"), Status.FAILED, "disk.full"),
        (OSError(errno.EIO, "Input/output error"), Status.FAILED, "file.unreadable"),
        (MemoryError("16 GiB"), Status.FAILED, "worker.out_of_memory"),
        (ZeroDivisionError("division by zero"), Status.FAILED, "step.error"),
    ],
)
def test_trouble_becomes_a_record_with_a_code_and_a_sentence(
    error: BaseException, status: Status, code: str, tmp_path: Path
) -> None:
    record = _run(error, tmp_path)
    assert (record.status, record.reason_code) == (status, code)
    assert record.reason


def test_an_unexpected_error_leaves_its_traceback_in_the_log(tmp_path: Path) -> None:
    record = _run(ZeroDivisionError("x"), tmp_path)
    assert record.provenance is not None
    assert record.provenance.log[0] == "started"
    assert "ZeroDivisionError" in record.provenance.log[1]


def test_a_good_run_says_how_it_came_to_be(tmp_path: Path) -> None:
    record = _run(None, tmp_path)
    assert record.status == Status.DONE
    assert record.provenance is not None
    assert record.provenance.inputs["movie"].path == tmp_path / "m.mrc"
    assert record.provenance.started_at <= record.provenance.finished_at
    assert record.peak_memory_bytes > 10 * 1024**2
    assert Result.model_validate(record.model_dump(mode="json")) == record


def test_the_peak_of_one_run_is_not_that_of_the_run_before(tmp_path: Path) -> None:
    class Hungry(Troubled):
        def run(self, inputs: Mapping[str, Artifact], parameters: Trouble, context: Context) -> Result:
            np.ones(40_000_000).sum()
            return Result()

    inputs = {"movie": Artifact(kind=Kind.MOVIE, path=tmp_path / "m.mrc")}
    hungry = run_step(Hungry(), inputs, Trouble(), Context(out=tmp_path, item="m"))
    modest = _run(None, tmp_path)
    assert hungry.peak_memory_bytes - modest.peak_memory_bytes > 200 * 1024**2


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    context = Context(out=tmp_path, item="a b/m")
    with context.writing(".mrc") as temporary:
        temporary.write_text("half")
        assert not (tmp_path / "a b" / "m.mrc").exists()
    assert (tmp_path / "a b" / "m.mrc").read_text() == "half"
    with pytest.raises(RuntimeError), context.writing(".mrc") as temporary:
        temporary.write_text("broken")
        raise RuntimeError
    assert (tmp_path / "a b" / "m.mrc").read_text() == "half"
    assert [path.name for path in (tmp_path / "a b").iterdir()] == ["m.mrc"]
