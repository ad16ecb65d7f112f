"""What facility.toml says of alarms: rules over what is measured, who is told and how, and reports."""

import re
from collections.abc import Mapping
from datetime import time
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jinja2 import TemplateError, meta
from jinja2.sandbox import SandboxedEnvironment
from pydantic import Field, field_validator, model_validator

from vitriflow.config.monitoring_defaults import DEFAULT_RULES
from vitriflow.config.sections import Section

Severity = Literal["info", "warning", "alarm"]
Statistic = Literal["median", "mean", "p95", "max", "min", "count", "fraction"]
#: Measured of each exposure (columns of ``Measure``); fractions and counts of states; of a session; of a machine.
MEASURED = (
    "early_A",
    "late_A",
    "total_A",
    "net_A",
    "mean_intensity",
    "defocus_A",
    "astigmatism_A",
    "phase_shift_deg",
    "cross_correlation",
    "fit_resolution_A",
    "ice_ring",
    "n_picks",
    "latency_s",
)
STATES = ("done", "rejected", "quarantined", "failed", "set_aside", "doubtful")
WAITING = ("waiting_min",)
MACHINE = (
    "cpu_percent",
    "load_per_core",
    "memory_percent",
    "swap_percent",
    "network_MB_per_s",
    "network_errors_per_s",
    "gpu_percent",
    "gpu_memory_percent",
    "gpu_temperature_C",
)
RULE_WORDS = (
    "value", "limit", "label", "unit", "session", "microscope", "sample", "experiment", "n", "window",
    "before", "host", "service",
)  # fmt: skip
NOTICE_WORDS = ("facility", "alarms", "n", "severity", "over", "page")
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")


def quiet_times(text: str) -> tuple[time, time] | None:
    """From and until of ``22:00-07:00``; None of an empty text.

    Raises
    ------
    ValueError
        When it isn't of that form.
    """
    if not text:
        return None
    match = _HOURS.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'hours such as "22:00-07:00", not {text!r}')
    first, second, third, fourth = (int(part) for part in match.groups())
    return time(first, second), time(third, fourth)


def check_template(text: str, known: tuple[str, ...]) -> str:
    """A message template that can be read and names only what it will be given.

    Raises
    ------
    ValueError
        Saying what's wrong.
    """
    try:
        names = meta.find_undeclared_variables(SandboxedEnvironment().parse(text))
    except TemplateError as error:
        raise ValueError(f"a Jinja2 template ({error})") from error
    unknown = sorted(names - set(known))
    if unknown:
        raise ValueError(f"a template that names only {', '.join(known)}; not {', '.join(unknown)}")
    return text


