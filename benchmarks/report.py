"""What was measured against what was aimed at, and the same for the docs."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import web_pages
from benchmarks.measure import table

DOCS = Path("docs/explanations/measurements.md")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
BEGIN_OF, END_OF = "<!-- measured: begin {} -->", "<!-- measured: end {} -->"  # of one section


@dataclass(frozen=True)
class Goal:
    """One line of the table of goals; ``met`` is None where it couldn't be measured."""

    what: str
    aim: str
    found: str
    met: bool | None


def goals(data: Mapping[str, Any]) -> list[Goal]:
    """Goals of the issues that a run's data say something about."""
    makers: dict[str, Callable[[Mapping[str, Any]], list[Goal]]] = {
        "engine": _engine,
        "web": _web,
        "web_pages": _web_pages,
        "end_to_end": _end_to_end,
        "motion": _motion,
        "ctf": _ctf,
        "picking": _picking,
        "copying": _copying,
        "scanning": _scanning,
        "airflow": _airflow,
    }
    found: list[Goal] = []
    for name, make in makers.items():
        section = data.get(name)
        if section and "failed" not in section:
            found += make(section)
    return found


def goals_table(found: list[Goal]) -> str:
    words = {True: "yes", False: "**no**", None: "not measured"}
    return table(("goal", "aim", "found", "met"), [(g.what, g.aim, g.found, words[g.met]) for g in found])


def _engine(data: Mapping[str, Any]) -> list[Goal]:
    found = []
    rate, growth = data.get("exposures_per_s"), data.get("growth")
    if rate is not None:
        found.append(Goal("four no-op nodes, 2 cores", "100 exposures/s", f"{rate:.0f}", rate >= 100))
    if growth is not None:
        found.append(
            Goal("cost at 50,000 exposures over 1,000", "at most 1.5", f"{growth:.2f}", growth <= 1.5)
        )
    return found


def _copying(data: Mapping[str, Any]) -> list[Goal]:
    ratio, burst = data["ratio"], data["burst"]
    how = ", ".join(data["methods"])
    drained = f"{burst['left_MB']:.0f} MB left, gone after {burst['drain_s']:.1f} s"
    slowest = data["ours_MB_per_s"][1]
    return [
        Goal(f"copy and prove ({how}) over dd and compare", "at least 0.80", f"{ratio:.2f}", ratio >= 0.8),
        Goal("a K2's bursts (570 MB/s) are absorbed and drain", "they drain", drained, True),
        Goal(
            "hashing isn't the limit",
            "faster than copying",
            f"{data['hashing_MB_per_s']:.0f} MB/s a core, copying {slowest:.0f}",
            data["hashing_MB_per_s"] > slowest,
        ),
        Goal(
            "memory of copying is flat",
            "no growth",
            f"{data['memory_growth_MB']:.0f} MB",
            data["memory_growth_MB"] < 64,
        ),
    ]


def _airflow(data: Mapping[str, Any]) -> list[Goal]:
    from benchmarks.airflow import met

    idle, steady, reached = data["idle_s"], data["steady"], met(data)
    return [
        Goal(
            "added latency through Airflow when idle", "under 10 s", f"{idle['p50']:.1f} s", reached["idle"]
        ),
        Goal(
            "1,000 exposures an hour through Airflow, 5 no-op nodes",
            "sustained",
            f"p50 {steady['p50_last_third']:.1f} s in the last third; a backlog goes at "
            f"{data['burst']['per_hour']:.0f} an hour",
            reached["steady"],
        ),
    ]


def _scanning(data: Mapping[str, Any]) -> list[Goal]:
    few, many, half, p95 = data["few"], data["many"], data["half"], data["latency"]["p95_s"]
    active = few["active_s"]
    return [
        Goal(
            f"one look at {few['exposures']:,} exposures in 3 folders",
            "under 0.5 s of CPU",
            f"{active:.2f} s",
            active < 0.5,
        ),
        Goal(
            "the same when no folder can change any more",
            "doesn't grow",
            f"{many['cold_s'] * 1e3:.0f} ms; with half as many {half['cold_s'] * 1e3:.0f} ms",
            many["cold_s"] < max(2.0 * half["cold_s"], 0.02),
        ),
        Goal("complete to recognised (p95), default settings", "under 5 s", f"{p95:.1f} s", p95 < 5.0),
    ]


def _web(data: Mapping[str, Any]) -> list[Goal]:
    times = [one[when]["p95_ms"] for one in data["routes"].values() for when in ("rest", "live")]
    worst, text = max(times), f"{data['exposures']:,} exposures"
    return [Goal(f"slowest page or API answer (p95), {text}", "under 100 ms", f"{worst:.0f} ms", worst < 100)]


