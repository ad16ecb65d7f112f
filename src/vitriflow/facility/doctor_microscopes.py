"""Checks what facility.toml says of each microscope: shares, gain references, drives, what is known of its optics."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from vitriflow.config import Config, MicroscopeSection
from vitriflow.facility.findings import Finding, Health
from vitriflow.facility.gains import gain_folders

T = TypeVar("T")
_ANSWER_S = 10.0  # a share that hangs is told of after so long


def check_microscopes(config: Config) -> Iterator[Finding]:
    """All findings, microscope by microscope."""
    for name, scope in config.microscopes.items():
        yield Finding(name, Health.GOOD, _summary(scope))
        yield from _files(name, scope)
        for source in scope.sources:
            yield from _source(name, scope, source)
        yield from _folders(name, scope)


def _summary(scope: MicroscopeSection) -> str:
    optics = [
        f"{scope.voltage_kV:g} kV" if scope.voltage_kV else "voltage as its files say",
        f"Cs {scope.spherical_aberration_mm:g} mm"
        if scope.spherical_aberration_mm is not None
        else "Cs by default",
    ]
    cameras = [
        f"{camera} ({len(section.pixel_sizes_A)} calibrated magnifications)"
        for camera, section in scope.cameras.items()
    ]
    sources = ", ".join(map(str, scope.sources)) or "no sources"
    ways = f"files are {'copied' if scope.transfer == 'copy' else 'registered in place'}"
    return "; ".join(filter(None, [*optics, *cameras, scope.software, sources, ways]))


def _files(name: str, scope: MicroscopeSection) -> Iterator[Finding]:
    for field in ("gain_reference", "defects"):
        path = getattr(scope, field)
        if path is not None and not path.is_file():
            yield Finding(
                name,
                Health.BAD,
                f"{field}: no file {path}",
                f"Correct microscopes.{name}.{field} in facility.toml.",
            )


def _source(name: str, scope: MicroscopeSection, source: Path) -> Iterator[Finding]:
    """Whether a source can be listed, is a mount, and can be freed."""
    subject = f"{name} source"
    try:
        listed = _answer(lambda: sum(1 for _ in source.iterdir()))
    except OSError as error:
        yield Finding(
            subject,
            Health.BAD,
            f"{source}: {error.strerror or error}",
            "Mount the share ('findmnt' shows what is), and let this user read it.",
        )
        return
    if listed is None:
        yield Finding(
            subject,
            Health.BAD,
            f"{source} doesn't answer within {_ANSWER_S:g} s",
            "The share hangs: check the camera server and the network; mount it with 'soft'.",
        )
        return
    mount = next((path for path in (source, *source.parents) if path.is_mount()), Path("/"))
    if mount == Path("/"):
        yield Finding(
            subject,
            Health.NOTE,
            f"{source} is on this machine's own disk, not on a mounted share",
            "If a camera server's share belongs there, it isn't mounted now.",
        )
    else:
        yield Finding(subject, Health.GOOD, f"{source}: {listed} entries, mounted at {mount}")
    if scope.transfer == "copy" and not os.access(source, os.W_OK):
        yield Finding(
            subject,
            Health.NOTE,
            f"{source} can't be written by this user: nothing there can be freed by 'vitriflow release'",
            "Mount it writable for this user, or free the microscope's disk in another way.",
        )


def _folders(name: str, scope: MicroscopeSection) -> Iterator[Finding]:
    for folder in gain_folders(scope):
        if not folder.is_dir():
            yield Finding(
                name,
                Health.BAD,
                f"gain_folder: no folder {folder}",
                f"Correct it in [microscopes.{name}], or mount the share that it's on.",
            )
    for drive, here in scope.drives.items():
        if not here.is_dir():
            yield Finding(
                name, Health.BAD, f"drive {drive}: no folder {here}", f"Correct microscopes.{name}.drives."
            )


def _answer(work: Callable[[], T]) -> T | None:
    """Ask in a thread, since a share that hangs would hold us up; None when there's no answer in time.

    Raises
    ------
    OSError
        What the file system said.
    """
    found: list[T] = []
    failed: list[OSError] = []

    def ask() -> None:
        try:
            found.append(work())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_ANSWER_S)
    if failed:
        raise failed[0]
    return found[0] if found else None
