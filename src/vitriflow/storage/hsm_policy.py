"""Rules for GPFS (IBM Storage Scale information lifecycle management): what of ours may go to tape.

The grammar is that of ``mmapplypolicy``: the first rule that fits a file decides, so that what has
to stay stands before the rule that moves.
"""

from collections.abc import Mapping
from pathlib import Path

from vitriflow.errors import BadParameter
from vitriflow.storage.hsm_commands import HsmOptions


def ilm_rules(tier: str, options: HsmOptions, root: Path, hot: Mapping[str, str]) -> str:
    """Write the rules.

    Parameters
    ----------
    tier, options
        The tier they're for.
    root
        The storage root, as an absolute path.
    hot
        Folders of sessions that have to stay, each with the reason.

    Returns
    -------
    str
        A policy file. Nothing below ``root`` but raw files is ever moved.
    """
    within = root if options.path is None else options.path
    raw = _like(f"{within}/", "%/raw/%" if options.path is None else "%")
    lines = [
        f"/* vitriflow, tier '{_comment(tier)}': written by 'vitriflow archive --print-policy'.",
        "   Test:  mmapplypolicy FILESYSTEM -P THIS_FILE -I test",
        "   It's true for the sessions of the moment: write it again before each run. */",
        "",
        f"RULE {_text(f'vitriflow-{tier}-pool')} EXTERNAL POOL {_text(options.external_pool)}",
        f"  EXEC {_text(options.exec_script)}",
        "",
    ]
    for number, (folder, why) in enumerate(sorted(hot.items()), start=1):
        lines += [
            f"/* {_comment(why)} */",
            f"RULE {_text(f'vitriflow-{tier}-hot-{number}')} EXCLUDE",
            f"  WHERE PATH_NAME LIKE {_like(f'{folder}/', '%')}",
            "",
        ]
    lines += [
        "/* half-written files */",
        f"RULE {_text(f'vitriflow-{tier}-partial')} EXCLUDE",
        f"  WHERE PATH_NAME LIKE {_like(f'{within}/', '%')} AND NAME LIKE '.%'",
        "",
        f"RULE {_text(f'vitriflow-{tier}-move')} MIGRATE FROM POOL {_text(options.pool)}",
        f"  THRESHOLD({options.high_water},{options.low_water})",
        "  WEIGHT(CURRENT_TIMESTAMP - ACCESS_TIME)",
        f"  TO POOL {_text(options.external_pool)}",
        f"  WHERE PATH_NAME LIKE {raw}",
        "",
    ]
    return "\n".join(lines)


def _text(value: str) -> str:
    """A quoted text of the policy language: a quote inside stands twice."""
    if any(ord(letter) < 32 for letter in value):
        raise BadParameter(repr(value), "a name without control characters", "one", "Rename it.")
    return "'" + value.replace("'", "''") + "'"


def _like(path: str, rest: str) -> str:
    """A pattern: what the path itself holds of wildcards is escaped."""
    plain = path.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"{_text(plain + rest)} ESCAPE '!'"


def _comment(text: str) -> str:
    return text.replace("*/", "* /").replace("\n", " ")
