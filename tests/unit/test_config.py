from pathlib import Path

import pytest

from vitriflow.config import Config, example_config, load_config
from vitriflow.errors import BadConfig


def _write(folder: Path, text: str) -> Path:
    path = folder / "facility.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_example_loads_and_gives_the_defaults(tmp_path: Path) -> None:
    config = load_config(_write(tmp_path, example_config()))
    assert config.acquisition == Config().acquisition
    assert config.compute == Config().compute
    assert config.storage.root == tmp_path / "vitriflow-data"
    assert config.catalog_url == f"sqlite:///{tmp_path}/vitriflow-data/catalog.db"
    assert list(config.microscopes) == ["tem1"]


def test_every_commented_line_of_the_example_is_a_valid_setting(tmp_path: Path) -> None:
    lines = [
        line[2:] if line.startswith("# ") and (" = " in line or line.startswith("# [")) else line
        for line in example_config().splitlines()
    ]
    config = load_config(_write(tmp_path, "\n".join(lines)))
    assert config.microscopes["tem1"].pixel_size_A == 0.83
    assert config.microscopes["tem1"].gain_reference == tmp_path / "gain.mrc"
    assert config.processing.parameters["particle_diameter_A"] == 150.0


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[web]\nport = 99999\n", 2, "65535"),
        ("[web]\n\nprot = 80\n", 3, "Known here: host, port"),
        ("[compute]\nworkers = 'two'\n", 2, "integer"),
        ("[microscopes.tem1]\nvoltage_kV = -300\n", 2, "greater than 0"),
        ("[microscopes.'../evil']\nvoltage_kV = 300\n", 1, "letters, digits"),
        ("[telescope]\n", 1, "Known here: facility, storage"),
    ],
)
def test_a_bad_value_is_named_with_its_line_and_a_remedy(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    with pytest.raises(BadConfig) as caught:
        load_config(_write(tmp_path, text))
    assert words in str(caught.value)
    if "evil" not in text:
        assert f"line {line}" in str(caught.value)


def test_broken_toml_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="line 2"):
        load_config(_write(tmp_path, "[web]\nport = \n"))


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="vitriflow init"):
        load_config(tmp_path / "nowhere.toml")


def test_cores_are_shared_out_over_workers() -> None:
    assert Config().compute.resolved(2) == (1, 2)
    assert Config().compute.resolved(1) == (1, 1)
    assert Config().compute.resolved(16) == (8, 2)
