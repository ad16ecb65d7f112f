"""All of facility.toml in one model."""

import re
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from vitriflow.config.airflow import AirflowSection
from vitriflow.config.compute import ComputeSection
from vitriflow.config.logs import LogsSection
from vitriflow.config.microscopes import MicroscopeSection
from vitriflow.config.monitoring import MonitorsSection, NoticesSection, ReportsSection
from vitriflow.config.people import AccessSection, PeopleSection
from vitriflow.config.programs import ProgramsSection
from vitriflow.config.release import ReleaseSection
from vitriflow.config.sections import (
    AcquisitionSection,
    CatalogSection,
    FacilitySection,
    ProcessingSection,
    Section,
    StorageSection,
    WebSection,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Config(Section):
    """All of facility.toml. Every section may be left out."""

    facility: FacilitySection = FacilitySection()
    storage: StorageSection = StorageSection()
    catalog: CatalogSection = CatalogSection()
    compute: ComputeSection = ComputeSection()
    acquisition: AcquisitionSection = AcquisitionSection()
    release: ReleaseSection = ReleaseSection()
    airflow: AirflowSection = AirflowSection()
    web: WebSection = WebSection()
    people: PeopleSection = PeopleSection()
    access: AccessSection = AccessSection()
    processing: ProcessingSection = ProcessingSection()
    logs: LogsSection = LogsSection()
    programs: ProgramsSection = Field(default_factory=ProgramsSection)
    monitors: MonitorsSection = MonitorsSection()
    notices: NoticesSection = NoticesSection()
    reports: ReportsSection = ReportsSection()
    microscopes: dict[str, MicroscopeSection] = Field(default_factory=dict)

    @field_validator("microscopes")
    @classmethod
    def _names_are_safe(cls, value: dict[str, MicroscopeSection]) -> dict[str, MicroscopeSection]:
        for name in value:
            if not _NAME.fullmatch(name):
                raise ValueError(f"a microscope's name has letters, digits, - and _ only, not {name!r}")
        return value

    @model_validator(mode="after")
    def _copies_are_known(self) -> "Config":
        for where, names in (("storage", self.storage.copies), ("release", self.release.copies or ())):
            for name in names:
                if name != "disk" and name not in self.storage.tiers:
                    raise ValueError(f"{where}.copies to name 'disk' or a section [storage.tiers.{name}]")
        for name in self.storage.tiers:
            if name == "disk" or not _NAME.fullmatch(name):
                raise ValueError(f"a tier's name of letters, digits, - and _ that isn't 'disk', not {name!r}")
        return self

    @property
    def catalog_url(self) -> str:
        """URL of the catalog, the default filled in."""
        return self.catalog.url or f"sqlite:///{self.storage.root / 'catalog.db'}"

    def with_root(self, root: Path) -> "Config":
        """The same configuration with another storage root (and so another default catalog)."""
        storage = self.storage.model_copy(update={"root": root.absolute()})
        return self.model_copy(update={"storage": storage})
