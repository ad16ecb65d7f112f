"""A hierarchical storage manager that isn't there: real programs that move files to a shelf and leave stubs.

A stub has its file's size and no bytes, as on a real one. ``calls`` holds every command line as it came in.
"""

import json
import sys
from pathlib import Path

PROGRAM = """#!{python} -ISE
import json, os, shutil, sys
from pathlib import Path

shelf = Path({shelf!r})
action, paths = Path(sys.argv[0]).name, sys.argv[1:]
with open(shelf / "calls.jsonl", "a") as log:
    log.write(json.dumps(sys.argv) + "\\n")
if (shelf / ("fail-" + action)).exists():
    sys.exit("ANS9999E the library is on fire")
if paths and paths[0].startswith("-filelist="):
    paths = Path(paths[0].removeprefix("-filelist=")).read_text().splitlines()
paths = [path for path in paths if not path.startswith("-")]


def kept(path):
    return shelf / os.path.abspath(path).strip("/").replace("/", "#")


def state(path):
    stub = Path(str(kept(path)) + ".stub").exists()
    return "m" if stub else "p" if kept(path).exists() else "r"


for path in paths:
    before = os.stat(path)
    if action in ("dsmmigrate", "dsmpremigrate") and state(path) != "m":
        shutil.copyfile(path, kept(path))
        if action == "dsmmigrate":
            with open(path, "wb") as stream:
                stream.truncate(before.st_size)
            Path(str(kept(path)) + ".stub").touch()
    elif action == "dsmrecall" and state(path) == "m":
        shutil.copyfile(kept(path), path)
        Path(str(kept(path)) + ".stub").unlink()
    elif action == "dsmls":
        resident = 0 if state(path) == "m" else before.st_size
        sizes = f"{{before.st_size:12}} {{resident:12}} {{resident // 1024:8}}"
        print(f"{{sizes}}   {{state(path)}}   {{os.path.basename(path)}}")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
"""


class Library:
    """The programs, and the shelf they move files to."""

    def __init__(self, folder: Path) -> None:
        self.shelf = folder / "shelf"
        self.shelf.mkdir(parents=True)
        self.programs = folder / "bin"
        self.programs.mkdir()
        for name in ("dsmmigrate", "dsmpremigrate", "dsmrecall", "dsmls"):
            program = self.programs / name
            program.write_text(PROGRAM.format(python=sys.executable, shelf=str(self.shelf)))
            program.chmod(0o755)

    def command(self, name: str, *arguments: str) -> list[str]:
        return [str(self.programs / name), *(arguments or ("{files}",))]

    @property
    def settings(self) -> dict[str, object]:
        """What facility.toml says of it."""
        return {
            "kind": "hsm",
            "migrate": self.command("dsmmigrate"),
            "recall": self.command("dsmrecall"),
            "state": self.command("dsmls"),
        }

    @property
    def calls(self) -> list[list[str]]:
        """Command lines so far: the program's name, then its arguments."""
        log = self.shelf / "calls.jsonl"
        if not log.exists():
            return []
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return [[Path(line[0]).name, *line[1:]] for line in lines]

    def tapes(self) -> list[Path]:
        """What stands on the shelf."""
        return sorted(path for path in self.shelf.glob("#*")) + sorted(
            path for path in self.shelf.iterdir() if "#" in path.name and path.suffix != ".stub"
        )

    def fail(self, name: str, on: bool = True) -> None:
        """Let a program fail."""
        mark = self.shelf / f"fail-{name}"
        mark.touch() if on else mark.unlink()
