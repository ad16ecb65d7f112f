"""Documents say what is so: links lead somewhere, commands exist, the reference is of this code."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from vitriflow.cli import app
from vitriflow.config import Config

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [REPOSITORY / "README.md", *REPOSITORY.glob("CHANGELOG.md"), *(REPOSITORY / "docs").rglob("*.md")]
)
BINARY = re.compile(r"(?:^|[\s(;&|])(?:\.venv/bin/)?vitriflow\s+(.+)$")


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def test_the_reference_was_written_from_this_code() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/reference.py", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def prose(page: Path) -> str:
    """A page without its code, in which square brackets are no links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = page if not path else (page.parent / path).resolve()
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """Headings as GitHub names them."""
    heads = re.findall(r"^#+\s+(.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def commands(page: Path) -> Iterator[str]:
    """Everything after ``vitriflow`` in a page's code, lines that go on joined."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|bash|console|)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"\s#.*$", "", line.strip().removeprefix("$ "))
            found = BINARY.search(line)
            if found:
                yield found.group(1)
    without = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"`(?:\.venv/bin/)?vitriflow ([^`\n]+)`", without)


def shown() -> list[tuple[str, str]]:
    return [(name_of(page), line) for page in PAGES for line in commands(page)]


@cache
def whole_command() -> Any:
    return typer.main.get_command(app)


@pytest.mark.parametrize(("page", "line"), shown())
def test_every_command_shown_exists_with_its_options(page: str, line: str) -> None:
    line = re.sub(r"\$\([^)]*\)", "FILE", line).split(" > ")[0].rstrip(" &")
    command = whole_command()
    words = shlex.split(line)
    while words and not words[0].startswith("-") and (inside := getattr(command, "commands", None)):
        inner = inside.get(words[0])
        assert inner is not None, f"{page}: no command '{words[0]}' in: vitriflow {line}"
        command, words = inner, words[1:]
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    known |= {"--help", "-h"}
    unknown = [word for word in words if word.startswith("-") and word.split("=")[0] not in known]
    assert unknown == [], f"{page}: vitriflow {line}"


def test_commands_are_found_in_the_pages() -> None:
    assert len(shown()) > 20  # else the search above finds nothing and the tests of it mean nothing


def test_every_parameter_that_a_document_sets_is_one_that_a_step_knows() -> None:
    from vitriflow.elogbook.imaging import ImagingParameters
    from vitriflow.steps import find_step, step_names

    known = {field for name in step_names() for field in find_step(name).Parameters.model_fields}
    wrong = []
    for page, line in shown():
        asked = set(ImagingParameters.model_fields) if line.split()[:1] == ["sample"] else set()
        for setting in re.findall(r"--set\s+\"?([A-Za-z_]+)=", line):
            if setting not in known | asked:
                wrong.append((page, setting))
    assert wrong == []


def test_every_section_of_the_configuration_that_a_document_shows_exists() -> None:
    sections = set(Config.model_fields)
    wrong = []
    for page in PAGES:
        for block in re.findall(
            r"^```toml\n(.*?)^```", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE
        ):
            for header in re.findall(r"^\[([a-z]+)", block, flags=re.MULTILINE):
                if header not in sections and "project" not in header:
                    wrong.append((name_of(page), header))
    assert wrong == []


def test_every_shell_target_of_make_that_a_document_shows_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    wrong = []
    for page in PAGES:
        for target in re.findall(r"(?:^|`|\s)make ([a-z-]+)(?=[`\s])", _code(page), flags=re.MULTILINE):
            if target not in targets:
                wrong.append((name_of(page), target))
    assert wrong == []


def _code(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return "\n".join([*blocks, *re.findall(r"`[^`\n]+`", text)])
