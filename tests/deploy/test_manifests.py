"""The deployment's files are what their tools expect, and say nothing that vitriflow doesn't know.

No container engine is at hand where the tests run, so images are neither built nor run: Dockerfiles are linted,
the others rendered with a facility's values and held against the published schemas.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY
from vitriflow.cli.app import app
from vitriflow.config import load_config

DEPLOY = REPOSITORY / "deploy"
COMPOSE = ("compose.yaml", "stack.yaml")
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
AIRFLOW = {"api-server", "scheduler", "dag-processor", "triggerer", "db"}
VALUES = {"REGISTRY": "registry.example.org", "VERSION": "0.1.0"}


def _tool(*command: str) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _values() -> dict[str, str]:
    lines = (DEPLOY / "example.env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {name: value or "secret" for name, value in given.items()} | VALUES


def _rendered(name: str) -> dict[str, Any]:
    """The file with a facility's values in it; a variable that example.env doesn't name is an error."""
    values = _values()

    def value(found: re.Match[str]) -> str:
        default = found[2]
        if default is not None and default.startswith(":-"):
            return values.get(found[1], default[2:])
        return values[found[1]]

    text = re.sub(r"\$\{(\w+)(:[-?][^}]*)?\}", value, (DEPLOY / name).read_text())
    assert "${" not in text
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.airflow"])
def test_dockerfiles_have_nothing_that_the_linter_warns_of(name: str) -> None:
    _tool("hadolint", str(DEPLOY / name))


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.airflow"])
def test_what_dockerfiles_copy_is_there(name: str) -> None:
    for line in (DEPLOY / name).read_text().splitlines():
        if line.startswith("COPY "):
            for source in line.split()[1:-1]:
                assert (REPOSITORY / source).exists(), source


@pytest.mark.parametrize("name", COMPOSE)
def test_rendered_compose_files_are_what_the_specification_says(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(yaml.safe_dump(_rendered(name)))
    _tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(path))


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_files_name_only_what_they_define(name: str) -> None:
    found = _rendered(name)
    for service in found["services"].values():
        for secret in service.get("secrets", ()):
            assert secret in found["secrets"]
        for needed in service.get("depends_on", {}):
            assert needed in found["services"]
        for file in service.get("env_file", ()):
            assert (DEPLOY / file).is_file()
        build = service.get("build")
        if build:
            assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()


@pytest.mark.parametrize("version", ["1.30", "1.34"])
def test_kubernetes_takes_each_object(version: str) -> None:
    assert KUBERNETES
    _tool("kubernetes-validate", "--strict", "-k", version, *map(str, KUBERNETES))


def _commands() -> Iterator[tuple[str, str]]:
    """Image and first word of each command, over all manifests."""
    for name in COMPOSE:
        for service in _rendered(name)["services"].values():
            if "command" in service:
                yield service["image"], service["command"][0]
    for path in KUBERNETES:
        for thing in yaml.safe_load_all(path.read_text()):
            pod = thing["spec"].get("template", {}).get("spec", {})
            for container in [*pod.get("containers", ()), *pod.get("initContainers", ())]:
                yield container["image"], container["args"][0]


def test_every_container_runs_a_command_that_there_is() -> None:
    ours = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    commands = list(_commands())
    assert len(commands) > 15
    for image, command in commands:
        assert command in (AIRFLOW if "airflow" in image else ours), (image, command)


def test_the_configuration_beside_it_can_be_loaded() -> None:
    config = load_config(DEPLOY / "config" / "facility.toml")
    assert set(config.microscopes) == {"tem1", "tem2"}
    assert config.airflow.conducts
