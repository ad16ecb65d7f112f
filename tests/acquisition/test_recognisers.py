"""Rules that a facility adds, and variants of names that programs write."""

import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitriflow.acquisition import FileKind, Recogniser, Rule, item_of, recognise, recognisers
from vitriflow.acquisition.recognise import metadata_keys, plain_stem, series_of
from vitriflow.errors import BadConfig


def install(folder: Path, module: str, points: str = "cam = local_camera:CAMERA") -> None:
    """An installed package that announces a recogniser, as pip leaves it."""
    (folder / "local_camera.py").write_text(module)
    info = folder / "local_camera-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: local-camera\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[vitriflow.recognisers]\n{points}\n")


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(site)!r}); from vitriflow.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


GOOD = """
from vitriflow.acquisition import Recogniser, Rule

CAMERA = Recogniser(
    "ourcamera",
    (
        Rule("movie", r"(?:^|/)shot_(?P<foil_hole>[a-z]+)_(?P<shift_position>p[0-9])[.]stk$", "a movie"),
        Rule("session", r"[.]docx$", "the operator's notes"),
    ),
)
"""


def test_a_facility_adds_a_recogniser_by_installing_a_package(tmp_path: Path) -> None:
    site, session = tmp_path / "site", tmp_path / "session"
    site.mkdir()
    session.mkdir()
    install(site, GOOD)
    for name in ("shot_abc_p3.stk", "notes.docx", "other.stk", "a.tif"):
        (session / name).touch()
    done = run(site, "recognise", str(session), "--json")
    assert done.returncode == 0, done.stderr
    found = {entry["path"]: entry for entry in orjson.loads(done.stdout)}
    assert {path: (entry["kind"], entry["software"]) for path, entry in found.items()} == {
        "shot_abc_p3.stk": ("movie", "ourcamera"),
        "notes.docx": ("session", "ourcamera"),
        "other.stk": ("unknown", None),
        "a.tif": ("movie", None),
    }
    assert found["shot_abc_p3.stk"]["foil_hole"] == "abc"


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("import nothing_of_that_name", ["recogniser 'cam'", "nothing_of_that_name"]),
        ("CAMERA = 3", ["recogniser 'cam'", "found a int"]),
        (
            "from vitriflow.acquisition import *\n"
            'CAMERA = Recogniser("ours", (Rule("movie", "a", "a movie", lambda match: 1 / 0),))',
            ["recogniser 'ours', rule 1 (a movie)", "ZeroDivisionError", "a.tif"],
        ),
    ],
)
def test_a_recogniser_that_breaks_is_an_error_that_names_it(
    tmp_path: Path, module: str, words: list[str]
) -> None:
    site, session = tmp_path / "site", tmp_path / "session"
    site.mkdir()
    session.mkdir()
    (session / "a.tif").touch()
    install(site, module)
    done = run(site, "recognise", str(session))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (Rule("movie", "(", "x"), "regular expression"),
        (Rule("film", "x", "x"), "a kind"),
        (Rule("movie", r"(?P<colour>x)", "x"), "colour"),
    ],
)
def test_a_rule_that_cant_be_used_is_refused(rule: Rule, found: str) -> None:
    with pytest.raises(BadConfig, match=found):
        Recogniser("r", (rule,)).check()


def test_our_own_rules_can_be_used_and_say_what_they_mean() -> None:
    for recogniser in recognisers():
        recogniser.check()
        assert all(rule.means for rule in recogniser.rules)


STAMPS = st.from_regex(r"20[0-9]{6}_[0-9]{6}", fullmatch=True)
ANGLES = st.floats(-89, 89).map(lambda angle: f"{angle:.2f}")
WORDS = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=("Cc", "Cs")),
    min_size=1,
    max_size=20,
).filter(lambda text: not text.startswith((".", "~")) and text.strip() == text)


