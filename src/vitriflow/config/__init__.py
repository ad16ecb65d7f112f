"""facility.toml: one typed configuration file, with errors that name the line and the remedy.

Sections stand in ``sections.py`` and ``microscopes.py``, the whole in ``facility.py``, reading in
``loading.py``, and what ``vitriflow init`` writes in ``example.toml``.
"""

from vitriflow.config.compute import (
    BurstSection,
    CallLimits,
    ComputeSection,
    PoolSection,
    ProjectSection,
    ShutdownSection,
    as_walltime,
)
from vitriflow.config.facility import Config
from vitriflow.config.loading import ENVIRONMENT, FILE_NAME, example_config, find_config, load_config
from vitriflow.config.logs import LogsSection, start_logging
from vitriflow.config.microscopes import CameraSection, LimitsSection, MicroscopeSection
from vitriflow.config.monitoring import (
    MailSection,
    MonitorsSection,
    NoticesSection,
    ReportsSection,
    RouteSection,
    RuleSection,
)
from vitriflow.config.people import AccessSection, LdapGroupSection, LdapSection, PeopleSection
from vitriflow.config.programs import ProgramSection, ProgramsSection
from vitriflow.config.release import ReleaseSection
from vitriflow.config.sections import (
    DEFAULT_ROOT,
    AcquisitionSection,
    CatalogSection,
    FacilitySection,
    ProcessingSection,
    Section,
    StorageSection,
    TierSection,
    WebSection,
)

__all__ = [
    "DEFAULT_ROOT",
    "ENVIRONMENT",
    "FILE_NAME",
    "AccessSection",
    "AcquisitionSection",
    "BurstSection",
    "CallLimits",
    "CameraSection",
    "CatalogSection",
    "ComputeSection",
    "Config",
    "FacilitySection",
    "LdapGroupSection",
    "LdapSection",
    "LimitsSection",
    "LogsSection",
    "MailSection",
    "MicroscopeSection",
    "MonitorsSection",
    "NoticesSection",
    "PeopleSection",
    "PoolSection",
    "ProcessingSection",
    "ProgramSection",
    "ProgramsSection",
    "ProjectSection",
    "ReleaseSection",
    "ReportsSection",
    "RouteSection",
    "RuleSection",
    "Section",
    "ShutdownSection",
    "StorageSection",
    "TierSection",
    "WebSection",
    "as_walltime",
    "example_config",
    "find_config",
    "load_config",
    "start_logging",
]
