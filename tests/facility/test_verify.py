"""``vitriflow verify``: whatever isn't as the manifest says is named."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.facility.acquiring import Acquiring, frames, write_movie
from tests.facility.command import House
from tests.facility.conftest import Played
from vitriflow.catalog import SourceFile
from vitriflow.errors import BadParameter, VitriflowError
from vitriflow.facility.verify import VerifyReport, verify_session


@pytest.fixture
def acquiring(tmp_path: Path) -> Iterator[Acquiring]:
    made = Acquiring(tmp_path)
    write_movie(made.source / "m.mrc", frames())
    for name in ("a.xml", "two\nlines.txt", "Atlas/ψ.jpg"):
        (made.source / name).parent.mkdir(exist_ok=True)
        (made.source / name).write_text(name * 50)
    made.run_until_settled()
    yield made
    made.catalog.close()


def verify(acquiring: Acquiring, *, quick: bool = False) -> VerifyReport:
    return verify_session(acquiring.catalog, "s1", quick=quick)


def found(report: VerifyReport) -> list[tuple[str, str]]:
    return [(finding.path, finding.what) for finding in report.findings]


def test_a_session_that_is_as_it_was_is_good_and_that_is_noted(acquiring: Acquiring) -> None:
    report = verify(acquiring)
    assert report.is_good
    assert (report.files, report.proved, report.waiting) == (4, 4, 0)
    assert set(report.methods) <= {"O_DIRECT", "fadvise"}
    assert any("all 4 files" in text for text in acquiring.events())


def test_every_byte_that_flipped_is_found_and_named(acquiring: Acquiring) -> None:
    path = acquiring.root / "raw" / "m.mrc"
    for place in (0, 5000, path.stat().st_size - 1):
        whole = path.read_bytes()
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
        assert found(verify(acquiring)) == [("raw/m.mrc", "changed")]
        assert verify(acquiring, quick=True).is_good  # sizes and names can't tell
        path.write_bytes(whole)
    assert verify(acquiring).is_good
    assert any("raw/m.mrc (changed)" in text for text in acquiring.events())


def test_missing_cut_short_and_extra_files_are_named(acquiring: Acquiring) -> None:
    raw = acquiring.root / "raw"
    (raw / "a.xml").unlink()
    (raw / "two\nlines.txt").write_text("short")
    (raw / "put here by somebody").write_text("x")
    expected = [
        ("raw/a.xml", "missing"),
        ("raw/put here by somebody", "extra"),
        ("raw/two\nlines.txt", "changed"),
    ]
    assert found(verify(acquiring)) == expected
    assert found(verify(acquiring, quick=True)) == expected
    assert not verify(acquiring).is_good


def test_a_manifest_that_lost_lines_or_is_gone_is_told(acquiring: Acquiring) -> None:
    manifest = acquiring.root / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(line for line in lines if b"a.xml" not in line))
    assert ("raw/a.xml", "unlisted") in found(verify(acquiring))
    manifest.write_bytes(b"{}\n" + b"".join(lines))
    with pytest.raises(VitriflowError, match="line 1"):
        verify(acquiring)
    manifest.unlink()
    with pytest.raises(BadParameter, match="manifest"):
        verify(acquiring)


def test_a_catalog_and_a_manifest_that_disagree_are_told(acquiring: Acquiring) -> None:
    def forge(orm: object) -> None:
        row = orm.get(SourceFile, acquiring.newest()["a.xml"].id)  # type: ignore[attr-defined]
        row.blake3 = "0" * 64

    acquiring.catalog.write(forge)
    assert found(verify(acquiring)) == [("raw/a.xml", "changed")]


def test_files_in_place_are_verified_where_they_are(tmp_path: Path) -> None:
    acquiring = Acquiring(tmp_path, mode="in_place")
    (acquiring.source / "a.txt").write_text("one")
    acquiring.run_until_settled()
    assert verify(acquiring).is_good
    (acquiring.source / "a.txt").write_text("two")
    assert found(verify(acquiring)) == [("raw/a.txt", "changed")]
    acquiring.catalog.close()


@pytest.mark.skipif(shutil.which("b3sum") is None, reason="b3sum isn't installed here")
def test_b3sum_reads_the_sums_beside_the_manifest(acquiring: Acquiring) -> None:
    command = ["b3sum", "--check", "manifest.b3"]
    done = subprocess.run(command, cwd=acquiring.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == 4


@pytest.mark.slow
def test_a_session_is_copied_processed_and_verified_by_commands(
    house: House, six: Played, copied: Callable[[int], Played]
) -> None:
    """What a newcomer types; the microscope's folder is gone in the end, and all is still there."""
    source, light = copied(2).source, six.light
    number = len([path for path in source.rglob("*") if path.is_file()])
    house.vitriflow("run", source, "--copy", "--once", "--session", "s1", *light)
    counts = house.counts()
    assert counts.exposures.done == counts.exposures.came_in == 2
    root = Path(house.session().root)
    assert (root / "raw").is_dir()
    assert not (root / "raw").is_symlink()
    for row in house.exposures().values():
        assert row.path.startswith(str(root / "raw"))
        assert row.proved_at is not None
    shutil.rmtree(source)
    report = house.json("verify", "s1")
    assert report["good"]
    assert report["files"] == number
    victim = next((root / "raw").rglob("*.mrc"))
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    done = house.vitriflow("verify", "s1", expect=1)
    assert str(victim.relative_to(root)) in done.stdout
    refused = house.vitriflow("run", six.source, "--session", "s1", "--copy", "--once", *light, expect=2)
    assert "s1" in refused.stderr
