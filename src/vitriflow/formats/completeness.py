"""Words for how far a file is: the same for every format."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vitriflow.errors import BadFile, Reason


class State(StrEnum):
    """How far a file is, judged by its structure alone."""

    COMPLETE = "complete"
    GROWING = "growing"
    BROKEN = "broken"


@dataclass(frozen=True)
class Completeness:
    """What the structure of a file says.

    Attributes
    ----------
    state
        ``complete``: all that is announced is there. ``growing``: less is there than announced;
        the caller decides by quiet time when that means truncated. ``broken``: waiting won't help.
    reason
        The code under which the file is counted if it stays like this; None when complete.
    text
        The same for people.
    n_frames
        Frames announced (complete or broken) or whole frames there (growing TIFF and EER), if known.
    shape
        ``(height, width)`` in pixels, if known.
    """

    state: State
    reason: Reason | None
    text: str
    n_frames: int | None = None
    shape: tuple[int, int] | None = None

    def as_error(self, path: Path) -> BadFile:
        """The error that reading such a file raises."""
        remedy = (
            "Wait until it is written, or copy it again."
            if self.state is State.GROWING
            else "Look at the file with 'vitriflow validate' and copy it again from the source."
        )
        return BadFile(
            self.reason or Reason.UNREADABLE,
            str(path),
            expected="a complete file",
            found=self.text,
            remedy=remedy,
        )


def growing(
    text: str,
    n_frames: int | None = None,
    shape: tuple[int, int] | None = None,
    reason: Reason = Reason.TRUNCATED,
) -> Completeness:
    """Less there than announced."""
    return Completeness(State.GROWING, reason, text, n_frames, shape)


def broken(reason: Reason, text: str, n_frames: int | None = None) -> Completeness:
    """Wrong in a way that waiting doesn't mend."""
    return Completeness(State.BROKEN, reason, text, n_frames)
