"""The step that joins picks."""

from pathlib import Path

import numpy as np
import pytest

from vitriflow.formats import read_coordinates, write_coordinates
from vitriflow.steps import Artifact, Context, Kind, PickConsensusResult, Status, find_step, run_step

TRUE = [(100.0, 100.0), (300.0, 200.0), (500.0, 400.0)]


def consensus(
    tmp_path: Path, *pickers: list[tuple[float, float]] | None, **parameters: object
) -> PickConsensusResult:
    step = find_step("pick.consensus")
    inputs = {}
    for number, picks in enumerate(pickers, 1):
        if picks is None:
            continue
        path = tmp_path / f"{number}.star"
        yx = np.array(picks, dtype=float).reshape(-1, 2)
        write_coordinates(path, yx, np.linspace(0.5, 1.0, len(yx)))
        inputs[f"picks_{number}"] = Artifact(kind=Kind.COORDINATES, path=path)
    values = {"particle_diameter_A": 100.0, "pixel_size_A": 2.0, **parameters}
    record = run_step(step, inputs, step.Parameters.model_validate(values), Context(tmp_path / "out", "m"))
    assert isinstance(record, PickConsensusResult)
    return record


def test_what_two_of_three_share_counts_and_the_rest_stays_a_candidate(tmp_path: Path) -> None:
    record = consensus(tmp_path, TRUE, [(104.0, 98.0), (900.0, 900.0)], [(302.0, 200.0)])
    assert record.status is Status.DONE
    assert (record.n_picks, record.n_candidates, record.votes) == (2, 4, [2, 2, 0])
    yx, _ = read_coordinates(record.outputs["coordinates"].path)
    assert sorted(yx.tolist()) == [[102.0, 99.0], [301.0, 200.0]]


def test_a_picker_that_failed_has_no_vote_and_one_that_found_nothing_has(tmp_path: Path) -> None:
    failed = consensus(tmp_path, TRUE, None)
    assert (failed.n_picks, failed.needed_votes) == (3, 1)
    assert any("votes were enough" in text for text in failed.warnings)
    empty = consensus(tmp_path, TRUE, [])
    assert (empty.n_picks, empty.needed_votes, empty.status) == (0, 2, Status.DONE)
    yx, _ = read_coordinates(empty.outputs["coordinates"].path)
    assert len(yx) == 0


def test_scores_decide_where_asked(tmp_path: Path) -> None:
    record = consensus(tmp_path, TRUE, TRUE[1:], mode="score", min_score=0.45)
    assert record.n_picks == 2
    heavy = consensus(tmp_path, TRUE, TRUE[1:], mode="score", min_score=0.1, weights=(1.0, 0.0))
    assert heavy.n_picks == 3


def test_all_pickers_failing_is_told(tmp_path: Path) -> None:
    record = consensus(tmp_path, None, None)
    assert record.status is Status.QUARANTINED
    assert "all pickers failed" in (record.reason or "")


def test_without_a_pixel_size_it_says_where_to_get_one(tmp_path: Path) -> None:
    record = consensus(tmp_path, TRUE, pixel_size_A=None)
    assert record.status is Status.QUARANTINED
    assert "Wire the micrograph" in (record.reason or "")


@pytest.mark.parametrize("weights", [(1.0,), (0.0, 0.0), (-1.0, 2.0)])
def test_weights_that_cannot_be_are_refused(tmp_path: Path, weights: tuple[float, ...]) -> None:
    record = consensus(tmp_path, TRUE, TRUE, mode="score", weights=weights)
    assert record.status is Status.QUARANTINED