class RuleSection(Section):
    """A rule over a quantity: an alarm is raised beyond a limit, and cleared only well within it."""

    name: str = Field(description="the rule's own name; that of a shipped rule changes that one")
    quantity: str = Field(
        description=f"of exposures: {', '.join(MEASURED)}; parts of them: {', '.join(STATES)}; "
        f"of a session: {', '.join(WAITING)}; of a machine: {', '.join(MACHINE)}"
    )
    statistic: Statistic = Field(default="median", description="of the window")
    exposures: int | None = Field(
        default=None, ge=1, le=2000, description="the window: so many newest exposures; 30 without any window"
    )
    minutes: float | None = Field(default=None, gt=0, le=1440, description="the window: so many minutes")
    least: int = Field(default=10, ge=1, le=2000, description="nothing is said of fewer values than this")
    against_start: bool = Field(
        default=False,
        description="limits are multiples of the same statistic over the session's first exposures, which never change",
    )
    above: float | None = Field(default=None, description="wrong at this or more")
    below: float | None = Field(default=None, description="wrong at this or less")
    clear_below: float | None = Field(
        default=None, description="over again at this or less; without it, 10 % lower"
    )
    clear_above: float | None = Field(
        default=None, description="over again at this or more; without it, 10 % higher"
    )
    severity: Severity = Field(default="warning", description="info, warning or alarm")
    microscopes: tuple[str, ...] = Field(default=(), description="only these; all without")
    quiet_hours: str = Field(default="", description='no notices of this rule then, such as "22:00-07:00"')
    message: str = Field(default="", description="template of the sentence that people are told")
    enabled: bool = Field(default=True, description="false: not looked at")

    @field_validator("name")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(f"a name of small letters, digits, - and _, not {value!r}")
        return value

    @field_validator("quantity")
    @classmethod
    def _is_known(cls, value: str) -> str:
        known = (*MEASURED, *STATES, *WAITING, *MACHINE)
        if value not in known:
            raise ValueError(f"one of {', '.join(known)}, not {value!r}")
        return value

    @field_validator("quiet_hours")
    @classmethod
    def _are_hours(cls, value: str) -> str:
        quiet_times(value)
        return value

    @field_validator("message")
    @classmethod
    def _can_be_read(cls, value: str) -> str:
        return check_template(value, RULE_WORDS)

    @model_validator(mode="after")
    def _fits_together(self) -> "RuleSection":
        if self.above is None and self.below is None:
            raise ValueError(f"a limit, above or below, in rule {self.name}")
        if self.exposures is not None and self.minutes is not None:
            raise ValueError(f"one window, exposures or minutes, in rule {self.name}")
        if self.quantity in STATES and self.statistic not in ("fraction", "count"):
            raise ValueError(f"statistic fraction or count of {self.quantity} in rule {self.name}")
        if self.quantity not in STATES and self.statistic == "fraction":
            raise ValueError(f"no fraction of {self.quantity} in rule {self.name}: it isn't a state")
        if self.quantity in MACHINE and (self.exposures is not None or self.against_start):
            raise ValueError(f"a window in minutes in rule {self.name}: it's about a machine")
        over, under = self.clears
        if (self.above is not None and over is not None and over > self.above) or (
            self.below is not None and under is not None and under < self.below
        ):
            raise ValueError(f"a limit to clear that's on the good side of the other, in rule {self.name}")
        if over is not None and under is not None and under > over:
            raise ValueError(f"room between the limits at which rule {self.name} clears")
        return self

    @property
    def clears(self) -> tuple[float | None, float | None]:
        """At or below which, and at or above which, it's over again."""
        over, under = self.clear_below, self.clear_above
        if over is None and self.above is not None:
            over = self.above - 0.1 * abs(self.above)
        if under is None and self.below is not None:
            under = self.below + 0.1 * abs(self.below)
        return over, under


class MonitorsSection(Section):
    """When people are told that something goes wrong."""

    silence_min: float = Field(
        default=30.0,
        gt=0,
        description="an active session without a new file for this long raises an alarm (min)",
    )
    disk_full_h: float = Field(
        default=12.0,
        gt=0,
        description="a disk that will be full within this time, at the present rate, does (h)",
    )
    copy_behind_min: float = Field(
        default=15.0, gt=0, description="files that wait to be copied for longer than this do (min)"
    )
    node_lost_s: float = Field(
        default=60.0, gt=0, description="a service that wasn't heard of for this long does (s)"
    )
    look_every_s: float = Field(default=10.0, gt=0, le=3600, description="time between two looks (s)")
    rules: tuple[RuleSection, ...] = Field(
        default=(), validate_default=True, description="rules: [[monitors.rules]]; those shipped come first"
    )

    @field_validator("rules", mode="before")
    @classmethod
    def _with_shipped(cls, value: Any) -> Any:
        """Put the shipped rules before a facility's own; one of the same name changes what it says."""
        if not isinstance(value, list | tuple):
            return value
        own = [one.model_dump(exclude_unset=True) if isinstance(one, RuleSection) else one for one in value]
        shipped = {str(one["name"]): dict(one) for one in DEFAULT_RULES}
        added = []
        for one in own:
            name = one.get("name") if isinstance(one, Mapping) else None
            if isinstance(name, str) and name in shipped:
                shipped[name] |= _without_other_window(one)
            else:
                added.append(one)
        names = [str(one.get("name")) for one in added if isinstance(one, Mapping)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"each rule once, not {twice!r} twice")
        return [*shipped.values(), *added]


def _without_other_window(given: Mapping[str, Any]) -> dict[str, Any]:
    changes = dict(given)
    if "minutes" in changes:
        changes.setdefault("exposures", None)
    if "exposures" in changes:
        changes.setdefault("minutes", None)
    return changes


