"""Outside programs: which file is meant, which version it is, and how the facility starts it."""

import re
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vitriflow.config import ProgramSection, ProgramsSection, find_config, load_config
from vitriflow.errors import ProgramError, Reason
from vitriflow.steps.programs.launching import MODULE_FAILED, launch, wrapped

_VERSION_TIME_S = 60.0
LICENCE = re.compile(
    r"licen[cs]e.{0,60}(expired|fail|invalid|not found|denied|unavailable|could not|cannot|unable|error)"
    r"|(no|invalid|expired|missing|unable to.{0,30}|could not.{0,30}|failed to.{0,30}) licen[cs]e",
    re.I,
)
_NO_MEMORY = re.compile(r"out of memory|cannot allocate memory|bad_alloc|CUDA_ERROR_OUT_OF_MEMORY", re.I)


@dataclass(frozen=True)
class Tool:
    """A program that steps are made of.

    Attributes
    ----------
    name
        Its name in ``[programs]`` of facility.toml.
    title
        As people call it.
    executables
        File names looked for on PATH, in order, where the facility gives none.
    version_arguments
        That make it say its version; None where it only says so while it works.
    version_pattern
        Finds the version, its first group, in what it says.
    versions
        First that will do and first that won't, as numbers; None where there's no such end.
    source
        Where people get it.
    family
        Whether it's one of a package's programs: the facility's path then names their folder, or any of them.
    """

    name: str
    title: str
    executables: tuple[str, ...]
    version_arguments: tuple[str, ...] | None = None
    version_pattern: str = r"[Vv]ersion\s*:?\s*v?(\d+(?:\.\d+)+)"
    versions: tuple[tuple[int, ...] | None, tuple[int, ...] | None] = (None, None)
    source: str = ""
    family: bool = False


@dataclass(frozen=True)
class Found:
    """A program as it's started here."""

    tool: Tool
    path: str
    settings: ProgramSection
    version: str | None

    def command(self, *arguments: str, program: str | None = None) -> list[str]:
        """The whole argument list, modules and wrapper in front."""
        return wrapped([program or self.path, *arguments], self.settings.wrapper, self.settings.modules)

    def beside(self, name: str) -> str:
        """Another program of the same package: the one in the same folder, else by its name alone."""
        other = Path(self.path).with_name(name)
        return str(other) if "/" in self.path and (other.exists() or self._elsewhere) else name

    @property
    def _elsewhere(self) -> bool:
        return bool(self.settings.wrapper or self.settings.modules)

    @property
    def said(self) -> str:
        """Program and version, for the record."""
        return f"{self.tool.title} {self.version}" if self.version else f"{self.tool.title} (version unknown)"


def settings_of(name: str) -> ProgramSection:
    """What the facility says of a program, in the facility.toml that this process uses."""
    return programs_section().named.get(name, ProgramSection())


