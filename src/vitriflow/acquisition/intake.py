"""Takes a session in: watches its source folder, and registers every file and every exposure.

What is remembered between looks can be lost at any time: it's found again in the catalog and on disk.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.acquisition.custody import Recorder, files_left, known_files
from vitriflow.acquisition.intake_state import Changes, Done, FileRows, LookReport
from vitriflow.acquisition.intake_write import ExposureChange, IntakeWriter, hash_file
from vitriflow.acquisition.metadata import MetadataFinder
from vitriflow.acquisition.movies import MovieDesk, state_of_image
from vitriflow.acquisition.recognise import FileKind
from vitriflow.acquisition.scan import SETTLE_S, FileSeen, Scanner, SourceLostError
from vitriflow.acquisition.survey import Survey
from vitriflow.acquisition.watch import Clock, Judge, Watched
from vitriflow.catalog import Catalog, Exposure, ExposureState, FileState, now
from vitriflow.errors import Reason
from vitriflow.formats import State

_FINISH_PER_LOOK_S = 2.0  # hashing is cut up, so that a backlog shows up bit by bit
_RECENT = 256  # files that were settled a moment ago, looked at in each round
_HASH_PER_LOOK = 2 * 1024**3  # bytes, of files that stay in place
_LONG = 10.0  # times patience: for files that are rewritten as a session goes on, and broken ones
_IMAGES = (".mrc", ".mrcs", ".tif", ".tiff", ".eer")
_SOUND = (Reason.DUPLICATE_NAME, Reason.NOT_A_MOVIE, Reason.NAME)  # no exposures, but their files are whole


class Intake:
    """Registers the files and exposures of one session.

    Parameters
    ----------
    catalog, session_id
        Where they go.
    source
        The folder that the microscope writes.
    kind
        ``movie`` or ``micrograph``: what the session's pipeline takes.
    quiet_s, patience_s
        See :class:`Judge`.
    mode
        ``in_place``: what is whole is hashed and done. ``copy``: it waits to be copied (:class:`Transfer`).
    record
        Told of files that were hashed in place, before the catalog is.
    is_moving
        Whether a file is being copied just now: then what became of it is decided later.
    fence
        Called in each transaction; raises when this session was taken over by another process.
    drives
        Where the drives of the microscope's PC are here, by which its files name each other.
    """

    def __init__(
        self,
        catalog: Catalog,
        session_id: int,
        source: Path,
        *,
        kind: str = "movie",
        quiet_s: float = 2.0,
        patience_s: float = 60.0,
        clock: Clock = time.monotonic,
        mode: str = "in_place",
        record: Recorder = lambda _files: None,
        is_moving: Callable[[str], bool] = lambda _key: False,
        fence: Callable[[OrmSession], None] = lambda _orm: None,
        drives: Mapping[str, Path] | None = None,
    ) -> None:
        self.catalog = catalog
        self.session_id = session_id
        self.mode = mode
        self.judge = Judge(quiet_s, patience_s, clock)
        self.scanner = Scanner(source, clock=clock, may_be_empty=lambda: not files_left(catalog, session_id))
        self._writer = IntakeWriter(catalog, session_id, source, kind, mode, record, fence)
        self._is_moving = is_moving
        self._watched: dict[str, Watched] = {}
        self._done: dict[str, Done] = {}
        self._files = FileRows(catalog, session_id, self._writer.file)
        self._rows = self._files.newest
        self._recent: deque[tuple[float, str]] = deque(
            maxlen=_RECENT
        )  # settled a moment ago: looked at in each round
        self._postponed: set[str] = set()  # changed while they were being copied
        self._missing: dict[str, float] = {}  # dealt with, not there any more: since when
        self._problems: dict[str, str] = {}
        self._denied: set[str] = set()  # couldn't be read: looked at again when it can
        self._broken: dict[str, float] = {}  # structure broken: copied as they are after a long while
        self._hashes: dict[str, str] = {}  # of exposures that were taken in before files had rows
        self._arriving: set[str] = set()  # exposures that aren't whole yet
        self._survey = Survey(kind)
        self._movies = MovieDesk(
            self.judge, self._survey, kind, mode, MetadataFinder(source=source, drives=drives)
        )
        self._load()

    def _load(self) -> None:
        clock = self.judge.clock()
        for file in known_files(self.catalog, self.session_id).values():
            self._rows[file.key] = file.generation
            if file.state == FileState.SEEN:
                continue
            self._done[file.key] = Done(file.size, file.stamp)
            if not (file.freed or file.gone):
                self._missing[file.key] = clock  # until the first look finds it
            if file.state == FileState.PROBLEM and file.problem_code not in (
                Reason.CONFLICT,
                Reason.VANISHED,
            ):
                self._broken[file.key] = clock

        def work(orm: OrmSession) -> list[Exposure]:
            return list(orm.scalars(select(Exposure).where(Exposure.session_id == self.session_id)))

        for row in self.catalog.read(work):
            if row.problem_code != Reason.DUPLICATE_NAME:
                self._movies.items[row.item] = row.key
            if row.state == ExposureState.COMPLETE or row.complete_at is not None:
                self._movies.note_frames(row.key, row.details.get("n_frames"))
                if row.details.get("metadata_file"):
                    self._movies.expects_metadata.add(row.software)
                else:
                    self._movies.note_bare(row.key)
            elif row.state == ExposureState.PROBLEM:
                self._problems[row.key] = row.problem_code or ""
                if row.problem_code == Reason.UNREADABLE:
                    self._denied.add(row.key)
            elif row.state == ExposureState.SEEN:
                self._arriving.add(row.key)
            if row.key not in self._rows and row.state != ExposureState.SEEN:
                self._done[row.key] = Done(row.size, None)
                self._hashes[row.key] = row.blake3 or ""

    def look(self) -> LookReport:
        """Look once at the source and write what changed.

        A source that can't be listed is reported (``lost``), told once as an event, and
        looked for again at the next call; nothing known is forgotten meanwhile.
        """
        self.judge.looked_at = self.judge.clock()
        try:
            seen = self.scanner.scan([*self._watched, *self._settled_lately()])
        except SourceLostError as error:
            self._writer.tell_lost(str(error))
            return LookReport(lost=str(error))
        self._writer.tell_seen(seen)
        report = LookReport(found=len(self.scanner.files))
        changes = Changes()
        for key in seen.gone:
            self._note_gone(key)
        again = {key for key in self._postponed | self._denied if key in self.scanner.files}
        for file in seen.fresh:
            self._survey.add(file.key)  # all of them first: what is a movie depends on its neighbours
        for file in [*seen.fresh, *(self.scanner.files[key] for key in again)]:
            self._meet(file, report, changes)
        self._judge_all(report, changes)
        self._give_up(report, changes)
        self._writer.write(changes.exposures, changes.files, self._survey.counts(), changes.late)
        return report

    # -- files that aren't as they were --------------------------------------------------

    def _meet(self, file: FileSeen, report: LookReport, changes: Changes) -> None:
        """A file that is new, or isn't as it was."""
        key, clock = file.key, self.judge.clock()
        self._missing.pop(key, None)
        kind = self._survey.kind(key)
        known = self._done.get(key)
        if known is not None:
            self._meet_again(file, known, report, changes)
            return
        watched = self._watched.get(key)
        if watched is not None:
            watched.update(file, clock)
            return
        self._watched[key] = Watched(file, clock, clock)
        if kind == FileKind.TEMPORARY:
            return
        if kind == FileKind.MOVIE:
            report.new += 1
            self._arriving.add(key)
            changes.exposures.append(ExposureChange(file, ExposureState.SEEN))
        if key not in self._rows:
            self._rows[key] = 1
            changes.files.append(self._writer.file(file, kind, FileState.SEEN, fresh=True))

    def _meet_again(self, file: FileSeen, known: Done, report: LookReport, changes: Changes) -> None:
        """A file that was dealt with: as it was, only touched, or another one under its name."""
        key = file.key
        allowed = key in self._denied and os.access(file.path, os.R_OK)
        if known.size == file.size and known.stamp in (None, file.changed_ns) and not allowed:
            self._done[key] = Done(file.size, file.changed_ns, known.at)
            if key in self._hashes:
                digest = self._hashes.pop(key)
                changes.files.append(self._files.adopted(file, self._survey.kind(key), digest))
            return
        if self._is_moving(key):
            self._postponed.add(key)
            return
        self._postponed.discard(key)
        self._done.pop(key)
        self._denied.discard(key)
        self._broken.pop(key, None)
        clock = self.judge.clock()
        watched = self._watched[key] = Watched(file, clock, clock)
        watched.deceptive = True
        watched.longest_gap = max(0.0, clock - known.at) if known.at > 0 else 0.0
        if known.size == file.size and self._files.moved(key) is not None:
            watched.doubtful = True
            return
        self._open_again(file, changes)

    def _open_again(self, file: FileSeen, changes: Changes) -> None:
        """A finished file that changes again goes back to being watched; people are told."""
        key, kind = file.key, self._survey.kind(file.key)
        if kind == FileKind.MOVIE:
            was_problem = self._problems.pop(key, None)
            self._movies.forget(key)
            cleared = {"problem_code": None, "problem": None}
            changes.exposures.append(ExposureChange(file, ExposureState.SEEN, cleared))
            self._arriving.add(key)
            if was_problem is None:
                what = f"{key} changed after it was taken in; it's processed again when it's whole, and"
                self._writer.say("warning", f"{what} what there is of it stays as an earlier revision")
        changes.files.append(self._files.following(file, kind))

    # -- what to do about each file ------------------------------------------------------

    def _judge_all(self, report: LookReport, changes: Changes) -> None:
        clock = self.judge.clock
        started, hashed = clock(), 0
        waiting = sorted(self._watched.values(), key=lambda w: -w.file.changed_ns)
        for watched in waiting:
            key = watched.file.key
            if key not in self.scanner.files:
                continue
            movie = self._survey.kind(key) == FileKind.MOVIE
            late = clock() - started > _FINISH_PER_LOOK_S or hashed > _HASH_PER_LOOK
            done = not late and (
                self._judge_movie(watched, report, changes) if movie else self._judge_other(watched, changes)
            )
            if done:
                hashed += watched.file.size if self.mode == "in_place" else 0
            else:
                report.waiting += movie
                report.settling += not movie and self._survey.kind(key) != FileKind.TEMPORARY
        report.queued = sum(change.state == FileState.COMPLETE for change in changes.files)

    def _judge_movie(self, watched: Watched, report: LookReport, changes: Changes) -> bool:
        change = self._movies.finish(watched, self.scanner.files)
        if change is None:
            return False
        file = change.file
        if watched.doubtful and (known := self._is_same(watched, changes)) is not False:
            return known is True
        self._settle(file)
        self._arriving.discard(file.key)
        if change.state == ExposureState.PROBLEM:
            self._set_aside(file, change.values["problem_code"], report)
        else:
            report.completed += 1
        changes.exposures.append(change)
        sound = change.state != ExposureState.PROBLEM or change.values["problem_code"] in _SOUND
        state = FileState.COMPLETE if sound else FileState.PROBLEM
        row = self._writer.file(file, FileKind.MOVIE, state, generation=self._rows.get(file.key, 1))
        if sound:
            row.values |= {"complete_at": now(), "decodable": True, "blake3": change.values.get("blake3")}
        else:
            row.values |= {"problem_code": change.values["problem_code"], "problem": change.values["problem"]}
            self._broken[file.key] = self.judge.clock()
        changes.files.append(row)
        return True

    def _judge_other(self, watched: Watched, changes: Changes) -> bool:
        """A file that isn't a movie is whole when it was quiet; one that is rewritten, when it was for longer."""
        file, still, need = watched.file, self.judge.still(watched), self.judge.quiet_s
        kind, patience = self._survey.kind(file.key), self.judge.patience_s
        if watched.deceptive:
            need = max(need, min(2.0 * watched.longest_gap, _LONG * patience))
        if still < (_LONG * patience if kind == FileKind.TEMPORARY else need):
            return False
        decodable: bool | None = None
        if file.key.lower().endswith(_IMAGES):
            whole = state_of_image(file)
            if whole is None or (whole == State.GROWING and still < patience):
                return False
            decodable = whole == State.COMPLETE
        if watched.doubtful and (known := self._is_same(watched, changes)) is not False:
            return known is True
        fresh = file.key not in self._rows
        self._rows.setdefault(file.key, 1)
        change = self._writer.file(
            file, kind, FileState.COMPLETE, generation=self._rows[file.key], fresh=fresh
        )
        change.values |= {"complete_at": now(), "decodable": decodable}
        self._settle(file)
        changes.files.append(change)
        if kind == FileKind.METADATA:
            changes.late[file.key] = self._movies.late(file, self.scanner.files)
            outside = self._movies.outside(file)
            if outside is not None:
                self._writer.say_once("warning", outside)
        if file.key in self._arriving:  # it looked like a movie until its neighbour came
            self._arriving.discard(file.key)
            changes.exposures.append(self._movies.no_movie(file, kind))
        return True

    def _is_same(self, watched: Watched, changes: Changes) -> bool | None:
        """Whether a file of which only the change time is another has the bytes that were copied.

        If so, only the time is noted; if not, it's another file. None when it can't be read just now.
        """
        file = watched.file
        row = self._files.moved(file.key)
        try:
            digest = hash_file(file.path)
        except OSError:
            return None
        watched.doubtful = False
        if row is None or row.blake3 != digest:
            self._open_again(file, changes)
            return False
        kind = self._survey.kind(file.key)
        self._settle(file)
        changes.files.append(self._writer.file(file, kind, FileState(row.state), generation=row.generation))
        return True

    def _set_aside(self, file: FileSeen, reason: str, report: LookReport) -> None:
        """Remember that an exposure is a problem."""
        self._problems[file.key] = reason
        if reason == Reason.UNREADABLE and not os.access(file.path, os.R_OK):
            self._denied.add(file.key)
        report.problems += 1

    def _settle(self, file: FileSeen) -> None:
        clock = self.judge.clock()
        self._watched.pop(file.key, None)
        self._done[file.key] = Done(file.size, file.changed_ns, clock)
        self._recent.append((clock, file.key))

    def _settled_lately(self) -> list[str]:
        """Files that were settled a moment ago: some software goes on writing after all."""
        until = self.judge.clock() - SETTLE_S
        while self._recent and self._recent[0][0] < until:
            self._recent.popleft()
        return [key for _, key in self._recent]

    # -- files that went away, and broken ones ---------------------------------------------

    def _note_gone(self, key: str) -> None:
        self._survey.remove(key)
        self._postponed.discard(key)
        if key in self._done:
            self._missing.setdefault(key, self.judge.clock())

    def _give_up(self, report: LookReport, changes: Changes) -> None:
        """When patience is over: what went away is noted, what is broken is copied as it is."""
        clock, patience = self.judge.clock(), self.judge.patience_s
        for key, watched in list(self._watched.items()):
            if key in self.scanner.files or clock - watched.last_change < patience:
                continue
            text = f"{key} was removed or renamed before it was whole"
            kind = self._survey.kind(key)
            if kind == FileKind.MOVIE:
                values = {"problem_code": str(Reason.VANISHED), "problem": text}
                changes.exposures.append(ExposureChange(watched.file, ExposureState.PROBLEM, values))
                self._set_aside(watched.file, Reason.VANISHED, report)
            self._settle(watched.file)
            if key in self._rows:
                generation = self._rows[key]
                row = self._writer.file(watched.file, kind, FileState.PROBLEM, generation=generation)
                row.values |= {"problem_code": str(Reason.VANISHED), "problem": text, "gone_at": now()}
                changes.files.append(row)
        gone = [
            k for k, since in self._missing.items() if clock - since >= patience and not self._is_moving(k)
        ]
        for key in gone:
            del self._missing[key]
        if gone:
            lost = self._writer.note_gone(gone)
            report.problems += len(lost)
            self._problems.update(dict.fromkeys(lost, Reason.VANISHED))
        for key in [k for k, since in self._broken.items() if clock - since >= _LONG * patience]:
            del self._broken[key]
            file = self.scanner.files.get(key)
            if file is None or self._problems.get(key) == Reason.UNREADABLE:
                continue
            row = self._writer.file(
                file, self._survey.kind(key), FileState.COMPLETE, generation=self._rows.get(key, 1)
            )
            row.values |= {"decodable": False, "complete_at": now()}
            changes.files.append(row)
