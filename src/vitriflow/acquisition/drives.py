"""Where a file is here that a microscope's own file names by a drive letter of its PC."""

from collections.abc import Mapping
from pathlib import Path, PureWindowsPath


def local_path(named: str, drives: Mapping[str, Path]) -> Path | None:
    r"""Translate a path as a microscope's PC writes it (``X:\session\movie.tif``) into ours.

    Parameters
    ----------
    named
        From an mdoc's ``SubFramePath``, an XML or a batch list.
    drives
        Where each drive is here: ``{"X:": Path("/mnt/k3"), r"\\camera\data": Path("/mnt/cam")}``. Of
        several that fit the longest is used. Case doesn't matter to Windows, except below the drive here.

    Returns
    -------
    Path or None
        None when the name has no drive, one that isn't known here, or leads out of it by ``..``.
        Whether the file is there isn't looked at.
    """
    path = PureWindowsPath(named.strip())
    if not path.drive or any(part == ".." for part in path.parts):
        return None
    fits = []
    for drive, here in drives.items():
        root = PureWindowsPath(drive + ("\\" if drive.endswith(":") else ""))
        if path.anchor and path.is_relative_to(root):
            fits.append((len(str(root)), here.joinpath(*path.parts[len(root.parts) :])))
    return max(fits)[1] if fits else None