def programs_section() -> ProgramsSection:
    """``[programs]`` of the facility.toml that this process uses."""
    path = find_config()
    if path is None or not path.is_file():
        return ProgramsSection()
    stat = path.stat()
    return _section(str(path.absolute()), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _section(path: str, _changed: int, _size: int) -> ProgramsSection:
    return load_config(Path(path)).programs


def find_tool(tool: Tool, settings: ProgramSection, scratch: Path) -> Found:
    """The program, its version asked where it answers to that.

    Raises
    ------
    ProgramError
        ``program.missing`` or ``program.version``.
    """
    path = _path(tool, settings)
    version = None
    if tool.version_arguments is not None:
        version = _ask(tool, path, settings, scratch)
    found = Found(tool, path, settings, version)
    if version is not None:
        check_version(found)
    return found


def _path(tool: Tool, settings: ProgramSection) -> str:
    named = settings.path
    inside = bool(settings.wrapper or settings.modules)  # then the name means something there, not here
    if named is not None and tool.family and "/" in named:
        place = Path(named).expanduser()
        folder = place.parent if place.name.startswith(tool.name) else place
        named = str(folder / tool.executables[0])
    if named is not None:
        path = str(Path(named).expanduser()) if "/" in named else named
        found = path if inside else shutil.which(path)
        looked = path
    else:
        found = (
            tool.executables[0] if inside else next(filter(None, map(shutil.which, tool.executables)), None)
        )
        looked = f"{' or '.join(tool.executables)} on PATH"
    if found is None:
        raise ProgramError(
            Reason.PROGRAM_MISSING,
            tool.title,
            expected=f"a program that can be started: {looked}",
            found="no such file that may be executed",
            remedy=f"Install it{f' ({tool.source})' if tool.source else ''}, or give its path in facility.toml: "
            f"[programs] {tool.name} = '/path/to/it'.",
        )
    return found


_ASKED: dict[tuple[Any, ...], str | None] = {}


def _ask(tool: Tool, path: str, settings: ProgramSection, scratch: Path) -> str | None:
    """The version that a program says it has; asked once in a process for each state of the file."""
    try:
        stat = Path(path).stat()
        state: tuple[Any, ...] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
    except OSError:
        state = ()
    key = (tool.name, path, state, settings.model_dump_json())
    if key not in _ASKED:
        arguments = wrapped([path, *(tool.version_arguments or ())], settings.wrapper, settings.modules)
        log = scratch / ".version.log"
        done = launch(
            arguments,
            scratch,
            log,
            environment=settings.environment,
            time_limit_s=_VERSION_TIME_S,
            name=tool.title,
        )
        log.unlink(missing_ok=True)
        if done.code in (MODULE_FAILED, 126, 127) and not re.search(tool.version_pattern, done.text):
            raise ProgramError(
                Reason.PROGRAM_MISSING,
                tool.title,
                "a program that starts, and modules that load",
                f"exit status {done.code}: {' / '.join(done.tail[-3:])}",
                f"Check path, modules and wrapper of [programs.{tool.name}] in facility.toml.",
            )
        refuse_licence(tool, done.text)
        said = re.search(tool.version_pattern, done.text)
        _ASKED[key] = said.group(1) if said else None
    return _ASKED[key]


def version_in(tool: Tool, text: str) -> str | None:
    """The version that a program named while it worked."""
    said = re.search(tool.version_pattern, text)
    return said.group(1) if said else None


def check_version(found: Found) -> None:
    """Refuse versions that were never tried, unless the facility says that any will do.

    Raises
    ------
    ProgramError
        ``program.version``.
    """
    tool, version = found.tool, found.version
    least, below = tool.versions
    if version is None or found.settings.any_version or (least is None and below is None):
        return
    numbers = tuple(map(int, re.findall(r"\d+", version)))
    if (least is None or numbers >= least) and (below is None or numbers < below):
        return
    words = [
        f"{(least and 'from ' + _dotted(least)) or ''}",
        f"{(below and 'below ' + _dotted(below)) or ''}",
    ]
    raise ProgramError(
        Reason.PROGRAM_VERSION,
        f"{tool.title} ({found.path})",
        expected="a version " + " and ".join(filter(None, words)),
        found=version,
        remedy=f"Name another in facility.toml, or set any_version = true in [programs.{tool.name}] to use it.",
    )


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def refuse_licence(tool: Tool, text: str) -> None:
    """Raise ``program.licence`` when that's what a program says."""
    said = next((line.strip() for line in text.splitlines() if LICENCE.search(line)), None)
    if said is not None:
        raise ProgramError(
            Reason.PROGRAM_LICENCE,
            tool.title,
            "a valid licence",
            repr(said[:200]),
            f"Renew it, or set the licence server's variable in [programs.{tool.name}] environment.",
        )


def explain_exit(tool: Tool, code: int, text: str) -> ProgramError:
    """The error for an exit status that isn't 0."""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    last = " / ".join(lines[-3:])[-400:] or "nothing"
    how = f"signal {-code}" if code < 0 else f"exit status {code}"
    if code == MODULE_FAILED:
        return ProgramError(
            Reason.PROGRAM_MISSING,
            tool.title,
            "environment modules that load",
            last,
            f"Check modules of [programs.{tool.name}] in facility.toml with 'module load'.",
        )
    if _NO_MEMORY.search(text):
        return ProgramError(
            Reason.OUT_OF_MEMORY,
            tool.title,
            "enough memory",
            f"{how}: {last}",
            "Run fewer side by side, or use a GPU with more memory.",
        )
    return ProgramError(
        Reason.PROGRAM_FAILED,
        tool.title,
        "exit status 0",
        f"{how}; its last words: {last}",
        "Its log stands beside the results (.log). Run its command by hand to look closer.",
    )