def _web_pages(data: Mapping[str, Any]) -> list[Goal]:
    count, (name, worst) = f"{data['exposures']:,} exposures", web_pages.worst_interaction(dict(data))
    found = []
    for kind, words in (("first", "an empty browser cache"), ("again", "a browser that was here")):
        times = web_pages.paint(dict(data), kind)
        median = sorted(times)[len(times) // 2]
        what = f"first paint of the data, {count}, {words}"
        text = f"{median:.0f} ms (at most {max(times):.0f})"
        found.append(Goal(what, "under 200 ms", text, median < web_pages.PAINT_MS))
    slowest = Goal(
        "slowest interaction (median)",
        "under 100 ms",
        f"{worst:.0f} ms ({name})",
        worst < web_pages.INTERACTION_MS,
    )
    return [*found, slowest]


def _end_to_end(data: Mapping[str, Any]) -> list[Goal]:
    backlog, live = data["backlog"], data["live"]
    peak = backlog["worker_peak_GB"]
    return [
        Goal(
            "end to end on 2 cores",
            "25 to 75 (K2), 50 to 100 (Falcon) movies/hour",
            f"{backlog['movies_per_hour']:.0f}",
            backlog["movies_per_hour"] >= 75,
        ),
        Goal("peak memory of a worker", "under 3 GB", f"{peak:.2f} GB", peak < 3.0),
        Goal(
            "latency, file complete to result",
            "printed",
            f"p50 {live['latency_p50_s']:.1f} s, p95 {live['latency_p95_s']:.1f} s",
            True,
        ),
    ]


def _motion(data: Mapping[str, Any]) -> list[Goal]:
    if not data["cases"]:
        return []
    summary, first = data["summary"], data["cases"][0]["programs"]
    ratio = summary.get("ratio")
    peak = first["cold"]["peak_GB"]["median"]
    found = [Goal("motion: peak memory", "at most 2 GB", f"{peak:.2f} GB", peak <= 2.0)]
    if ratio is None:
        return [*found, Goal("motion against RELION", "6 times as fast", "no RELION here", None)]
    warm, cold = ratio["time_warm"], ratio["time_cold"]
    ours, theirs = summary["native_median_px"], summary["relion_median_px"]
    worst = summary["worst_case"]
    return [
        Goal("motion: RELION's time over ours, warm worker", "at least 6", f"{warm:.1f}", warm >= 6.0),
        Goal("motion: the same, whole command", "at least 6", f"{cold:.1f}", cold >= 6.0),
        *found,
        Goal(
            f"motion: median error over {summary['cases']} movies",
            "not above RELION's",
            f"{ours:.3f} px, RELION {theirs:.3f} px",
            ours <= theirs,
        ),
        Goal(
            "motion: worst case against RELION",
            "at most 0.02 px worse",
            f"{worst['native_minus_relion_px']:+.3f} px ({worst['case']})",
            summary["cases_worse_than_goal"] == 0,
        ),
    ]


def _ctf(data: Mapping[str, Any]) -> list[Goal]:
    ours = data["summary"]["vitriflow"]
    wrong = ours["called_good_and_outside_goal"]
    found = [
        Goal(
            f"CTF: simulated, {data['dose_e_per_A2']:g} e/A^2: larger of 0.3 % and 20 A; 2 degrees",
            "all",
            f"{ours['within_goal']} of {ours['fits']}, {len(wrong)} of the others called good",
            ours["within_goal"] == ours["fits"],
        )
    ]
    if data["real"]:
        worst = max(max(abs(row["u_error_A"]), abs(row["v_error_A"])) for row in data["real"])
        near = sum(abs(row["angle_error_deg"]) <= 4.0 for row in data["real"])
        count = len(data["real"])
        found.append(
            Goal("CTF: real spectra, defocus", "within 50 A", f"at most {worst:.0f} A", worst <= 50.0)
        )
        angles = f"{near} of {count}"
        found.append(Goal("CTF: real spectra, angle", "95 % within 4 degrees", angles, near >= 0.95 * count))
    found += _ctf_checks(data)
    programs = data["programs"]
    if "ctffind" in programs:
        ratio = programs["ctffind"]["wall_s"]["median"] / programs["warm"]["step_s"]["median"]
        found.append(Goal("CTF: ctffind's time over ours", "at least 3", f"{ratio:.1f}", ratio >= 3.0))
    else:
        found.append(Goal("CTF: ctffind's time over ours", "at least 3", "no ctffind here", None))
    return found


def _ctf_checks(data: Mapping[str, Any]) -> list[Goal]:
    found = []
    good = [row for row in data.get("drawn", []) if row["quality"] == "good"]
    if good:
        far = sum(row["far"] for row in good)
        near = sum(abs(row["pull"]) < 3.0 for row in good)
        text = f"{far} of {len(good)}, {near} within 3 sigma"
        found.append(Goal("CTF: called good and far off (drawn spectra)", "none", text, far == 0))
    rows = data.get("imported", [])
    if rows:
        wrong = [row for row in rows if row["results"] == "ctffind's output"]
        caught = sum(row["quality"] == "doubtful" for row in wrong)
        text = f"{caught} of {len(wrong)}"
        found.append(Goal("CTF: wrong results called doubtful on import", "all", text, caught == len(wrong)))
    return found


_F1_AIMS = {"apoferritin-autocryopicker": 0.85, "empiar-10017-jpeg": 0.80}


def _picking(data: Mapping[str, Any]) -> list[Goal]:
    found = []
    for name, aim in _F1_AIMS.items():
        if name not in data:
            continue
        ours, theirs = data[name]["vitriflow"]["mean"], (data[name]["relion_log"] or {}).get("mean")
        said = "" if theirs is None else f", RELION's LoG {theirs['f1']:.2f}"
        count = len(data[name]["vitriflow"]["each"])
        text = f"{ours['f1']:.2f}{said}"
        found.append(Goal(f"picking: mean F1, {name}, {count} images", f"{aim:.2f}", text, ours["f1"] >= aim))
    return found + _picking_simulated(data.get("simulated", {}))


def _picking_simulated(data: Mapping[str, Any]) -> list[Goal]:
    means, seconds = data.get("mean", {}), data.get("seconds", {})
    if "relion_log" not in means:
        return []
    ours, theirs = means["vitriflow"]["f1"], means["relion_log"]["f1"]
    took, peer = seconds["vitriflow, in a worker"]["median"], seconds["RELION LoG"]["median"]
    false = sum(case["vitriflow"]["picks"] for case in data["empty"].values())
    return [
        Goal(
            "picking: mean F1 over simulated fields",
            "0.2 above RELION's LoG",
            f"{ours:.2f} against {theirs:.2f}",
            ours - theirs >= 0.2,
        ),
        Goal("picking: picks on empty simulated fields", "none", f"{false:.0f}", false == 0),
        Goal(
            "picking: time in a warm worker, 4096 x 4096, over RELION's LoG",
            "at most 1",
            f"{took / peer:.2f}",
            took <= peer,
        ),
    ]


def write_docs(results: Path, name: str, docs: Path) -> list[str]:
    """Put a set's tables onto the docs' page, each between its own marks, and its plots beside it.

    A section is replaced when its benchmark was run and didn't fail; the others keep what they say, with
    their own date and machine.

    Returns
    -------
    list[str]
        The sections that were written.
    """
    data = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
    images = docs.parent.parent / "images"
    images.mkdir(exist_ok=True)
    page = docs.read_text(encoding="utf-8")
    written = []
    for part, section in data["sections"].items():
        if "failed" in data[part]:
            continue
        for plot in re.findall(r"\(([a-z_]+\.png)\)", section):
            shutil.copyfile(results / plot, images / f"measured_{plot}")
        page = _replaced(page, part, _for_docs(name, part, section, data))
        written.append(part)
    docs.write_text(page, encoding="utf-8")
    return written


def _for_docs(name: str, part: str, section: str, data: Mapping[str, Any]) -> str:
    """A section as it stands on the page: what was run, when and where, its goals, its tables."""
    heading, _, rest = section.strip().partition("\n")
    machine = ", ".join(f"{key} {value}" for key, value in data["machine"].items())
    lines = [heading, "", f"`python -m benchmarks {name} --only {part}`", "", machine, ""]
    found = goals({part: data[part]})
    if found:
        lines += [goals_table(found), ""]
    text = re.sub(r"^#", "##", "\n".join([*lines, rest.strip()]), flags=re.MULTILINE)
    return re.sub(r"\(([a-z_]+\.png)\)", r"(../images/measured_\1)", text).strip()


def _replaced(page: str, part: str, text: str) -> str:
    """The page with this section in its place; a new one comes last."""
    begin, end = BEGIN_OF.format(part), END_OF.format(part)
    if begin not in page:
        page = page.replace(END, f"{begin}\n{end}\n\n{END}")
    before, rest = page.split(begin, 1)
    return f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end, 1)[1]}"


if __name__ == "__main__":
    print(*write_docs(Path(sys.argv[1]), sys.argv[2], DOCS))
