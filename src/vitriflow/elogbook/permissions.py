"""Who may do what: one table of actions, and one function that pages, API and commands ask."""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from vitriflow.errors import VitriflowError


class Role(StrEnum):
    """What somebody is, of the facility or of one experiment; each may do more than those after it."""

    ADMINISTRATOR = "administrator"  # of the facility: everything, people too
    OPERATOR = "operator"  # of the facility (or of one experiment): runs sessions
    COLLABORATOR = "collaborator"  # of an experiment: reads, writes the log, controls while it's active
    RESEARCHER = "researcher"  # of an experiment: reads, downloads, marks
    PERSON = "person"  # signed in, of no experiment
    ANYONE = "anyone"  # not signed in


class Scope(StrEnum):
    """What a token may be used for."""

    READ = "read"
    WRITE = "write"
    CONTROL = "control"
    ADMIN = "admin"
    CONDUCT = "conduct"  # for a workflow engine: start what the pipeline does next


class About(StrEnum):
    """What an action is done to; it decides whose roles count."""

    NOTHING = "nothing"
    FACILITY = "facility"
    EXPERIMENT = "experiment"  # or what belongs to one: a sample, a session, an exposure, an entry


@dataclass(frozen=True)
class Action:
    """One thing that can be done.

    ``role`` is the least that may do it. ``while_current`` is a role below it that may as well, but
    only while the subject's session is the current one of its microscope.
    """

    role: Role
    scope: Scope
    about: About
    what: str
    while_current: Role | None = None


_READ, _WRITE, _CONTROL, _ADMIN = Scope.READ, Scope.WRITE, Scope.CONTROL, Scope.ADMIN
_CONDUCT = Scope.CONDUCT
_NOTHING, _FACILITY, _OURS = About.NOTHING, About.FACILITY, About.EXPERIMENT

ACTIONS: dict[str, Action] = {
    # -- anybody, and one's own account
    "anyone": Action(Role.ANYONE, _READ, _NOTHING, "see the sign-in page"),
    "sign-in": Action(Role.ANYONE, _READ, _NOTHING, "sign in or out"),
    "own.list": Action(
        Role.PERSON, _READ, _NOTHING, "list what is one's own: sessions, experiments, notices"
    ),
    "own.account": Action(Role.PERSON, _READ, _NOTHING, "see one's own account and tokens"),
    "own.change": Action(
        Role.PERSON, _ADMIN, _NOTHING, "make and revoke one's own tokens, change one's password"
    ),
    # -- an experiment and what belongs to it
    "experiment.read": Action(Role.RESEARCHER, _READ, _OURS, "see an experiment and its samples"),
    "experiment.people": Action(Role.RESEARCHER, _READ, _OURS, "see who belongs to an experiment"),
    "experiment.write": Action(Role.OPERATOR, _WRITE, _OURS, "change an experiment"),
    "membership.write": Action(Role.OPERATOR, _ADMIN, _OURS, "let people into an experiment, or out"),
    "sample.write": Action(Role.COLLABORATOR, _WRITE, _OURS, "describe samples, grids and boxes"),
    "log.read": Action(Role.RESEARCHER, _READ, _OURS, "read the log"),
    "log.write": Action(Role.COLLABORATOR, _WRITE, _OURS, "write into the log, with files"),
    "session.read": Action(Role.RESEARCHER, _READ, _OURS, "see a session, its exposures and results"),
    "session.download": Action(Role.RESEARCHER, _READ, _OURS, "list and download a session's files"),
    "session.mark": Action(Role.RESEARCHER, _WRITE, _OURS, "mark and comment exposures"),
    "session.start": Action(Role.OPERATOR, _CONTROL, _OURS, "start, activate and close sessions"),
    "session.control": Action(
        Role.OPERATOR,
        _CONTROL,
        _OURS,
        "pause, resume, stop a session and change its settings",
        while_current=Role.COLLABORATOR,
    ),
    "session.reprocess": Action(Role.COLLABORATOR, _CONTROL, _OURS, "start a new processing, set thresholds"),
    "session.helpers": Action(Role.OPERATOR, _CONTROL, _OURS, "let helpers log in for a session"),
    "session.custody": Action(
        Role.OPERATOR, _CONTROL, _OURS, "hold, archive, recall and free a session's files"
    ),
    "report.read": Action(Role.RESEARCHER, _READ, _OURS, "read a session's report"),
    "report.make": Action(Role.RESEARCHER, _WRITE, _OURS, "make a session's report"),
    # -- the facility
    "facility.read": Action(Role.OPERATOR, _READ, _FACILITY, "see all microscopes, services and alarms"),
    "facility.metrics": Action(Role.OPERATOR, _READ, _FACILITY, "read metrics"),
    "experiment.create": Action(Role.OPERATOR, _WRITE, _FACILITY, "make experiments"),
    "alarm.acknowledge": Action(Role.OPERATOR, _WRITE, _FACILITY, "acknowledge alarms"),
    "monitor.write": Action(Role.OPERATOR, _ADMIN, _FACILITY, "change monitors, notices and templates"),
    "access.read": Action(Role.OPERATOR, _READ, _FACILITY, "see who may log in to a microscope now"),
    "people.read": Action(Role.OPERATOR, _READ, _FACILITY, "see the facility's people"),
    "people.write": Action(Role.ADMINISTRATOR, _ADMIN, _FACILITY, "add and change people and their roles"),
    "conduct": Action(
        Role.OPERATOR, _CONDUCT, _FACILITY, "conduct processing for a workflow engine such as Airflow"
    ),
    "audit.read": Action(Role.ADMINISTRATOR, _ADMIN, _FACILITY, "read the audit log"),
}

