"""The manifest: added to only, synced, and right again after any interruption."""

import shutil
import subprocess
from pathlib import Path

import orjson
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitriflow.errors import VitriflowError
from vitriflow.storage import Manifest, ManifestLine, newest_lines, read_manifest

AT = "2026-11-21T05:00:00.000+00:00"


def line(path: str, data: bytes = b"x", **more: object) -> ManifestLine:
    values = {"size": len(data), "blake3": blake3(data).hexdigest(), "proved_at": AT}
    return ManifestLine(path=path, **{**values, **more})  # type: ignore[arg-type]


def test_lines_are_one_json_object_each_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    lines = [line("raw/a.mrc", source="a.mrc", kind="movie"), line("raw/ψ\n\\.xml", b"y")]
    Manifest(path).append(lines)
    assert list(read_manifest(path)) == lines
    first = orjson.loads(path.read_bytes().splitlines()[0])
    assert first["path"] == "raw/a.mrc"
    assert first["blake3"] == blake3(b"x").hexdigest()
    assert path.stat().st_mode & 0o007 == 0


def test_the_same_line_isnt_repeated_and_another_hash_is_added(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    Manifest(path).append([line("raw/a")])
    Manifest(path).append([line("raw/a"), line("raw/b")])
    Manifest(path).append([line("raw/a", b"other")])
    assert [found.path for found in read_manifest(path)] == ["raw/a", "raw/b", "raw/a"]
    assert newest_lines(path)["raw/a"] == line("raw/a", b"other")
    sums = path.with_suffix(".b3").read_text().splitlines()
    assert sorted(sums) == sorted(
        f"{blake3(data).hexdigest()}  {name}" for name, data in (("raw/a", b"other"), ("raw/b", b"x"))
    )


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(cut=st.integers(0, 700))
def test_a_manifest_cut_at_any_byte_keeps_its_whole_lines_and_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "manifest.jsonl"
    path.unlink(missing_ok=True)
    lines = [line("raw/a"), line("raw/b" * 20), line("raw/c")]
    Manifest(path).append(lines)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    assert list(read_manifest(path)) == lines[:kept]
    manifest = Manifest(path)
    assert manifest.repaired == len(whole[:cut]) - len(b"".join(whole.splitlines(keepends=True)[:kept]))
    manifest.append(lines)
    assert newest_lines(path) == {found.path: found for found in lines}
    assert path.read_bytes() == whole


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    record = {"path": "raw/a", "size": 1, "blake3": "00", "proved_at": AT, "colour": "blue"}
    path.write_bytes(orjson.dumps(record) + b"\n")
    assert newest_lines(path)["raw/a"].size == 1


def test_a_line_that_cant_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    Manifest(path).append([line("raw/a"), line("raw/b")])
    path.write_bytes(path.read_bytes().replace(b'{"path":"raw/b"', b'{"pat":"raw/b"'))
    with pytest.raises(VitriflowError, match=r"line 2; .* a JSON object with path"):
        list(read_manifest(path))


@pytest.mark.skipif(shutil.which("b3sum") is None, reason="b3sum isn't installed here")
def test_b3sum_accepts_names_with_newlines_and_backslashes(tmp_path: Path) -> None:
    lines = []
    for name in ("a.txt", "two\nlines", "back\\slash", "ψ"):
        (tmp_path / name).write_bytes(name.encode())
        lines.append(line(name, name.encode()))
    Manifest(tmp_path / "manifest.jsonl").append(lines)
    command = ["b3sum", "--check", "manifest.b3"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
