"""Decides about one movie: whole, broken, not one after all, or to be waited for."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from vitriflow.acquisition.intake_write import ExposureChange, hash_file
from vitriflow.acquisition.late import LateMetadata
from vitriflow.acquisition.metadata import Found, MetadataFinder
from vitriflow.acquisition.recognise import FileKind, item_of, plain_stem, recognise
from vitriflow.acquisition.scan import FileSeen, name_of
from vitriflow.acquisition.survey import Survey
from vitriflow.acquisition.watch import Judge, Verdict, Watched
from vitriflow.catalog import ExposureState, now
from vitriflow.errors import BadFile, Reason
from vitriflow.formats import Completeness, State, check_complete


class MovieDesk:
    """What a session's movies have in common: their names, frames, and whether metadata follows them.

    Parameters
    ----------
    judge
        Applies the rules of structure and quiet time.
    survey
        Told of what turns out to be no movie.
    kind, mode
        As for :class:`Intake`.
    finder
        Reads their metadata.

    Attributes
    ----------
    items
        Keys of exposures by their item: a second file of that name is refused.
    expects_metadata
        Software that wrote an XML or mdoc beside a movie before.
    bare
        Keys of exposures that were taken in without any metadata, by their plain stem and by their name.
    """

    def __init__(
        self, judge: Judge, survey: Survey, kind: str, mode: str, finder: MetadataFinder | None = None
    ) -> None:
        self.judge = judge
        self.items: dict[str, str] = {}
        self.expects_metadata: set[str] = set()
        self.bare: dict[str, set[str]] = {}
        self._survey = survey
        self._kind = kind
        self._mode = mode
        self._frames: dict[str, int | None] = {}
        self._outside: set[Path] = set()
        self._metadata = finder or MetadataFinder()

    def note_frames(self, key: str, n_frames: int | None) -> None:
        """Remember how many frames a movie has."""
        self._frames[key] = n_frames
        self.judge.note_frames(n_frames)

    def forget(self, key: str) -> None:
        """A movie isn't what it was."""
        self.judge.forget_frames(self._frames.pop(key, None))
        for name in _names_of(key):
            self.bare.get(name, set()).discard(key)

    def note_bare(self, key: str) -> None:
        """Remember that a movie was taken in without metadata."""
        for name in _names_of(key):
            self.bare.setdefault(name, set()).add(key)

    def late(self, file: FileSeen, files: Mapping[str, FileSeen]) -> list[LateMetadata]:
        """What a whole XML or mdoc says of movies that were taken in without it."""
        if not self.bare:
            return []
        names = {plain_stem(file.key).lower(), *self._metadata.movies_of(file)}
        found = []
        for key in sorted({key for name in names for key in self.bare.get(name, ())}):
            said = self._metadata.find(key, files)
            if said.path is not None:
                found.append(LateMetadata(key, said.path, said.details))
                for name in _names_of(key):
                    self.bare[name].discard(key)
        return found

    def no_movie(self, file: FileSeen, kind: FileKind) -> ExposureChange:
        """What is to be written about what looked like a movie until its neighbour came."""
        what = "only the sum of a movie's frames, which lies beside it"
        if not self._survey.is_sum(file.key):
            what = (
                f"no movie but a {'montage' if kind == FileKind.MONTAGE else 'stack of sums'}, its mdoc says"
            )
        return _problem(file, Reason.NOT_A_MOVIE, f"{file.key} is {what}")

    def outside(self, file: FileSeen) -> str | None:
        """Words about an mdoc whose movies lie where this session isn't looking, once for each folder."""
        folder = self._metadata.outside(file)
        if folder is None or folder in self._outside:
            return None
        self._outside.add(folder)
        return (
            f"{file.key} names movies in {folder}, which isn't below this session's folder: movies there "
            "aren't taken in. If they belong to it, start the session on the folder above both"
        )

    def finish(self, watched: Watched, files: Mapping[str, FileSeen]) -> ExposureChange | None:
        """What is to be written about a movie; None while it may still be growing."""
        file = watched.file
        stamp = (file.size, file.changed_ns)
        if watched.checked != stamp or watched.structure is None:
            try:
                watched.structure = check_complete(file.path)
            except BadFile as error:
                watched.structure = Completeness(State.BROKEN, error.reason, str(error))
            except OSError as error:  # held by a virus scanner or the camera: try again later
                watched.structure = Completeness(
                    State.GROWING, Reason.UNREADABLE, error.strerror or str(error)
                )
                watched.checked = None
                return self._conclude(watched, Verdict("wait"), Found())
            watched.checked = stamp
        metadata = self._metadata.find(file.key, files)
        if metadata.stack is not None:
            self._survey.not_a_movie(file.key, metadata.stack)  # the next look takes it for what it is
            return None
        verdict = self.judge.judge(watched, watched.structure, metadata.n_frames)
        if verdict.state == "whole" and self._awaits_metadata(watched, metadata.path):
            return None
        return self._conclude(watched, verdict, metadata)

    def _awaits_metadata(self, watched: Watched, path: str | None) -> bool:
        """Wait a little for the XML or mdoc that follows a movie, if this software wrote one before."""
        software = recognise(watched.file.key).software
        if path is not None:
            self.expects_metadata.add(software)
            return False
        still = self.judge.still(watched)
        return software in self.expects_metadata and still < self.judge.patience_s / 4

    def _conclude(self, watched: Watched, verdict: Verdict, metadata: Found) -> ExposureChange | None:
        file, structure = watched.file, watched.structure
        if structure is None:
            return None
        if verdict.state == "wait":
            unreadable = structure.reason == Reason.UNREADABLE and structure.state == State.GROWING
            if not unreadable or self.judge.still(watched) < self.judge.patience_s:
                return None
            return _problem(file, Reason.UNREADABLE, structure.text)
        if verdict.state == "broken":
            reason = structure.reason or Reason.UNREADABLE
            return _problem(file, reason, f"{file.key}: {verdict.why}")
        item = item_of(file.key)
        first = self.items.setdefault(item, file.key)
        if first != file.key:
            text = (
                f"{file.key} has the same name as {first}, which came first; their results would "
                "overwrite each other. Rename one, or move it to a folder of its own."
            )
            return _problem(file, Reason.DUPLICATE_NAME, text)
        if self._mode == "in_place" and name_of(file.key) != file.key:
            text = (
                f"{file.key}: its name isn't UTF-8, so it can't be written down where it is. Rename it, or "
            )
            return _problem(file, Reason.NAME, f"{text}take the session in with --copy.")
        wrong = self._wrong_kind(file, structure)
        if wrong is not None:
            return _problem(file, Reason.NOT_A_MOVIE, wrong)
        try:
            digest = hash_file(file.path) if self._mode == "in_place" else None
        except OSError:
            return None  # still held by someone, or gone: the next look knows
        self.note_frames(file.key, structure.n_frames)
        if metadata.path is None:
            self.note_bare(file.key)
        found = {**metadata.details, "n_frames": structure.n_frames, "shape": structure.shape}
        state = ExposureState.COMPLETE if digest else ExposureState.SEEN  # a copy is ready when it's there
        return ExposureChange(file, state, {"details": found, "blake3": digest, "complete_at": now()})

    def _wrong_kind(self, file: FileSeen, structure: Completeness) -> str | None:
        frames = structure.n_frames or 1
        if self._kind == "micrograph" and frames > 1:
            return f"{file.key} is a movie of {frames} frames; this session takes ready micrographs"
        if self._kind == "movie" and frames == 1 and (self.judge.usual_frames() or 1) > 1:
            return f"{file.key} is a single image among movies of {self.judge.usual_frames()} frames"
        return None


def state_of_image(file: FileSeen) -> State | None:
    """Whether a file that's an image by its name is whole; None while it can't be read."""
    try:
        return check_complete(file.path).state
    except BadFile:
        return State.BROKEN
    except OSError:
        return None  # held by someone: the next look knows


def _names_of(key: str) -> tuple[str, str]:
    """By what the metadata of a movie find it: its plain stem, and its name."""
    return plain_stem(key).lower(), PurePosixPath(key).name.lower()


def _problem(file: FileSeen, reason: Reason, text: str) -> ExposureChange:
    return ExposureChange(file, ExposureState.PROBLEM, {"problem_code": str(reason), "problem": text})
