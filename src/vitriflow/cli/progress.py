"""What a person sees in the terminal while a session runs."""

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from vitriflow.facility.run import Progress as RunProgress


class RunDisplay:
    """A live line in a terminal; a line for each change where the output isn't one (a log file)."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("exposures"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("waiting for the first exposure", total=None)
        self._last = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, now: "RunProgress") -> None:
        """Show how far it is."""
        counts = now.counts.exposures
        parts = [f"{counts.done} done"]
        parts += [
            f"{number} {name}"
            for name, number in (
                ("rejected", counts.rejected),
                ("quarantined", counts.quarantined),
                ("failed", counts.failed),
                ("being written", now.look.waiting),
            )
            if number
        ]
        if now.look.lost:
            parts.append("SOURCE FOLDER LOST, waiting for it")
        text = ", ".join(parts)
        self._progress.update(
            self._task,
            description=text,
            total=counts.came_in or None,
            completed=counts.came_in - counts.open,
        )
        line = f"{counts.came_in} exposures in: {text}"
        if not self._console.is_terminal and line != self._last:
            self._console.print(line, highlight=False)
        self._last = line
