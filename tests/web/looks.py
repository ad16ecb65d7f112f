"""What's wrong with how a page looks, found in a real browser: for tests of every page."""

from pathlib import Path
from typing import Any

FAULTS = Path(__file__).with_name("looks.js").read_text(encoding="utf-8")
# Rules of WCAG 2.2 A and AA that axe-core can judge, and its good practices.
JUDGED = """(only) => axe.run(document, only ? { runOnly: { type: 'rule', values: only } } : {
  runOnly: { type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] },
}).then((found) => found.violations.flatMap((rule) => rule.nodes.map((node) =>
  `${rule.id}: ${node.target.join(' ')} ${(node.any[0] ?? node.all[0] ?? node.none[0])?.message ?? rule.help}`)))"""


def faults(page: Any) -> list[str]:
    """What lies over something, is cut off, sticks out, is empty or too small to read."""
    found: list[str] = page.evaluate(FAULTS)
    return found


def barriers(page: Any, axe: str, only: list[str] | None = None) -> list[str]:
    """What keeps people from using a page, as axe-core sees it.

    Parameters
    ----------
    page
        A page that is open.
    axe
        The script of axe-core.
    only
        Rules to judge; all that are of WCAG A and AA when not given.
    """
    if not page.evaluate("() => Boolean(window.axe)"):
        page.evaluate(axe)
    found: list[str] = page.evaluate(JUDGED, only)
    return found
