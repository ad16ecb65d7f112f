"""vitriflow demo: what ``make demo`` runs."""

import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from vitriflow.cli.options import open_catalog
from vitriflow.cli.progress import RunDisplay
from vitriflow.cli.session import free_port, start_pages
from vitriflow.config import Config

if TYPE_CHECKING:
    from vitriflow.facility.demo import DemoReport
    from vitriflow.facility.run import SessionRun


def demo(
    exposures: Annotated[int, typer.Option(min=1, help="movies that the simulated microscope writes")] = 12,
    every: Annotated[float, typer.Option(min=0.1, help="seconds from one movie to the next")] = 12.0,
    once: Annotated[
        bool, typer.Option("--once", help="end by itself; exit with 1 if results are not good")
    ] = False,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="folder of the demo; what is in it is replaced")
    ] = Path("demo"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="port of the pages; 0 takes a free one")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="everything random follows from it")] = 1,
) -> None:
    """Play a simulated microscope, process its movies live, show them in a browser, judge the results."""
    from vitriflow.facility.demo import DemoRequest, clear_demo, run_demo

    console = Console()
    out = out.expanduser().absolute()
    clear_demo(out)
    config = Config().with_root(out / "results")
    port = free_port("127.0.0.1", port)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _asks(stopped))
    catalog = open_catalog(config, create=True)
    pages = start_pages(None, out / "results", "--port", str(port))
    started = time.monotonic()
    try:
        url = f"http://127.0.0.1:{port}"

        def announce(session_run: "SessionRun") -> None:
            console.print(f"[bold]Open {url}/sessions/{session_run.session.key}[/bold]", highlight=False)
            if not once:
                console.print("End with Ctrl-C; the results and the truth are then compared.")

        with RunDisplay(console) as display:
            request = DemoRequest(out=out, exposures=exposures, every_s=every, once=once, seed=seed)
            report = run_demo(config, catalog, request, announce, display.update, stopped)
        served = _page_answers(url)
    finally:
        pages.terminate()
        pages.wait(10)
        catalog.close()
    _print_report(console, report, time.monotonic() - started)
    failures = report.failures() if once else []
    if once and not served:
        failures.append(f"the pages on {url} do not answer")
    for failure in failures:
        console.print(f"[red]{failure}[/red]", highlight=False)
    if failures:
        raise typer.Exit(1)
    if report.comparisons and not report.failures():
        console.print("[green]All results are within their tolerances.[/green]")


def _asks(stopped: threading.Event) -> "signal._HANDLER":
    def ask(number: int, _frame: FrameType | None) -> None:
        stopped.set()
        signal.signal(number, signal.SIG_DFL)

    return ask


def _page_answers(url: str, patience_s: float = 30.0) -> bool:
    """Whether the pages answer; on a busy machine a short demo ends before they've come up."""
    limit = time.monotonic() + patience_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            if time.monotonic() > limit:
                return False
            time.sleep(0.2)


def _print_report(console: Console, report: "DemoReport", seconds: float) -> None:
    from vitriflow.facility import judging

    table = Table(box=None)
    for heading in (
        "movie",
        "shift error",
        "defocus",
        "error",
        "angle error",
        "picks",
        "true",
        "F1",
        "within",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("", "px", "A", "%", "degrees", "", "", "", "")
    for number, c in enumerate(report.comparisons, start=1):
        table.add_row(
            str(number),
            _show(c.shift_error_px, "{:.3f}"),
            _show(c.defocus_A, "{:.0f}"),
            _show(None if c.defocus_error is None else 100 * c.defocus_error, "{:.2f}"),
            _show(c.angle_error_deg if c.astigmatism_A > judging.ANGLE_COUNTS_ABOVE_A else None, "{:.1f}"),
            _show(c.n_picks, "{}"),
            str(c.n_true),
            _show(c.f1, "{:.2f}"),
            "[red]no[/red]" if c.failures() else "[green]yes[/green]",
        )
    console.print(table)
    console.print(
        f"Tolerances: shift {judging.SHIFT_TOLERANCE_PX} px RMS, defocus {100 * judging.DEFOCUS_TOLERANCE:g} %, "
        f"angle {judging.ANGLE_TOLERANCE_DEG:g} degrees above {judging.ANGLE_COUNTS_ABOVE_A:g} A of astigmatism, "
        f"F1 {judging.F1_TOLERANCE:g}.",
        highlight=False,
    )
    if report.latencies_s:
        console.print(
            f"From file complete to exposure page: p50 {report.latency(50):.1f} s, p95 {report.latency(95):.1f} s "
            f"({len(report.latencies_s)} exposures in {seconds:.0f} s).",
            highlight=False,
        )


def _show(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
