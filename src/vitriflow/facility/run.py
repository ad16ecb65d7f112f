"""Runs a session on one machine: watch, process, keep the RELION project, until stopped or done."""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from vitriflow.acquisition import LookReport
from vitriflow.catalog import (
    Catalog,
    Exposure,
    Processing,
    Session,
    SessionState,
    now,
    take_lease,
    this_owner,
)
from vitriflow.config import Config, MicroscopeSection
from vitriflow.elogbook import open_session, session_of_source, set_session_state, write_session_record
from vitriflow.errors import BadParameter
from vitriflow.facility.acquire import AcquireReport, SessionAcquisition
from vitriflow.facility.activation import begin_processing, put_off_processing
from vitriflow.facility.choose import (
    choose_microscope,
    choose_session_key,
    choose_template,
    join_parameters,
)
from vitriflow.facility.compute import make_pool
from vitriflow.facility.gains import wants_gain
from vitriflow.facility.journal import SessionJournal
from vitriflow.facility.launch import find_template, scopes_of
from vitriflow.facility.pool_watch import PoolWatch
from vitriflow.facility.processing_run import ProcessingRun, present
from vitriflow.pipeline import (
    Counts,
    Settings,
    Template,
    counts,
    make_plan,
    parse_template,
    start_processing,
)
from vitriflow.storage import SessionFolder, make_session_folder, session_folder

LEASE_S = 15.0
_REPORT_EVERY_S = 0.5
_BEGIN_EVERY_S = 0.5


@dataclass(frozen=True)
class RunRequest:
    """What a person asked for: which folder, and what it belongs to."""

    source: Path
    microscope: str | None = None
    experiment: str = "local"
    sample: str = "sample"
    session: str | None = None
    template: str | None = None
    pipeline: Template | None = None  # at hand: it goes before the name of one
    processing: str = "live"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    once: bool = False
    copy: bool = (
        False  # a new session's files are copied to storage and proved; else as the microscope's mode
    )


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    counts: Counts
    look: LookReport


