"""What archives are tried with: a session's files with odd names, and damage."""

from pathlib import Path

from blake3 import blake3

from vitriflow.storage import ArchiveFile, ArchiveJob

NAMES = (
    "raw/Grid Square 1/Data/a_Fractions.mrc",
    "raw/Grid Square 1/Data/naïve 電子.xml",
    "raw/b.tiff",
    "raw/odd\\name\nin two lines.txt",
    "raw/empty.txt",
)


def job_in(root: Path, names: tuple[str, ...] = NAMES) -> ArchiveJob:
    files = []
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = b"" if "empty" in name else name.encode() * 3000
        path.write_bytes(data)
        files.append(ArchiveFile(name, len(data), blake3(data).hexdigest()))
    records = {"session.json": b'{"session": "s1"}\n', "manifest.jsonl": b"{}\n"}
    return ArchiveJob(root, "202611/e1_tem1/apo/s1", "copy-0001", files, records)


def quiet(what: str, more: int) -> None:
    assert what
    assert more >= 0


def flip(path: Path, position: int) -> None:
    """Turn one bit of a file."""
    path.chmod(0o640)
    with path.open("r+b") as stream:
        stream.seek(position)
        byte = stream.read(1)
        stream.seek(position)
        stream.write(bytes([byte[0] ^ 1]))
