"""What all tests share: real data, real programs, and the rule that CI skips neither."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples every time, so that a change is judged by what it changed; 'make fuzz' draws new ones.
settings.register_profile("steady", derandomize=True, deadline=None, database=None)
settings.register_profile("fuzz", deadline=None, print_blob=True)
settings.load_profile("fuzz" if os.environ.get("VITRIFLOW_FUZZ") == "1" else "steady")

REPOSITORY = Path(__file__).resolve().parents[1]
STRICT = os.environ.get("VITRIFLOW_REQUIRE_SERVICES") == "1"


def _unavailable(what: str, remedy: str) -> None:
    """Skip with a reason; where services are required (CI), fail instead."""
    if STRICT:
        pytest.fail(f"{what} is required here (VITRIFLOW_REQUIRE_SERVICES=1) and missing: {remedy}")
    pytest.skip(f"{what} is missing: {remedy}")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real data sets; its absence is an error in CI and a skip elsewhere."""
    named = os.environ.get("VITRIFLOW_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not (folder / "README.md").is_file():
        _unavailable("real data", "set VITRIFLOW_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a headless-capable Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        _unavailable("Chromium", "run 'make services' as root")
    assert path is not None
    return path


@pytest.fixture(scope="session")
def relion() -> Path:
    """Folder that holds RELION's programs."""
    path = shutil.which("relion_preprocess")
    if path is None:
        _unavailable("RELION", "run 'make services' as root")
    assert path is not None
    return Path(path).parent


@pytest.fixture(scope="session")
def postgres_bin() -> Path:
    """Folder that holds initdb and postgres."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    path = shutil.which("initdb")
    if not found and path is None:
        _unavailable("PostgreSQL", "run 'make services' as root")
    return found[-1].parent if found else Path(str(path)).parent
