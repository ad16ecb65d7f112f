import pytest
from pydantic import Field

from vitriflow.errors import BadParameter, ItemError
from vitriflow.steps import StepParameters, make_parameters, with_metadata


class Parameters(StepParameters):
    pixel_size_A: float | None = Field(default=None, gt=0, description="pixel size (A)")
    voltage_kV: float = Field(default=300.0, gt=0, description="voltage (kV)")
    patches_x: int = Field(default=5, description="patches")


def test_what_nobody_set_comes_from_the_file() -> None:
    filled, sources, conflicts = with_metadata(Parameters(), {"pixel_size_A": 0.83, "voltage_kV": 200.0})
    assert filled.model_dump() == {"pixel_size_A": 0.83, "voltage_kV": 200.0, "patches_x": 5}
    assert sources == {"pixel_size_A": "file", "voltage_kV": "file", "patches_x": "default"}
    assert conflicts == []


def test_what_was_set_wins_over_the_file_and_a_conflict_is_told() -> None:
    filled, sources, conflicts = with_metadata(
        Parameters(pixel_size_A=1.0, patches_x=3), {"pixel_size_A": 0.83, "voltage_kV": 200.0}
    )
    assert filled.model_dump() == {"pixel_size_A": 1.0, "voltage_kV": 200.0, "patches_x": 3}
    assert sources["pixel_size_A"] == "set"
    (conflict,) = conflicts
    assert "1" in conflict
    assert "0.83" in conflict


def test_a_small_difference_is_no_conflict() -> None:
    _, _, conflicts = with_metadata(Parameters(pixel_size_A=0.832), {"pixel_size_A": 0.83})
    assert conflicts == []


@pytest.mark.parametrize("said", [float("nan"), float("inf"), "0.83", None])
def test_nonsense_in_a_file_is_not_taken(said: object) -> None:
    filled, sources, _ = with_metadata(Parameters(), {"pixel_size_A": said})
    assert filled == Parameters()
    assert sources["pixel_size_A"] == "default"


def test_a_value_that_the_step_refuses_names_the_file_as_its_source() -> None:
    with pytest.raises(ItemError, match="voltage_kV in the microscope's file"):
        with_metadata(Parameters(), {"voltage_kV": -1.0})


def test_an_unknown_parameter_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadParameter, match=r"patches_x, pixel_size_A, voltage_kV"):
        make_parameters("motion.native", Parameters, {"patch_x": 3})


def test_a_bad_value_says_what_the_parameter_means() -> None:
    with pytest.raises(BadParameter, match=r"voltage \(kV\)") as caught:
        make_parameters("motion.native", Parameters, {"voltage_kV": "high"})
    assert "--set voltage_kV=VALUE" in str(caught.value)
