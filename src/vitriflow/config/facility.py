"""All of facility.toml in one model."""

import re
from pathlib import Path

from pydantic import Field, field_validator

from vitriflow.config.microscopes import MicroscopeSection
from vitriflow.config.sections import (
    AcquisitionSection,
    CatalogSection,
    ComputeSection,
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
    web: WebSection = WebSection()
    processing: ProcessingSection = ProcessingSection()
    microscopes: dict[str, MicroscopeSection] = Field(default_factory=dict)

    @field_validator("microscopes")
    @classmethod
    def _names_are_safe(cls, value: dict[str, MicroscopeSection]) -> dict[str, MicroscopeSection]:
        for name in value:
            if not _NAME.fullmatch(name):
                raise ValueError(f"a microscope's name has letters, digits, - and _ only, not {name!r}")
        return value

    @property
    def catalog_url(self) -> str:
        """URL of the catalog, the default filled in."""
        return self.catalog.url or f"sqlite:///{self.storage.root / 'catalog.db'}"

    def with_root(self, root: Path) -> "Config":
        """The same configuration with another storage root (and so another default catalog)."""
        storage = self.storage.model_copy(update={"root": root.absolute()})
        return self.model_copy(update={"storage": storage})
