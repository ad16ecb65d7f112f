"""Looks at a session's first movies and tells people whether the gain reference is right."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import select

from vitriflow.catalog import Catalog, Event, Exposure, ExposureState, Processing, is_away, now
from vitriflow.errors import BadParameter, ItemError, Reason
from vitriflow.formats import Gain, Movie, Orientation, open_movie, read_gain
from vitriflow.pipeline import plan_of

if TYPE_CHECKING:
    from vitriflow.kernels.gain_diagnosis import FrameSums, GainDiagnosis

FIRST_MOVIES = 5
_MOST_MOVIES = 15
_MARK = "Gain check"

Convention = Literal["auto", "multiply", "divide"]


@dataclass(frozen=True)
class GainUse:
    """How a gain reference is used, by the names of the motion step's parameters."""

    gain_reference: Path | None = None
    gain_orientation: str = "as_is"
    gain_convention: Convention = "auto"
    eer_frames_per_fraction: int | None = None
    eer_upsampling: int = 1


class GainCheck:
    """Takes up movies one by one and compares their sum with a gain reference.

    Memory holds a few images of the movies' size, however many movies and frames there are.

    Parameters
    ----------
    use
        The reference and how it would be used.

    Raises
    ------
    BadParameter
        For an orientation or a convention that there isn't.
    """

    def __init__(self, use: GainUse) -> None:
        labels = [orientation.label for orientation in Orientation]
        if use.gain_orientation not in labels:
            raise BadParameter("gain_orientation", "one of " + ", ".join(labels), use.gain_orientation)
        if use.gain_convention not in ("auto", "multiply", "divide"):
            raise BadParameter("gain_convention", "auto, multiply or divide", str(use.gain_convention))
        self.use = use
        self._gain: Gain | None = None
        self._sums: FrameSums | None = None

    @property
    def n_movies(self) -> int:
        """Movies taken up, copies of others left out."""
        return 0 if self._sums is None else self._sums.n_movies

    def add(self, path: Path) -> bool:
        """Sum a movie's frames, one in memory at a time.

        Returns
        -------
        bool
            False when the movie is a copy of one that was taken up before.

        Raises
        ------
        BadFile, BadImage
            When the movie or the reference can't be read, or the movie differs in size from those before.
        """
        from vitriflow.kernels.gain_diagnosis import FrameSums  # loads torch, which commands do without

        use = self.use
        with open_movie(
            path, eer_frames_per_fraction=use.eer_frames_per_fraction, eer_upsampling=use.eer_upsampling
        ) as movie:
            if self._gain is None and use.gain_reference is not None:
                self._gain = _read_gain(use.gain_reference, movie)
            if self._sums is None:
                self._sums = FrameSums(movie.shape)
            return self._sums.add(movie.frames(), movie.n_frames)

    def diagnose(self) -> "GainDiagnosis":
        """Judge what was taken up so far.

        Raises
        ------
        BadParameter
            Before any movie was taken up.
        """
        from vitriflow.kernels.gain_diagnosis import diagnose_gain

        sums = self._sums
        if sums is None or sums.n_movies == 0:
            raise BadParameter("movies", "at least one that can be read", "none", "Give raw movies.")
        convention: Literal["multiply", "divide"] = "multiply"
        if self.use.gain_convention != "auto":
            convention = self.use.gain_convention
        elif self._gain is not None:
            convention = self._gain.convention
        return diagnose_gain(
            sums.total,
            sums.n_frames,
            None if self._gain is None else self._gain.array,
            parts=sums.parts,
            n_movies=sums.n_movies,
            orientation=self.use.gain_orientation,
            convention=convention,
        )


def _read_gain(path: Path, movie: Movie) -> Gain:
    """The reference as stored; for EER brought onto the movie's grid where that's a matter of binning."""
    if movie.format == "eer":
        with suppress(ItemError):
            return read_gain(path, movie.shape, movie_format="eer")
    return read_gain(path, movie_format=movie.format)


def check_gain(
    movies: Sequence[Path],
    gain: Path | None,
    orientation: str = "as_is",
    convention: Convention = "auto",
    *,
    eer_frames_per_fraction: int | None = None,
    eer_upsampling: int = 1,
) -> "GainDiagnosis":
    """Say whether a gain reference belongs to these movies and is used rightly.

    Parameters
    ----------
    movies
        Raw movies of one camera mode; all of them are read.
    gain
        The reference, or None when the movies are to be used as they are.
    orientation, convention
        As the parameters gain_orientation and gain_convention of the motion step.
    eer_frames_per_fraction, eer_upsampling
        As the motion step's parameters.

    Raises
    ------
    BadFile, BadImage
        When a movie or the reference can't be read, or the movies differ in size.
    BadParameter
        For an unknown orientation or convention, or no movies.
    """
    check = GainCheck(GainUse(gain, orientation, convention, eer_frames_per_fraction, eer_upsampling))
    for path in movies:
        check.add(path)
    return check.diagnose()


