"""Decides when a growing file is finished: by its structure first, then by a short quiet time."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from vitriflow.acquisition.scan import FileSeen
from vitriflow.formats import Completeness, State

Clock = Callable[[], float]


@dataclass
class Watched:
    """What is remembered of one candidate between looks. Times are on our monotonic clock (s)."""

    file: FileSeen
    first_seen: float
    last_change: float
    longest_gap: float = 0.0
    deceptive: bool = False  # it looked whole before, and went on growing: a TIFF written frame by frame
    checked: tuple[int, int] | None = None  # size and change stamp that ``structure`` belongs to
    structure: Completeness | None = None
    doubtful: bool = False  # it was dealt with, and only its change time is another: bytes decide

    def update(self, file: FileSeen, clock: float) -> bool:
        """Take in a new look; True when the file changed since the last one."""
        if (file.size, file.changed_ns) == (self.file.size, self.file.changed_ns):
            return False
        self.longest_gap = max(self.longest_gap, clock - self.last_change)
        self.last_change = clock
        whole = self.structure is not None and self.structure.state == State.COMPLETE
        self.deceptive = self.deceptive or (whole and file.size > self.file.size)
        self.file = file
        return True


@dataclass(frozen=True)
class Verdict:
    """``state`` is wait, whole or broken; ``why`` says so in words."""

    state: str
    why: str = ""


@dataclass
class Judge:
    """Applies the rule to one session's files.

    Parameters
    ----------
    quiet_s
        A whole file must have stopped changing for this long.
    patience_s
        An incomplete file that stopped changing is given up after this long.
    clock
        Our monotonic clock (s); replaced in tests.
    looked_at
        When the look at hand began. Stillness is measured up to there: time that a look takes itself, in
        which nobody looks at a file again, isn't quiet time.
    """

    quiet_s: float
    patience_s: float
    clock: Clock = time.monotonic
    frame_counts: Counter[int] = field(default_factory=Counter)
    looked_at: float | None = None

    def still(self, watched: Watched) -> float:
        """For how long a file hasn't changed, by the last look (s)."""
        moment = self.clock() if self.looked_at is None else self.looked_at
        return moment - watched.last_change

    def judge(self, watched: Watched, structure: Completeness, announced: int | None) -> Verdict:
        """Say whether a file is finished.

        ``announced`` is the number of frames its metadata promises, when there is any. A TIFF
        is well-formed after each frame, so one that has fewer frames than promised, or than
        this session's movies had so far, is only believed when patience is over.
        """
        still = self.still(watched)
        if structure.state == State.BROKEN:
            return Verdict(
                "broken" if still >= max(self.quiet_s, self._rhythm(watched)) else "wait", structure.text
            )
        if structure.state == State.GROWING:
            return Verdict("broken" if still >= self.patience_s else "wait", structure.text)
        if still < max(self.quiet_s, self._rhythm(watched)):
            return Verdict("wait", "whole, but changed a moment ago")
        usual = announced or self.usual_frames()
        if usual and structure.n_frames and structure.n_frames < usual and still < self.patience_s:
            return Verdict("wait", f"holds {structure.n_frames} of the {usual} frames expected")
        return Verdict("whole")

    def note_frames(self, n_frames: int | None) -> None:
        """Remember how many frames a finished movie had."""
        if n_frames:
            self.frame_counts[n_frames] += 1

    def usual_frames(self) -> int | None:
        """The number of frames that most movies of this session had; None before the first."""
        return max(self.frame_counts, key=lambda n: (self.frame_counts[n], n), default=None)

    def forget_frames(self, n_frames: int | None) -> None:
        """Take back what was remembered of a movie that turned out not to be finished."""
        if n_frames and self.frame_counts[n_frames] > 0:
            self.frame_counts[n_frames] -= 1

    def _rhythm(self, watched: Watched) -> float:
        """A file that looks whole after each frame must be still for longer than its longest pause."""
        return min(2.0 * watched.longest_gap, self.patience_s) if watched.deceptive else 0.0
