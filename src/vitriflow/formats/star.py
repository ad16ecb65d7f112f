"""STAR files, through the starfile package, with errors that say what is wrong."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitriflow.errors import BadFile, BadParameter, Reason
from vitriflow.formats._raw import RawFile

if TYPE_CHECKING:
    import pandas as pd

    Block = pd.DataFrame | dict[str, Any]

_LARGEST = 2 * 1024**3


def read_star(path: Path) -> "dict[str, Block]":
    """Blocks of a STAR file by name (``data_optics`` is ``optics``): tables, or dicts of single values.

    Raises
    ------
    BadFile
        When it isn't a STAR file or a table is broken.
    """
    import pandas as pd
    import starfile

    path = Path(path)
    with RawFile(path) as raw:
        size = raw.size()
        data = raw.read(0, min(size, _LARGEST))
    if not data:
        raise BadFile(Reason.EMPTY, str(path), "a STAR file", "an empty file", "Was it still being written?")
    text = data.decode("utf-8", "replace")
    names = [line[5:].strip() for line in text.splitlines() if line.startswith("data_")]
    if b"\0" in data or not names:
        raise _bad(path, "no line that begins with 'data_'")
    if len(set(names)) < len(names):
        raise _bad(path, "two blocks of the same name")
    try:
        # Names stay texts, even such as 0012, which would else become the number 12.
        labels = {line.split()[0][1:] for line in text.splitlines() if line.startswith("_")}
        names_only = sorted(label for label in labels if label.endswith("Name"))
        blocks = starfile.read(path, always_dict=True, parse_as_string=names_only)
    except (MemoryError, BadFile):
        raise
    except Exception as error:  # starfile has no exceptions of its own
        raise _bad(path, f"{type(error).__name__}: {error}") from error
    return {
        name.strip(): {} if block is None else block
        for name, block in blocks.items()
        if block is None or isinstance(block, dict | pd.DataFrame)
    }


def _bad(path: Path, found: str) -> BadFile:
    return BadFile(
        Reason.METADATA_BROKEN,
        str(path),
        expected="a STAR file with data blocks",
        found=found,
        remedy="If a program is still writing it, try again; else make it anew.",
    )


def _value(value: Any, where: str) -> str:
    """One value as RELION reads it back: numbers to ten digits, texts quoted where they must be."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return "1" if value else "0"
    missing = value is None or type(value).__name__ in {"NAType", "NaTType"}  # pandas' own
    if missing or (isinstance(value, float) and not math.isfinite(value)):
        raise BadParameter(where, "a number or a text", str(value), "RELION can't read it: leave it out.")
    if isinstance(value, float):
        return f"{value:.6f}" if _plain(value) else f"{value:.10g}"
    text = str(value)
    if isinstance(value, int):
        return text
    if "\n" in text or '"' in text:
        raise BadParameter(where, "a text without line breaks and double quotes", repr(text))
    return f'"{text}"' if text == "" or any(c.isspace() for c in text) or text[0] in "#_'" else text


def _plain(value: float) -> bool:
    """Whether six decimals say the number to about ten digits."""
    return value == 0 or (1e3 <= abs(value) < 1e10) or value == round(value, 6)


def write_star(path: Path, blocks: "Mapping[str, Block]") -> None:
    """Write blocks to a STAR file that RELION 3.1 and later read.

    Parameters
    ----------
    path
        Where to write; an existing file is replaced. Atomicity is the caller's.
    blocks
        Name (without ``data_``) to a table (a loop) or a dict (single values).

    Raises
    ------
    BadParameter
        When a value can't be written so that RELION reads it back: NaN, quotes, line breaks.
    """
    import vitriflow

    out = io.StringIO()
    out.write(f"\n# written by vitriflow {vitriflow.__version__}\n")
    for name, block in blocks.items():
        out.write(f"\n# version 30001\n\ndata_{name}\n\n")  # how RELION knows tables with optics groups
        if isinstance(block, Mapping):
            for key, value in block.items():
                out.write(f"_{key} {_value(value, f'{key} of data_{name}'):>24}\n")
            out.write("\n")
            continue
        out.write("loop_\n")
        columns = [str(column) for column in block.columns]
        for number, column in enumerate(columns, 1):
            out.write(f"_{column} #{number}\n")
        texts = [
            [_value(value, f"column {column} of data_{name}") for value in block.iloc[:, i].tolist()]
            for i, column in enumerate(columns)
        ]
        for row in zip(*texts, strict=True):
            out.write("  ".join(f"{text:>12}" for text in row) + "\n")
        out.write("\n")
    Path(path).write_text(out.getvalue(), encoding="utf-8")