class SessionRun:
    """One session being watched and processed by this process.

    Raises
    ------
    VitriflowError
        When the source isn't a folder, a parameter is wrong, or another process runs this session.
    """

    def __init__(self, config: Config, catalog: Catalog, request: RunRequest) -> None:
        self.config = config
        self.catalog = catalog
        self.request = request
        self.source = _existing(request.source)
        scope_name, scope = choose_microscope(config, request.microscope)
        frozen = self._frozen()
        if frozen is not None:
            template = parse_template(frozen.template, f"template of processing '{frozen.name}'")
            parameters = frozen.parameters
        else:
            named = request.template or config.processing.template
            scopes = scopes_of(config, catalog, scope_name, scope, request.experiment, request.sample)
            found = request.pipeline or find_template(config, choose_template(named, self.source))
            template = found.filled(scopes)
            parameters = join_parameters(template, scope, config.processing.parameters, request.parameters)
        if frozen is None and wants_gain(template, scope, parameters):
            parameters |= self._chosen_before()
        self.plan = make_plan(template, parameters)
        self.session = self._open_session(scope_name, scope, parameters)
        _check_mode(self.session, request)
        self.folder = SessionFolder(Path(self.session.root))
        self._lease = take_lease(catalog, f"session:{self.session.key}", this_owner("run"), LEASE_S)
        try:
            make_session_folder(self.folder, self.source, self.session.mode)
            write_session_record(catalog, self.session.key, self.folder.record)
            self._processing_id: int | None = None
            if frozen is None and wants_gain(template, scope, parameters):  # by the first movie
                put_off_processing(catalog, self.session.id, request.processing, template, parameters)
            else:
                self._processing_id = start_processing(
                    catalog,
                    self.session.id,
                    request.processing,
                    template,
                    parameters,
                    self.folder.processed(request.processing),
                )
        except BaseException:
            set_session_state(catalog, self.session.key, SessionState.PAUSED)
            self._lease.release(catalog)
            raise
        self._stop = threading.Event()
        self._look = LookReport()
        self._looked = False
        self._failure: BaseException | None = None
        self._processing: ProcessingRun | None = None
        self._news = threading.Event()  # something came in: the processing may begin
        self._no_movie = False  # with ``once``: all that's there is a problem, so none has to be waited for

    @property
    def processing_id(self) -> int:
        """Number of the processing; 0 as long as it waits for the first movie to choose a gain reference by."""
        return self._processing_id or 0

    # -- preparation ----------------------------------------------------------------------

    def _chosen_before(self) -> dict[str, Any]:
        """The gain reference that was chosen when this processing began, if it has begun."""
        there = self._known()
        chosen = None if there is None else there.parameters.get("gain_reference")
        return {} if chosen is None else {"gain_reference": chosen}

    def _frozen(self) -> Processing | None:
        """The processing to go on with, when it's there and nobody asks for other values on the command line.

        It keeps the template and the values it was started with, whatever facility.toml and
        the folder say by now.
        """
        request = self.request
        if request.parameters or request.template is not None:
            return None
        return self._known()

    def _known(self) -> Processing | None:
        """The processing of that name in the latest session on this folder."""
        request = self.request
        session = select(Session.id).where(Session.source == str(self.source))
        if request.session is not None:
            session = session.where(Session.key == request.session)
        latest = session.order_by(Session.id.desc()).limit(1).scalar_subquery()
        mine = (Processing.session_id == latest, Processing.name == request.processing)
        return self.catalog.read(lambda orm: orm.scalar(select(Processing).where(*mine)))

    def _open_session(
        self, microscope: str, scope: MicroscopeSection, parameters: Mapping[str, Any]
    ) -> Session:
        request = self.request
        known = session_of_source(self.catalog, self.source) if request.session is None else None
        key = request.session or (known.key if known else choose_session_key(self.source, now()))
        return open_session(
            self.catalog,
            key=key,
            source=self.source,
            microscope=microscope,
            experiment=request.experiment,
            sample=request.sample,
            settings={**parameters, "facility": scope.table()},
            root_of=lambda when: (
                session_folder(
                    self.config.storage.root, when, request.experiment, microscope, request.sample, key
                ).root
            ),
            mode="copy" if request.copy else scope.mode or "in_place",
        )

    # -- running --------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask for an end; what runs is given up and taken up again by the next run."""
        self._stop.set()  # the coordinator looks at it at least once a second

    def settled(self, at_least: int) -> bool:
        """Whether at least so many exposures came in, and none is open or still being written."""
        now = self._counts()
        exposures = now.exposures
        return exposures.came_in >= at_least and exposures.open == 0 and now.arriving == 0

    def run(self, on_progress: Callable[[Progress], None] | None = None) -> Counts:
        """Watch and process until stopped, or with ``once`` until all that is there is done.

        Returns
        -------
        Counts
            How the exposures ended.
        """
        pool = make_pool(self.config)
        acquisition = SessionAcquisition(
            self.config,
            self.catalog,
            self.session.id,
            item=self.plan.item,
            lease=self._lease,
            on_news=self._wake,
        )
        helpers = [
            threading.Thread(target=self._guard, args=(self._watch, acquisition), name="watcher"),
            threading.Thread(target=self._guard, args=(self._report, on_progress), name="reporter"),
        ]
        watch = PoolWatch(self.catalog, pool, lambda: [self.session.id])
        for helper in helpers:
            helper.start()
        watch.start()
        finished = False
        try:
            settings = Settings(min_free_bytes=self.config.storage.reserve_bytes)
            self._begin()
            if self._processing_id is not None:
                executor = pool.for_experiment(self.request.experiment)
                self._processing = ProcessingRun(self.catalog, self._processing_id, executor, settings)
                self._processing.run(self._stop)
            finished = self._failure is None
        finally:
            self._stop.set()
            for helper in helpers:
                helper.join()
            acquisition.close()
            watch.stop()
            pool.shutdown(wait=True, cancel_futures=True)  # its thread mustn't outlive the interpreter
            self._end(finished)
        if self._failure is not None:
            raise self._failure
        ended = self._counts()
        if on_progress is not None:
            on_progress(Progress(ended, self._look))  # how it ended, which the reporter may have missed
        return ended

    def _guard(self, work: Callable[..., None], *arguments: Any) -> None:
        """A helper that fails ends the run with its error, never silently."""
        try:
            work(*arguments)
        except BaseException as error:
            self._failure = self._failure or error
            self._stop.set()

    def _begin(self) -> None:
        """Wait for the first movie where the processing waits for it, and begin."""
        while self._processing_id is None and not self._stop.is_set():
            present(self._try_to_begin)
            if self._processing_id is None:
                self._news.wait(_BEGIN_EVERY_S)
                self._news.clear()

    def _try_to_begin(self) -> None:
        self._processing_id = begin_processing(
            self.config, self.catalog, self.session.id, wait=not self._no_movie
        )

    def _wake(self) -> None:
        self._news.set()
        if self._processing is not None:
            self._processing.wake()

    def _counts(self) -> Counts:
        found = counts(self.catalog, self.processing_id)
        if self._processing_id is not None:
            return found
        mine = select(func.count()).select_from(Exposure).where(Exposure.session_id == self.session.id)
        return replace(found, arriving=self.catalog.read(lambda orm: orm.scalar(mine)) or 0)

    def _watch(self, acquisition: SessionAcquisition) -> None:
        def note(report: AcquireReport) -> None:
            self._look = report.look
            if report.away:
                return
            self._looked = self._looked or report.look.lost is None
            if self.request.once:
                present(lambda: self._end_when_done(acquisition))

        acquisition.run(self._stop, note)

    def _end_when_done(self, acquisition: SessionAcquisition) -> None:
        """With ``once``: stop when nothing waits on disk, and nothing is open in the catalog."""
        look = self._look
        if not self._looked or look.lost or look.waiting or look.completed or not acquisition.settled():
            return
        now = self._counts()
        self._no_movie = True
        if now.exposures.open == 0 and now.arriving == 0:
            self._stop.set()
        self._wake()

    def _report(self, on_progress: Callable[[Progress], None] | None) -> None:
        if on_progress is None:
            return
        while not self._stop.wait(_REPORT_EVERY_S):
            present(lambda: on_progress(Progress(self._counts(), self._look)))

    def _end(self, finished: bool) -> None:
        state = SessionState.CLOSED if self.request.once and finished else SessionState.PAUSED
        set_session_state(self.catalog, self.session.key, state)
        write_session_record(self.catalog, self.session.key, self.folder.record)
        with suppress(OSError):  # it catches up at the next run
            SessionJournal(self.catalog, self.session.id).update(sweep=True)
        self._lease.release(self.catalog)


def _check_mode(session: Session, request: RunRequest) -> None:
    """A session keeps the mode that it was started with."""
    if request.copy and session.mode != "copy":
        raise BadParameter(
            f"session '{session.key}'",
            "a session whose files are copied",
            "one whose files were taken in where they are",
            "Leave out --copy, or give it another name with --session NAME.",
        )


def _existing(source: Path) -> Path:
    source = source.expanduser().absolute()
    if source.is_dir():
        return source
    found = "a file" if source.exists() else "nothing there"
    raise BadParameter(
        f"folder {source}",
        "a folder that a microscope writes",
        found,
        "Check the path, and that the share is mounted.",
    )
