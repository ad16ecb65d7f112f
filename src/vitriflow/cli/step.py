"""vitriflow step: run any step by hand."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vitriflow.cli.options import SetOption, parse_settings
from vitriflow.errors import BadParameter
from vitriflow.steps import (
    Artifact,
    Context,
    Result,
    Status,
    Step,
    find_step,
    make_parameters,
    run_step,
    step_names,
)
from vitriflow.steps.programs import broken_files

step_app = typer.Typer(help="List, describe and run single steps by hand.", no_args_is_help=True)
_err = Console(stderr=True)


@step_app.command("list")
def list_steps() -> None:
    """List the installed steps."""
    table = Table("step", "version", "what it does", box=None)
    for name in step_names():
        try:
            step = find_step(name)
        except Exception as error:  # a facility's own step may fail in any way; the others are still good
            table.add_row(name, "", f"[red]can't be loaded: {error}[/red]")
        else:
            table.add_row(name, step.version, step.summary)
    for file, wrong in broken_files().items():
        table.add_row(file, "", f"[red]can't be read: {escape(str(wrong))}[/red]")
    Console().print(table)


@step_app.command()
def describe(
    name: Annotated[str, typer.Argument(help="a step's name, as 'vitriflow step list' shows it")],
) -> None:
    """Show a step's inputs, outputs and parameters with their units."""
    step = find_step(name)
    console = Console()
    console.print(f"[bold]{step.name}[/bold] {step.version}: {step.summary}")
    for title, ports in (("takes", step.inputs), ("makes", step.outputs)):
        for port_name, port in ports.items():
            optional = " (optional)" if port.optional else ""
            console.print(
                f"  {title} [bold]{port_name}[/bold]{optional}, {port.kind}: {port.doc}", highlight=False
            )
    table = Table("parameter", "default", "meaning", box=None)
    for field_name, field in step.Parameters.model_fields.items():
        default = "required" if field.is_required() else str(field.get_default(call_default_factory=True))
        table.add_row(field_name, default, field.description or "")
    console.print(table)


@step_app.command()
def run(
    name: Annotated[str, typer.Argument(help="a step's name")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="input files, processed one by one")],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for what the step writes")],
    settings: SetOption = None,
    json: Annotated[
        bool, typer.Option("--json", help="print one JSON array with a record for each input")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda:0 ...; a GPU is taken when there is one")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads")] = os.cpu_count() or 1,
) -> None:
    """Run a step on files. Exits with 1 when any input did not end well."""
    step = find_step(name)
    values = parse_settings(settings)
    port = _main_port(step, values)
    parameters = make_parameters(step.name, step.Parameters, values)
    _prepare(out)
    device = _device(device, parameters, step)
    _limit_threads(threads)
    records: list[Result] = []
    with _err.status(f"{step.name} ...") as status:
        for number, (path, item) in enumerate(zip(files, _items(files), strict=True), start=1):
            status.update(f"{step.name}: {path.name} ({number} of {len(files)})")
            artifact = Artifact(kind=step.inputs[port].kind, path=path.absolute())
            context = Context(out=out.absolute(), item=item, device=device, threads=threads)
            records.append(run_step(step, {port: artifact}, parameters, context))
    _report(files, records, as_json=json)
    if any(record.status in (Status.FAILED, Status.QUARANTINED) for record in records):
        raise typer.Exit(1)


def _main_port(step: Step[Any, Any], values: dict[str, Any]) -> str:
    """The port for files given by hand: the one that 'input' names, else the required one, else the first."""
    named = values.get("input")
    if named is not None and named != "auto":
        if named not in step.inputs:
            raise BadParameter(
                f"{step.name}: parameter 'input'", "one of " + ", ".join(step.inputs), repr(named), ""
            )
        if "input" not in step.Parameters.model_fields:
            values.pop("input")
        return str(named)
    required = [name for name, port in step.inputs.items() if not port.optional]
    if len(required) > 1:
        raise BadParameter(
            step.name,
            "a step with one required input",
            ", ".join(required),
            "This step can only run inside a pipeline.",
        )
    return required[0] if required else next(iter(step.inputs))


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadParameter(
            f"--out {out}", "a folder that can be written", error.strerror or str(error), "Name another."
        ) from error


def _items(files: list[Path]) -> list[str]:
    """Output names: the file's stem, with its parent folder where stems repeat."""
    stems = [path.stem for path in files]
    if len(set(stems)) == len(stems):
        return stems
    names = [f"{path.absolute().parent.name}/{path.stem}" for path in files]
    if len(set(names)) < len(names):
        raise BadParameter(
            "FILE...", "files with different names", "two that would overwrite each other's results", ""
        )
    return names


def _device(device: str, parameters: Any, step: Step[Any, Any]) -> str:
    if device != "auto":
        return device
    if step.resources(parameters).gpus < 1:
        return "cpu"
    import torch  # only here: other commands start at once

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _limit_threads(threads: int) -> None:
    import numba
    import torch

    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, len(os.sched_getaffinity(0))))


def _report(files: list[Path], records: list[Result], *, as_json: bool) -> None:
    if as_json:
        flat = [{"file": str(path), **record.flat()} for path, record in zip(files, records, strict=True)]
        sys.stdout.buffer.write(orjson.dumps(flat, option=orjson.OPT_INDENT_2) + b"\n")
        return
    console = Console()
    for path, record in zip(files, records, strict=True):
        colour = "green" if record.status == Status.DONE else "red"
        console.print(
            f"[{colour}]{record.status}[/{colour}] {path.name}  {record.seconds:.2f} s", highlight=False
        )
        if record.reason:
            console.print(f"  {record.reason}", highlight=False, markup=False)
        for warning in record.warnings:
            console.print(f"  warning: {warning}", highlight=False, markup=False)
        for field, value in record.model_dump(mode="json").items():
            if field not in Result.model_fields and isinstance(value, int | float | str):
                shown = f"{value:.6g}" if isinstance(value, float) else value
                console.print(f"  {field:28} {shown}", highlight=False, markup=False)
        for port, artifact in record.outputs.items():
            console.print(f"  {port:28} {artifact.path}", highlight=False, markup=False, soft_wrap=True)
