"""The offline bundle's script, on a small project: it installs with no index, and refuses what isn't whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "tinyflow"
version = "1.5"
"""
# A whole build backend, so that nothing has to be fetched to make a wheel
BACKEND = """\
import zipfile
NAME = "tinyflow-1.5-py3-none-any.whl"
INFO = "tinyflow-1.5.dist-info"
FILES = {
    "tinyflow.py": "def main():\\n    print('tinyflow 1.5')\\n",
    INFO + "/METADATA": "Metadata-Version: 2.1\\nName: tinyflow\\nVersion: 1.5\\n",
    INFO + "/WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    INFO + "/entry_points.txt": "[console_scripts]\\ntinyflow = tinyflow:main\\n",
}
def build_wheel(folder, config_settings=None, metadata_directory=None):
    record = "".join(name + ",,\\n" for name in FILES) + INFO + "/RECORD,,\\n"
    with zipfile.ZipFile(folder + "/" + NAME, "w") as wheel:
        for name, text in {**FILES, INFO + "/RECORD": record}.items():
            wheel.writestr(name, text)
    return NAME
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    (folder / "project").mkdir()
    (folder / "project" / "pyproject.toml").write_text(PROJECT)
    (folder / "project" / "backend.py").write_text(BACKEND)
    (folder / "constraints.txt").write_text("tinyflow==1.5\n")
    out = folder / "dist" / "my bundle"
    words = ["--out", str(out), "--project", str(folder / "project")]
    _run(
        sys.executable,
        "scripts/bundle.py",
        *words,
        "--constraints",
        str(folder / "constraints.txt"),
        "--wanted",
        "tinyflow",
    )
    return out


def _run(*words: str, code: int = 0, cwd: Path = REPOSITORY) -> str:
    env = {**os.environ, "PIP_NO_INDEX": "1"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=cwd, env=env, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_it_installs_where_there_is_no_registry(bundle: Path) -> None:
    said = _run(sys.executable, "scripts/bundle.py", "--check", "--out", str(bundle), "--wanted", "tinyflow")
    assert "tinyflow 1.5" in said
    assert "installs without any registry" in said


def test_a_file_that_was_changed_on_the_way_is_refused(bundle: Path, tmp_path: Path) -> None:
    _run("cp", "-r", str(bundle), str(tmp_path / "copy"))
    wheel = next((tmp_path / "copy" / "wheels").glob("*.whl"))
    wheel.write_bytes(wheel.read_bytes() + b"x")
    said = _run("sh", str(tmp_path / "copy" / "install.sh"), str(tmp_path / "env"), sys.executable, code=2)
    assert "copy it again" in said
    assert not (tmp_path / "env").exists()


def test_a_python_that_it_was_not_made_for_is_refused(bundle: Path, tmp_path: Path) -> None:
    _run("cp", "-r", str(bundle), str(tmp_path / "copy"))
    (tmp_path / "copy" / "PYTHON").write_text("2.7 Linux x86_64\n")
    sums = tmp_path / "copy" / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "PYTHON" not in line))
    said = _run("sh", str(tmp_path / "copy" / "install.sh"), str(tmp_path / "env"), sys.executable, code=2)
    assert "for Python 2.7" in said
    assert not (tmp_path / "env").exists()


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    said = _run(sys.executable, "scripts/bundle.py", "--out", str(tmp_path / "mine"), code=1)
    assert "is no bundle" in said
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
