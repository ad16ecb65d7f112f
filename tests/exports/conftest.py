"""A catalog with results in it, and RELION's programs run in the project made of it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.exports.factory import World

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def run_relion(relion: Path) -> Run:
    """Run one of RELION's programs in a folder; what it wrote comes back whatever happened."""

    def run(folder: Path, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(relion / program), *(str(argument) for argument in arguments)]
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=120, check=False, errors="replace"
        )

    return run