_RANK = {
    Role.ANYONE: 0,
    Role.PERSON: 1,
    Role.RESEARCHER: 2,
    Role.COLLABORATOR: 3,
    Role.OPERATOR: 4,
    Role.ADMINISTRATOR: 5,
}
EXPERIMENT_ROLES = (Role.OPERATOR, Role.COLLABORATOR, Role.RESEARCHER)
FACILITY_ROLES = (Role.ADMINISTRATOR, Role.OPERATOR)
ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True)
class Caller:
    """Who asks, and how they came in: everything :func:`may` has to know.

    Parameters
    ----------
    way
        ``cookie``, ``token``, ``command`` (the command line on the facility's own machine),
        ``open`` (a loopback server of a catalog without people) or ``anonymous``.
    roles
        Role in each experiment that the person belongs to now, by the experiment's id.
    only_experiment
        The one experiment that a token was narrowed to; None for all.
    trail
        Grows with each audit row of this request, so that none is forgotten.
    """

    way: str = "anonymous"
    person_id: int | None = None
    login: str = ""
    name: str = ""
    facility_role: str = ""
    roles: dict[int, str] = field(default_factory=dict)
    scopes: frozenset[str] = ALL_SCOPES
    only_experiment: int | None = None
    address: str = ""
    csrf: str = ""
    trail: list[str] = field(default_factory=list, compare=False)

    @property
    def signed_in(self) -> bool:
        """Whether it's known who this is (or the machine's own user, in open mode)."""
        return self.way != "anonymous"

    @property
    def sees_all(self) -> bool:
        """Whether every experiment of the facility may be seen."""
        return self.facility_role in FACILITY_ROLES and self.only_experiment is None

    @property
    def experiments(self) -> frozenset[int] | None:
        """Ids of the experiments that lists may show; None for all. Filter every list's query by it."""
        if self.sees_all:
            return None
        mine = frozenset(self.roles)
        if self.only_experiment is None:
            return mine
        if self.facility_role in FACILITY_ROLES or self.only_experiment in mine:
            return frozenset({self.only_experiment})
        return frozenset()

    def role_in(self, experiment_id: int | None) -> Role:
        """The highest role that counts for an experiment (None: for the facility)."""
        if not self.signed_in:
            return Role.ANYONE
        if self.only_experiment is not None and experiment_id != self.only_experiment:
            return Role.PERSON
        if self.facility_role in FACILITY_ROLES:
            return Role(self.facility_role)
        return Role(self.roles.get(experiment_id, Role.PERSON)) if experiment_id is not None else Role.PERSON


ANONYMOUS = Caller()


@dataclass(frozen=True)
class Subject:
    """What an action is done to: an experiment, and whether its session is its microscope's current one."""

    experiment_id: int | None = None
    current: bool = False
    name: str = ""


FACILITY = Subject()


class Forbidden(VitriflowError):
    """Whoever asks is known, sees the thing, and may not do this."""


class SignInNeeded(VitriflowError):
    """It isn't known who asks."""


def may(caller: Caller, action: str, subject: Subject = FACILITY) -> bool:
    """Whether somebody may do something to something.

    Parameters
    ----------
    action
        A name of :data:`ACTIONS`; an unknown one is a mistake of the program (KeyError).
    """
    rule = ACTIONS[action]
    if rule.scope not in caller.scopes:
        return False
    where = subject.experiment_id if rule.about == About.EXPERIMENT else None
    if rule.about == About.EXPERIMENT and where is None:
        return False
    if rule.about == About.NOTHING:
        return _RANK[Role.PERSON if caller.signed_in else Role.ANYONE] >= _RANK[rule.role]
    rank = _RANK[caller.role_in(where)]
    if rank >= _RANK[rule.role]:
        return True
    return rule.while_current is not None and subject.current and rank >= _RANK[rule.while_current]


def sees(caller: Caller, subject: Subject) -> bool:
    """Whether somebody may know that a thing is there: what they don't see is answered as if it weren't."""
    seen = caller.experiments
    return seen is None or subject.experiment_id is None or subject.experiment_id in seen


def require(caller: Caller, action: str, subject: Subject = FACILITY) -> None:
    """Go on when it's allowed.

    Raises
    ------
    SignInNeeded
        When nobody is signed in.
    Forbidden
        Otherwise, saying who may.
    """
    if may(caller, action, subject):
        return
    rule = ACTIONS[action]
    if not caller.signed_in:
        raise SignInNeeded("sign-in", "somebody who is signed in", "nobody", "Sign in, or give a token.")
    if rule.scope not in caller.scopes:
        raise Forbidden(
            rule.what,
            f"a token with the scope {rule.scope}",
            "one with " + (", ".join(sorted(caller.scopes)) or "none"),
            "Make another token under 'My account'.",
        )
    least = f"{rule.role} or more"
    if rule.while_current is not None:
        least += f"; {rule.while_current} while the session is its microscope's current one"
    raise Forbidden(
        rule.what,
        least,
        f"{caller.login} is {caller.role_in(subject.experiment_id)}",
        "Ask an operator of the facility.",
    )


def narrowed(caller: Caller, found: Collection[int]) -> list[int]:
    """Those of some experiments (ids) that somebody may see."""
    seen = caller.experiments
    return [one for one in found if seen is None or one in seen]
