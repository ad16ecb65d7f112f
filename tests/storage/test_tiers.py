"""Archive tiers: copies are plain, proved, go on after an interruption, and never half there."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.jobs import NAMES, flip, job_in, quiet
from vitriflow.config import TierSection
from vitriflow.errors import BadConfig
from vitriflow.storage import (
    ArchiveError,
    PastCache,
    Tier,
    hash_past_cache,
    open_tier,
    parse_sums,
    sums_text,
    tier_kinds,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "session"


@pytest.fixture(params=["tar", "many tars", "files"])
def tier(request: pytest.FixtureRequest, tmp_path: Path) -> Tier:
    (tmp_path / "archive").mkdir()
    more: dict[str, Any] = {"format": "files"} if request.param == "files" else {}
    if request.param == "many tars":
        more = {"volume_bytes": 100_000}
    section = TierSection.model_validate({"path": str(tmp_path / "archive"), **more})
    return open_tier("safe", section)


def test_a_copy_is_read_without_vitriflow(tier: Tier, root: Path, tmp_path: Path) -> None:
    made = tier.write(job_in(root), quiet)
    copy = Path(made.location)
    assert copy == tmp_path / "archive" / "202611/e1_tem1/apo/s1/copy-0001"
    out = tmp_path / "out"
    shutil.copytree(copy, out)
    parts = sorted(out.glob("part-*.tar"))
    for part in parts:
        subprocess.run(["tar", "xf", part.name], cwd=out, check=True)
    assert (len(parts) > 1) == (tier.options.volume_bytes == 100_000 and tier.options.format == "tar")
    for name in NAMES:
        assert (out / name).read_bytes() == (root / name).read_bytes()
    program = shutil.which("b3sum")
    if program is not None:  # listed in scripts/install-services.sh
        done = subprocess.run(
            [program, "--check", "BLAKE3SUMS"], cwd=out, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("OK") == len(NAMES)
    assert "tar xf" in (out / "README.txt").read_text() or not parts
    assert (out / "session.json").is_file()
    assert (out / "manifest.jsonl").is_file()


def test_what_comes_back_is_what_went(tier: Tier, root: Path, tmp_path: Path) -> None:
    job = job_in(root)
    before = {name: ((root / name).read_bytes(), int((root / name).stat().st_mtime)) for name in NAMES}
    made = tier.write(job, quiet)
    tier.vacate(root, job.files, quiet)
    assert not (root / "raw").exists() or not list((root / "raw").rglob("*"))
    tier.recall(made.location, root, job.files, quiet)
    after = {name: ((root / name).read_bytes(), int((root / name).stat().st_mtime)) for name in NAMES}
    assert after == before
    assert not list(root.rglob(".recalling-*"))


def test_a_file_that_changed_after_it_was_proved_is_not_archived(tier: Tier, root: Path) -> None:
    job = job_in(root)
    data = bytearray((root / NAMES[2]).read_bytes())
    data[7] ^= 1
    (root / NAMES[2]).write_bytes(data)
    with pytest.raises(ArchiveError, match=r"b\.tiff.*as was proved"):
        tier.write(job, quiet)
    assert finals(tier) == []


def finals(tier: Tier) -> list[Path]:
    """Copies under their final names."""
    return [path for path in Path(tier.options.path).rglob("copy-*") if not path.name.startswith(".")]


class KilledError(BaseException):
    """As if the process had died here."""


@pytest.mark.parametrize("after", [1, 2, 5, 8])
def test_a_copy_that_was_interrupted_goes_on_and_is_never_half_there(
    tier: Tier, root: Path, after: int
) -> None:
    job = job_in(root)
    calls = 0

    def die(what: str, more: int) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            raise KilledError

    with pytest.raises(KilledError):
        tier.write(job, die)
    assert finals(tier) == []
    made = tier.write(job, quiet)
    tier.verify(made.location, root, job.files, quiet)
    assert not list(Path(made.location).rglob(".writing-*"))
    again = tier.write(job, quiet)  # as after a kill between the rename and the catalog
    assert again.location == made.location


def test_files_that_came_after_an_interruption_wait_for_the_next_copy(tier: Tier, root: Path) -> None:
    job = job_in(root, NAMES[:2])

    def die(what: str, more: int) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        tier.write(job, die)
    made = tier.write(job_in(root), quiet)
    assert [file.path for file in made.files] == list(NAMES[:2])


def volumes(location: str) -> list[Path]:
    return sorted(Path(location).glob("part-*.tar")) or [Path(location) / NAMES[2]]


def test_a_flipped_byte_in_the_archive_is_found_and_nothing_of_it_is_recalled(tier: Tier, root: Path) -> None:
    job = job_in(root)
    made = tier.write(job, quiet)
    flip(volumes(made.location)[0], 2000)
    with pytest.raises(ArchiveError):
        tier.verify(made.location, root, job.files, quiet)
    tier.vacate(root, job.files, quiet)
    with pytest.raises(ArchiveError):
        tier.recall(made.location, root, job.files, quiet)
    known = {file.path: file.blake3 for file in job.files}
    for name in NAMES:  # whatever did come back is right
        if (root / name).exists():
            assert blake3((root / name).read_bytes()).hexdigest() == known[name]
    assert not list(root.rglob(".recalling-*"))


def test_a_truncated_archive_is_found_at_a_look(tier: Tier, root: Path) -> None:
    job = job_in(root)
    made = tier.write(job, quiet)
    volume = volumes(made.location)[-1]
    volume.chmod(0o640)
    os.truncate(volume, 100)
    with pytest.raises(ArchiveError):
        tier.verify(made.location, root, job.files, quiet)
    volume.unlink()
    with pytest.raises(ArchiveError):
        tier.verify(made.location, root, job.files, quiet)


def test_a_recall_goes_on_and_never_overwrites_other_bytes(tier: Tier, root: Path) -> None:
    job = job_in(root)
    made = tier.write(job, quiet)
    tier.vacate(root, job.files, quiet)
    calls = 0

    def die(what: str, more: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KilledError

    with pytest.raises(KilledError):
        tier.recall(made.location, root, job.files, die)
    (root / NAMES[2]).unlink(missing_ok=True)
    (root / NAMES[2]).parent.mkdir(parents=True, exist_ok=True)
    (root / NAMES[2]).write_bytes(b"mine")
    with pytest.raises(ArchiveError, match="Move it away"):
        tier.recall(made.location, root, job.files, quiet)
    assert (root / NAMES[2]).read_bytes() == b"mine"
    (root / NAMES[2]).unlink()
    tier.recall(made.location, root, job.files, quiet)
    assert all(hash_past_cache(root / file.path) == file.blake3 for file in job.files)


def test_a_write_that_the_disk_spoilt_is_found_and_written_again(
    tier: Tier, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_in(root)
    real = type(tier)._prove  # type: ignore[attr-defined]

    def spoil(self: Any, folder: Path, files: Any, progress: Any) -> None:
        monkeypatch.undo()
        flip(volumes(str(folder))[0], 2000)
        real(self, folder, files, progress)

    monkeypatch.setattr(type(tier), "_prove", spoil)
    with pytest.raises(ArchiveError):
        tier.write(job, quiet)
    assert finals(tier) == []
    tier.write(job, quiet)
    assert len(finals(tier)) == 1


def test_an_archive_that_is_not_mounted_is_said_not_made(root: Path, tmp_path: Path) -> None:
    tier = open_tier("safe", TierSection.model_validate({"path": str(tmp_path / "mnt" / "archive")}))
    with pytest.raises(ArchiveError, match="Mount the archive"):
        tier.write(job_in(root), quiet)
    assert not (tmp_path / "mnt").exists()


# -- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "cassette"}, "one of directory, hsm"),
        ({"kind": "directory"}, r"path.*Known here: path, format"),
        ({"kind": "directory", "path": "/a", "colour": "red"}, "colour"),
        ({"kind": "directory", "path": "/a", "format": "zip"}, "format"),
        ({"kind": "hsm", "migrate": ["dsmmigrate"]}, r"\{files\}"),
        ({"kind": "hsm", "migrate": "dsmmigrate {files}"}, "migrate"),
        ({"kind": "hsm", "state_line": "(unclosed"}, "regular expression"),
        ({"kind": "hsm", "state_line": "no groups"}, "groups"),
        ({"kind": "hsm", "states": {"r": "somewhere"}}, "states"),
        ({"kind": "hsm", "low_water": 90}, "low_water below high_water"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_known(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        open_tier("t", TierSection.model_validate(settings))


def test_a_kind_can_come_from_a_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    known = tier_kinds()

    class Point:
        name = "cloud"

        @staticmethod
        def load() -> type[Tier]:
            return known["directory"]

    assert set(known) == {"directory", "hsm"}
    monkeypatch.setattr("vitriflow.storage.tiers.entry_points", lambda group: [Point()])
    assert "cloud" in tier_kinds()
    assert open_tier("t", TierSection.model_validate({"kind": "cloud", "path": "/a"})).name == "t"


# -- lists, and reading past the cache --------------------------------------------------------


@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
        st.just("ab" * 32),
    )
)
def test_lists_hold_any_name(hashes: dict[str, str]) -> None:
    assert parse_sums(sums_text(hashes)) == hashes


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 4 * 1024**2, 4 * 1024**2 + 3])
def test_reading_past_the_cache_gives_all_bytes(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    with PastCache(path) as stream:
        assert stream.readall() == data
        assert stream.method in ("O_DIRECT", "fadvise")
    assert hash_past_cache(path) == blake3(data).hexdigest()