@given(
    hole=st.integers(1, 10**9),
    area=st.integers(1, 10**9),
    shot=st.one_of(st.none(), st.integers(1, 10**9)),
    stamp=STAMPS,
    ending=st.sampled_from(
        ["_Fractions.mrc", "_fractions.tiff", "_Fractions.tif", "_EER.eer", "_eer.EER", ".mrc", ".tiff"]
    ),
    folder=st.sampled_from(
        ["", "Images-Disc1/GridSquare_12/Data/", "a b/ψ/images-disc2/gridsquare_12/DATA/"]
    ),
)
def test_any_movie_of_epu(
    hole: int, area: int, shot: int | None, stamp: str, ending: str, folder: str
) -> None:
    middle = f"{area}" if shot is None else f"{area}_{shot}"
    key = f"{folder}FoilHole_{hole}_Data_{middle}_{stamp}{ending}"
    found = recognise(key)
    assert (found.kind, found.software) == (FileKind.MOVIE, "epu")
    assert (found.fields["foil_hole"], found.fields["position"]) == (str(hole), middle)
    assert found.fields.get("grid_square") == ("12" if folder else None)
    for beside, kind in ((".xml", FileKind.METADATA), (".jpg", FileKind.PREVIEW)):
        assert recognise(plain_stem(key) + beside).kind == kind
    assert plain_stem(key) + ".xml" in metadata_keys(key)


@given(
    name=st.one_of(
        st.integers(1, 999).map(lambda n: f"Position_{n}"),
        st.tuples(st.integers(1, 99), st.integers(1, 99)).map(lambda pair: f"Position_{pair[0]}_{pair[1]}"),
        st.integers(1, 99).map(lambda n: f"20250409_Position_{n}_2"),
        st.sampled_from(["lam 3", "ts_ψ", "name1", "Grid-2_pos4"]),
    ),
    order=st.integers(1, 999),
    angle=ANGLES,
    stamp=STAMPS,
    ending=st.sampled_from(["_EER.eer", "_fractions.tiff", "_Fractions.mrc", ".eer", ".MRC"]),
)
def test_any_movie_of_tomo5(name: str, order: int, angle: str, stamp: str, ending: str) -> None:
    key = f"{name}_{order:03d}_{angle}_{stamp}{ending}"
    found = recognise(key)
    assert (found.kind, found.software) == (FileKind.MOVIE, "tomo5")
    assert found.fields["tilt_series"] == name
    assert (found.fields["tilt_order"], found.fields["tilt_angle_deg"]) == (order, float(angle))
    assert f"{name}.mdoc" in metadata_keys(key)
    assert metadata_keys(key).index(f"{name}.mdoc") < metadata_keys(key).index(f"{name}_override.mdoc")


@given(
    name=st.sampled_from(["TS_01", "s_mmm", "grid 2 lamella_3", "ψ", "L1-tilt"]),
    order=st.integers(0, 99999),
    angle=st.floats(-70, 70).map(lambda angle: f"{angle:.1f}"),
    date=st.sampled_from(["", "_Oct08_07.39.05", "_date", "_frame", "_Jan1_1.01.01"]),
    ending=st.sampled_from([".tif", ".mrc", ".eer", ".TIFF", ".mrcs"]),
)
def test_any_tilt_of_serialem(name: str, order: int, angle: str, date: str, ending: str) -> None:
    key = f"frames/{name}_{order:03d}_{angle}{date}{ending}"
    found = recognise(key)
    assert (found.kind, found.software) == (FileKind.MOVIE, "serialem")
    assert found.fields["tilt_series"] == series_of(key) == name
    assert (found.fields["tilt_order"], found.fields["tilt_angle_deg"]) == (order, float(angle))
    assert f"{name}.mrc.mdoc" in metadata_keys(key)
    assert recognise(f"{key}.mdoc").kind == FileKind.METADATA


@given(WORDS, st.sampled_from(["tif", "TIFF", "mrc", "mrcs", "eer"]))
def test_a_plain_movie_is_a_movie_unless_its_name_says_more(word: str, suffix: str) -> None:
    key = f"{word}.{suffix}"
    found = recognise(key)
    if found.kind != FileKind.MOVIE:
        assert re.search(
            "gain|ref|atlas|tile|map|mont|lmm|mmm|poly|overview|view|preview|search|position|defect|tgt|"
            "tracking|exposure|focus|drift|eucentric|grid|mag",
            word.lower(),
        )
    assert item_of(key) == item_of(f"{word}.x")


@given(st.text(max_size=60))
def test_any_text_has_an_answer(text: str) -> None:
    assert recognise(text).kind in FileKind
    metadata_keys(f"a{text}.tif")
    series_of(text)
