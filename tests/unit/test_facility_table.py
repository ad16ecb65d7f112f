from pathlib import Path

import pytest
from pydantic import Field

from vitriflow.config import load_config
from vitriflow.errors import BadConfig
from vitriflow.steps import StepParameters, facility_values, with_metadata

TEXT = """\
[microscopes.tem1]
voltage_kV = 300
spherical_aberration_mm = 2.7
sources = ["share/k3"]
drives = { "X:" = "share/k3" }

[microscopes.tem1.cameras.k3]
names = ["EF-CCD", "K3"]
pixel_sizes_A = { 81000 = 1.06, 105000 = 0.83 }
gain_folder = "share/k3/gains"

[microscopes.tem1.cameras.falcon]
names = ["Falcon"]
pixel_sizes_A = { 81000 = 1.5 }

[microscopes.tem2]
pixel_size_A = 2.0
cameras.k2.pixel_sizes_A = { 36000 = 1.15 }
"""


class Parameters(StepParameters):
    pixel_size_A: float | None = Field(default=None, gt=0, description="pixel size (A)")
    voltage_kV: float = Field(default=300.0, gt=0, description="voltage (kV)")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "facility.toml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_a_microscope_is_a_few_lines_and_its_folders_are_below_the_file(config: Path) -> None:
    scope = load_config(config).microscopes["tem1"]
    assert scope.sources == (config.parent / "share/k3",)
    assert scope.drives == {"X:": config.parent / "share/k3"}
    assert scope.cameras["k3"].gain_folder == config.parent / "share/k3/gains"
    assert scope.transfer == "copy"
    assert load_config(config).microscopes["tem2"].transfer == "in_place"


@pytest.mark.parametrize(
    ("metadata", "size"),
    [
        ({"camera": "EF-CCD", "nominal_magnification": 81000.0, "pixel_size_A": 1.1}, 1.06),
        ({"camera": "BM-Falcon", "nominal_magnification": 81000.0}, 1.5),
        (
            {"camera": "EF-CCD", "nominal_magnification": 81000.0, "pixel_size_A": 0.55},
            0.53,
        ),  # super-resolution
        ({"camera": "EF-CCD", "nominal_magnification": 105000, "pixel_size_A": 1.66}, 1.66),  # binned by 2
        ({"camera": "EF-CCD", "nominal_magnification": 105000, "pixel_size_A": 5.0}, 0.83),  # nonsense
        ({"camera": "EF-CCD", "nominal_magnification": 64000}, None),
        ({"camera": "Ceta", "nominal_magnification": 81000.0}, None),
        ({"nominal_magnification": 81000.0}, None),  # which camera?
    ],
)
def test_the_calibrated_pixel_size_goes_by_camera_and_magnification(
    config: Path, metadata: dict[str, object], size: float | None
) -> None:
    table = load_config(config).microscopes["tem1"].table()
    found = facility_values(table, metadata)
    assert found.get("pixel_size_A") == (pytest.approx(size) if size else None)
    assert found["voltage_kV"] == 300.0


def test_the_only_camera_needs_no_name_and_the_microscopes_own_size_is_for_the_rest(config: Path) -> None:
    table = load_config(config).microscopes["tem2"].table()
    assert facility_values(table, {"nominal_magnification": 36000, "camera": "?"})["pixel_size_A"] == 1.15
    assert facility_values(table, {"nominal_magnification": 22500})["pixel_size_A"] == 2.0


def test_the_facilitys_table_overrules_the_file_and_the_operator_overrules_both(config: Path) -> None:
    metadata = {"pixel_size_A": 1.1, "facility": {"pixel_size_A": 1.06}}
    filled, sources, conflicts = with_metadata(Parameters(), metadata)
    assert filled.pixel_size_A == 1.06
    assert sources["pixel_size_A"] == "facility"
    assert "1.06 in the facility's table, but the microscope's file says 1.1" in conflicts[0]
    filled, sources, conflicts = with_metadata(Parameters(pixel_size_A=1.0), metadata)
    assert filled.pixel_size_A == 1.0
    assert sources["pixel_size_A"] == "set"
    assert len(conflicts) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[microscopes.tem1.cameras.k3]\npixel_sizes_A = { 81kx = 1.06 }\n", "a magnification in quotes"),
        ("[microscopes.tem1.cameras.k3]\npixel_sizes_A = { 81000 = 0.0 }\n", "between 0.05 and 100"),
        ("[microscopes.tem1]\ndrives = { X = '/mnt' }\n", "a drive such as 'X:'"),
        ("[microscopes.tem1]\nmode = 'move'\n", "copy"),
        ("[microscopes.tem1]\nsoftware = 'leginon'\n", "epu"),
        ("[microscopes.tem1.cameras.k3]\npixel_size = 1.0\n", "Known here: names, pixel_sizes_A"),
        ("[microscopes.tem1.limits]\nrate = 1.0\n", "Known here: copy_bytes_per_s"),
    ],
)
def test_a_microscope_that_cannot_be_so_is_refused_with_a_remedy(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "facility.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadConfig) as caught:
        load_config(path)
    assert words in str(caught.value)
