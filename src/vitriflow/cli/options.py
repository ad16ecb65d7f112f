"""What several commands share: reading --set, loading the configuration, opening the catalog."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from vitriflow.config import Config, load_config
from vitriflow.errors import BadParameter

if TYPE_CHECKING:  # SQLAlchemy takes half a second to load, and half of the commands do without
    from vitriflow.catalog import Catalog

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="facility.toml; without it $VITRIFLOW_CONFIG, ./facility.toml, or defaults"
    ),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="Storage root; overrules the configuration's storage.root")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="A parameter; may be given several times"),
]


def parse_settings(settings: Iterable[str] | None) -> dict[str, Any]:
    """Turn ``key=value`` texts into typed values (numbers, true, false, null, [lists], text).

    Raises
    ------
    BadParameter
        When one has no ``=`` or no name, or is given twice.
    """
    values: dict[str, Any] = {}
    for text in settings or []:
        name, sign, value = text.partition("=")
        name = name.strip()
        if not sign or not name:
            raise BadParameter("--set", "KEY=VALUE", repr(text), "For example: --set pixel_size_A=0.83")
        if name in values:
            raise BadParameter(f"--set {name}", "each parameter once", "it twice", "Leave one out.")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            values[name] = value
    return values


def configured(config: Path | None, out: Path | None) -> Config:
    """Load the configuration, with the storage root that the command line names."""
    loaded = load_config(config)
    return loaded.with_root(out.expanduser()) if out is not None else loaded


def open_catalog(config: Config, *, create: bool = False) -> "Catalog":
    """Open the catalog of a configuration; with ``create``, make or upgrade it first.

    Raises
    ------
    VitriflowError
        When there's none yet, or it can't be opened.
    """
    from vitriflow.catalog import Catalog, check_schema, upgrade

    url = config.catalog_url
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.is_file():
            raise BadParameter(
                f"catalog {path}",
                "a catalog that 'vitriflow run' made",
                "no such file",
                "Name the storage root of your session with --out, or the configuration with --config.",
            )
    catalog = Catalog(url)
    if create:
        from vitriflow.facility.backup import backup_before_upgrade

        backup_before_upgrade(config, catalog)
        upgrade(catalog)
    else:
        check_schema(catalog)
    return catalog