class MailSection(Section):
    """A mail server and its readers."""

    host: str = Field(min_length=1, description="SMTP server")
    port: int | None = Field(
        default=None, ge=1, le=65535, description="587 for starttls, 465 for tls, 25 for none"
    )
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="none only on a network that you trust; never with a password"
    )
    ca_file: Path | None = Field(default=None, description="its certificates; the system's without")
    user: str | None = Field(default=None, description="signs in as this one")
    password_file: Path | None = Field(default=None, description="file with the password and nothing else")
    sender: str = Field(pattern=r"^[^\s@]+@[^\s@]+$", description="address that messages come from")
    recipients: tuple[str, ...] = Field(min_length=1, description="addresses that they go to")

    @field_validator("recipients")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if not re.fullmatch(r"[^\s@]+@[^\s@]+", one):
                raise ValueError(f"mail addresses, not {one!r}")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "MailSection":
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file, both or neither")
        if self.user is not None and self.security == "none":
            raise ValueError("security starttls or tls: a password isn't sent in the clear")
        return self


class RouteSection(Section):
    """One way by which people are told, and of what."""

    mail: MailSection | None = Field(default=None, description="by e-mail: host, sender, recipients ...")
    url: str | None = Field(
        default=None,
        description="by an address of apprise: slack://, msteams://, matrixs://, jsons:// (a webhook) ...",
    )
    url_file: Path | None = Field(default=None, description="file with that address, when it holds a secret")
    severities: tuple[Severity, ...] = Field(default=("warning", "alarm"), description="only alarms of these")
    microscopes: tuple[str, ...] = Field(default=(), description="only of these (and of none); all without")
    rules: tuple[str, ...] = Field(default=(), description="only of these rules; all without")
    over: bool = Field(default=True, description="told when it's over as well")
    quiet_hours: str = Field(default="", description='nothing is sent then, such as "22:00-07:00"')
    loud: tuple[Severity, ...] = Field(default=("alarm",), description="sent in quiet hours all the same")
    subject: str = Field(
        default="{{ facility }}: {% if over %}over: {% endif %}{{ alarms[0].text | truncate(90, true) }}"
        "{% if n > 1 %} (and {{ n - 1 }} more){% endif %}",
        description="template of the subject",
    )
    message: str = Field(
        default="{% for one in alarms %}{% if one.over %}Over: {% else %}{{ one.severity | capitalize }}: {% endif %}"
        "{{ one.text }}\n  since {{ one.since }}{% if one.microscope %}, {{ one.microscope }}{% endif %}"
        "{% if one.session %}, session {{ one.session }}{% endif %}\n\n{% endfor %}{{ page }}",
        description="template of the message",
    )

    @field_validator("quiet_hours")
    @classmethod
    def _are_hours(cls, value: str) -> str:
        quiet_times(value)
        return value

    @field_validator("subject", "message")
    @classmethod
    def _can_be_read(cls, value: str) -> str:
        return check_template(value, NOTICE_WORDS)

    @model_validator(mode="after")
    def _has_one_way(self) -> "RouteSection":
        if sum(way is not None for way in (self.mail, self.url, self.url_file)) != 1:
            raise ValueError("one of mail, url and url_file")
        return self


class NoticesSection(Section):
    """Who is told of alarms. [notices.to.NAME] for each way."""

    to: dict[str, RouteSection] = Field(default_factory=dict, description="ways by name")
    page: str = Field(default="", description="address of the pages, put into messages")
    time_zone: str = Field(default="UTC", description="of quiet hours and of times in messages")
    retry_s: float = Field(
        default=30.0,
        gt=0,
        description="what can't be delivered is tried again after this, then twice as long (s) ...",
    )
    give_up_h: float = Field(default=24.0, gt=0, description="... until it's so old (h)")

    @field_validator("to")
    @classmethod
    def _names_are_safe(cls, value: dict[str, RouteSection]) -> dict[str, RouteSection]:
        for name in value:
            if not _NAME.fullmatch(name):
                raise ValueError(f"a name of small letters, digits, - and _, not {name!r}")
        return value

    @field_validator("time_zone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"a time zone such as Europe/Berlin, not {value!r}") from error
        return value


class ReportsSection(Section):
    """Reports of sessions."""

    publish_to: Path | None = Field(
        default=None,
        description="folder that reports are written to, at the close of a session and on schedule",
    )
    every_h: float | None = Field(
        default=None,
        gt=0,
        le=8760,
        description="active sessions' reports are written so often; only at close without",
    )
    template: Path | None = Field(default=None, description="a facility's own Jinja2 template of the page")
    pictures: int = Field(default=6, ge=0, le=48, description="best and typical micrographs, of each so many")