class GainWatch:
    """Checks the gain reference of a processing on its first movies, and writes one event.

    Each `look` takes up at most one movie, so call it every few seconds from a thread of its own. An
    alarm goes out with the first movie that shows it; that all is well is said after two or more.
    What can't be told from the first five is said then, unless a few more will do. When the reference's
    file changes later, it's looked at again.

    Parameters
    ----------
    catalog, processing_id
        The processing whose motion step names the reference.
    """

    def __init__(self, catalog: Catalog, processing_id: int) -> None:
        self._catalog = catalog
        self._processing_id = processing_id
        self._session_id = 0
        self._use: GainUse | None = None
        self._started = self._done = False
        self._restart()

    @property
    def done(self) -> bool:
        """Whether the event is written, or there's nothing to look at (no motion step)."""
        return self._done

    def look(self) -> "GainDiagnosis | None":
        """Take up the next complete movie if there is one; write the event once the matter is clear.

        A catalog that's away for a while is asked again by the next look. Movies that can't be read
        are passed over: processing tells people about them.

        Returns
        -------
        GainDiagnosis or None
            The diagnosis of which an event was written by this look.

        Raises
        ------
        CatalogError
            When there's no such processing.
        """
        return self._patiently(self._look)

    def finish(self) -> "GainDiagnosis | None":
        """Say what is known when no more movies will come, such as that the only one is fine.

        Returns
        -------
        GainDiagnosis or None
            The diagnosis of which an event was written; None when it was written before, or when it
            can't be told: the next run then looks again.
        """
        return self._patiently(self._last_word)

    def _patiently(self, work: "Callable[[], GainDiagnosis | None]") -> "GainDiagnosis | None":
        try:
            return work()
        except Exception as error:
            if is_away(error):
                return None
            raise

    # -- one look -------------------------------------------------------------------------

    def _look(self) -> "GainDiagnosis | None":
        if not self._started:
            self._begin()
        if self._use is None:
            return None
        if self._file_now() != self._file:
            self._restart()
            self._done = False  # a changed file is news, whatever was said before
        if self._done:
            return None
        path = self._next_movie()
        if path is None:
            return None
        if not self._take_up(path):
            return None
        found = self._check.diagnose()
        if found.wrong or (found.decided and found.n_movies > 1) or self._gives_up(found):
            return self._report(found)
        return None

    def _last_word(self) -> "GainDiagnosis | None":
        if self._done or self._check.n_movies == 0:
            return None
        found = self._check.diagnose()
        return self._report(found) if found.decided else None

    def _report(self, found: "GainDiagnosis") -> "GainDiagnosis":
        movies = "1 movie" if found.n_movies == 1 else f"{found.n_movies} movies"
        self._say(found.severity, f"{_MARK} on {movies}: {found.text}")
        return found

    def _gives_up(self, found: "GainDiagnosis") -> bool:
        if found.n_movies < FIRST_MOVIES:
            return False
        return found.more_movies is None or found.n_movies + found.more_movies > _MOST_MOVIES

    def _take_up(self, path: Path) -> bool:
        try:
            return self._check.add(path)
        except ItemError as error:
            if error.reason in (Reason.GAIN_MISSING, Reason.GAIN_BAD) or _is_of(error, self._use):
                self._say("alarm", f"{_MARK}: the gain reference can't be used: {error}")
            return False

    def _begin(self) -> None:
        """Read what processing this is; nothing is kept when the catalog fails on the way."""
        use = _gain_use(self._catalog, self._processing_id)
        self._session_id = _session_of(self._catalog, self._processing_id)
        self._use = use
        self._restart()
        self._done = use is None or self._said_before()
        self._started = True

    def _restart(self) -> None:
        self._check = GainCheck(self._use or GainUse())
        self._last_id = 0
        self._file = self._file_now()

    def _file_now(self) -> tuple[int, int] | None:
        """Size and time of the reference's file; None when there's none."""
        path = self._use.gain_reference if self._use else None
        if path is None:
            return None
        try:
            stat = path.stat()
        except OSError:
            return None
        return stat.st_size, stat.st_mtime_ns

    # -- catalog --------------------------------------------------------------------------

    def _said_before(self) -> bool:
        """Whether an earlier run of this processing wrote the event, after the file last changed."""
        mine = (Event.processing_id == self._processing_id, Event.text.startswith(_MARK))
        at = self._catalog.read(
            lambda orm: orm.scalar(select(Event.at).where(*mine).order_by(Event.id.desc()).limit(1))
        )
        return at is not None and (self._file is None or self._file[1] <= at.timestamp() * 1e9)

    def _next_movie(self) -> Path | None:
        query = (
            select(Exposure.id, Exposure.path)
            .where(
                Exposure.session_id == self._session_id,
                Exposure.state == ExposureState.COMPLETE,
                Exposure.kind == "movie",
                Exposure.id > self._last_id,
            )
            .order_by(Exposure.id)
            .limit(1)
        )
        row = self._catalog.read(lambda orm: orm.execute(query).first())
        if row is None:
            return None
        self._last_id = row.id
        return Path(row.path)

    def _say(self, severity: str, text: str) -> None:
        event = {
            "at": now(),
            "session_id": self._session_id,
            "processing_id": self._processing_id,
            "severity": severity,
            "text": text,
        }
        self._catalog.write(lambda orm: orm.add(Event(**event)))
        self._done = True


def _is_of(error: ItemError, use: GainUse | None) -> bool:
    """Whether an error is about the reference and not about a movie."""
    return use is not None and use.gain_reference is not None and error.thing == str(use.gain_reference)


def _session_of(catalog: Catalog, processing_id: int) -> int:
    query = select(Processing.session_id).where(Processing.id == processing_id)
    return int(catalog.read(lambda orm: orm.scalar(query)) or 0)


def _gain_use(catalog: Catalog, processing_id: int) -> GainUse | None:
    """How the first node that takes a gain reference uses it; None when no node does."""
    for node in plan_of(catalog, processing_id).nodes:
        if "gain_reference" in type(node.parameters).model_fields:
            known: dict[str, Any] = {
                name: value for name, value in node.parameters if name in GainUse.__dataclass_fields__
            }
            return GainUse(**known)
    return None
