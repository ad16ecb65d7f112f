"""What all tests share: real data, real programs, and the rule that CI skips neither."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Tests run two at a time, and threads of numeric libraries that wait for each other spin: one each, before any
# of them is loaded. Programs that tests start have what their configuration says.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# The same examples every time, so that a change is judged by what it changed; 'make fuzz' draws new ones.
# A busy machine may be slow to draw them: that's no failure.
SLOW = [HealthCheck.too_slow]
settings.register_profile(
    "steady", derandomize=True, deadline=None, database=None, suppress_health_check=SLOW
)
settings.register_profile("fuzz", deadline=None, print_blob=True, suppress_health_check=SLOW)
settings.load_profile("fuzz" if os.environ.get("VITRIFLOW_FUZZ") == "1" else "steady")

# Files that take longest, longest first: 'make test' hands files out in this order, so that none of these is
# begun last while the other workers have nothing left to do.
LONGEST = (
    "airflow/test_airflow.py",
    "facility/test_trouble.py",
    "facility/test_service.py",
    "pipeline/test_faults.py",
    "benchmarks/test_runs.py",
    "facility/test_run.py",
    "web/test_day.py",
    "kernels/test_ctf_fit.py",
    "facility/test_killed.py",
    "facility/compute/test_parsl_pool.py",
    "facility/compute/test_clusters.py",
    "cli/test_simulator.py",
    "kernels/test_motion.py",
    "cli/test_step.py",
    "kernels/test_gain_diagnosis.py",
    "exports/test_orientation.py",
    "facility/test_custody_end_to_end.py",
    "web/test_browser.py",
    "facility/test_postgresql.py",
    "facility/test_real_micrographs.py",
    "facility/test_transfer.py",
    "kernels/test_pick.py",
    "facility/test_rebuild.py",
    "facility/test_bad_input.py",
    "facility/test_service_faults.py",
    "web/test_session_browser.py",
    "kernels/test_ctf_calibration.py",
    "kernels/test_ctf_tilt.py",
)

REPOSITORY = Path(__file__).resolve().parents[1]
STRICT = os.environ.get("VITRIFLOW_REQUIRE_SERVICES") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring files that take long to the front; nothing else changes its place."""
    places = {REPOSITORY / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


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
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)  # 5 s are too few for a busy machine
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
