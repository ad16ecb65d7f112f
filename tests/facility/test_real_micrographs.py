"""Real micrographs, as a person without movies has them: picks on the page, and no CTF believed that shouldn't be.

The apoferritin images carry rings (their halves agree, see tests/kernels/test_ctf_fit.py), but nobody knows at
which voltage and pixel size they were taken; the JPEG of beta-galactosidase carries none.
"""

import json
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright

from tests.facility.command import House
from tests.web.conftest import running
from vitriflow.facility.judging import read_coordinates
from vitriflow.formats import read_image, read_star, write_mrc
from vitriflow.web import create_app

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Images:
    """Real micrographs of one kind, and how the data's README says to score picks of them."""

    folder: str
    pattern: str
    number: int
    pixel_A: float
    diameter_A: float
    reach_px: int
    rim_px: int


APOFERRITIN = Images("apoferritin-autocryopicker", "*.png", 2, 2.0, 150.0, 25, 60)
GALACTOSIDASE = Images("empiar-10017-jpeg", "*.jpg", 1, 1.77, 170.0, 54, 110)


@dataclass(frozen=True)
class Finished:
    """Real micrographs that were processed, and where people see particles on them (y, x)."""

    images: Images
    house: House
    truth: dict[str, np.ndarray]
    shape: tuple[int, int]


def process(images: Images, real_data: Path, folder: Path) -> Finished:
    """Convert to MRC, and run as a person would: particle diameter and pixel size given, voltage not known."""
    source, data = folder / "micrographs", real_data / images.folder
    source.mkdir()
    truth: dict[str, np.ndarray] = {}
    shape = (0, 0)
    for path in sorted((data / "micrographs").glob(images.pattern))[: images.number]:
        image = read_image(path).array.astype(np.float32)
        shape = (image.shape[0], image.shape[1])
        write_mrc(source / f"{path.stem}.mrc", image, images.pixel_A)
        table = np.loadtxt(data / "centres" / f"{path.stem}.csv", delimiter=",", skiprows=1)
        # centres count rows from the top; an MRC file's first row is the bottom
        truth[f"{path.stem}.mrc"] = np.stack([shape[0] - 1 - table[:, 1], table[:, 0]], axis=1)
    assert len(truth) == images.number
    house = House(folder / "house")
    given = (f"particle_diameter_A={images.diameter_A}", f"pixel_size_A={images.pixel_A}")
    house.vitriflow("run", source, "--once", *(part for text in given for part in ("--set", text)))
    return Finished(images, house, truth, shape)


@pytest.fixture(scope="module")
def apoferritin(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return process(APOFERRITIN, real_data, tmp_path_factory.mktemp("apoferritin"))


@pytest.fixture(scope="module")
def galactosidase(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return process(GALACTOSIDASE, real_data, tmp_path_factory.mktemp("galactosidase"))


@pytest.fixture(params=["apoferritin", "galactosidase"])
def finished(request: pytest.FixtureRequest) -> Finished:
    found: Finished = request.getfixturevalue(request.param)
    return found


def f1(found: np.ndarray, true: np.ndarray, shape: tuple[int, int], images: Images) -> float:
    """F1 of picks matched one to one, nearest first, leaving out the rim."""
    limit = np.array(shape) - 1 - images.rim_px
    found, true = (p[((p >= images.rim_px) & (p <= limit)).all(axis=1)] for p in (found, true))
    distance = np.linalg.norm(found[:, None] - true[None], axis=2)
    hits = 0
    while distance.size and distance.min() <= images.reach_px:
        pick, particle = np.unravel_index(distance.argmin(), distance.shape)
        distance[pick, :] = distance[:, particle] = np.inf
        hits += 1
    return 2.0 * hits / (len(found) + len(true))


def test_a_folder_of_micrographs_is_processed_as_such_without_being_told(finished: Finished) -> None:
    house = finished.house
    assert {row.kind for row in house.exposures().values()} == {"micrograph"}
    assert house.records("motion") == {}
    counts = house.counts()
    assert counts.reconciles
    assert counts.exposures.came_in == len(finished.truth)
    assert counts.exposures.open == counts.exposures.failed == 0


def test_particles_are_picked(apoferritin: Finished) -> None:
    records = apoferritin.house.records("pick")
    scores = [
        f1(
            read_coordinates(Path(records[key]["outputs"]["coordinates"]["path"])),
            true,
            apoferritin.shape,
            APOFERRITIN,
        )
        for key, true in apoferritin.truth.items()
    ]
    assert np.mean(scores) >= 0.8, scores


def test_a_ctf_at_a_voltage_that_nobody_knows_is_doubtful(apoferritin: Finished) -> None:
    records = apoferritin.house.records("ctf")
    assert records.keys() == apoferritin.truth.keys()
    assert {record["quality"] for record in records.values()} <= {"doubtful", "no rings"}
    for record in records.values():
        text = f"{record['reason']} {record['warnings']}"
        assert "voltage" in text or "rings" in text


def test_a_ctf_of_images_without_rings_is_refused(galactosidase: Finished) -> None:
    for record in galactosidase.house.records("ctf").values():
        assert (record["status"], record["reason_code"]) == ("quarantined", "ctf.no_rings")
        assert "ctf" not in record["outputs"]


def test_relion_finds_the_picks_and_no_ctf_that_was_refused(finished: Finished) -> None:
    project = finished.house.project
    (picked,) = (project / "AutoPick").glob("*/autopick.star")
    table = next(iter(read_star(picked).values()))
    assert len(table) == len(finished.truth)
    assert all((project / name).is_file() for name in table["rlnMicrographName"])
    assert all((project / name).is_file() for name in table["rlnMicrographCoordinates"])
    refused = [r for r in finished.house.records("ctf").values() if r["status"] == "quarantined"]
    stars = list((project / "CtfFind").glob("*/micrographs_ctf.star")) if refused else []
    listed = sum(len(read_star(star)["micrographs"]) for star in stars)
    assert listed <= len(finished.truth) - len(refused)


@pytest.fixture
def pages(finished: Finished) -> Iterator[str]:
    """The pages over that session, on a real server."""
    with running(create_app(f"sqlite:///{finished.house.root / 'catalog.db'}")) as address:
        yield address


@pytest.mark.service
def test_the_page_shows_the_picks_on_the_micrograph_and_the_verdict_on_its_ctf(
    finished: Finished, pages: str, chromium: str
) -> None:
    house = finished.house
    key, row = next(iter(house.exposures().items()))
    picks, ctf = house.records("pick")[key], house.records("ctf")[key]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(f"{pages}/sessions/{house.session().key}/exposures/{row.id}", wait_until="load")
        expect(page.locator("#pick-count")).to_contain_text(re.compile(rf"^{picks['n_picks']} of"))
        picture = page.locator("#picture")
        expect(picture).to_be_visible()
        assert page.evaluate("document.getElementById('picture').naturalWidth") > 300
        assert page.evaluate(_INKED) > 500  # pixels of the overlay that aren't clear: the circles
        words = ctf["reason"] if ctf["status"] == "quarantined" else "doubtful"
        expect(page.locator("main")).to_contain_text(words)
        browser.close()


_INKED = """() => {
  const overlay = document.getElementById('overlay');
  const data = overlay.getContext('2d').getImageData(0, 0, overlay.width, overlay.height).data;
  return data.filter((value, place) => place % 4 === 3 && value > 0).length;
}"""


def test_the_session_page_counts_them(finished: Finished, pages: str) -> None:
    key = finished.house.session().key
    with urllib.request.urlopen(f"{pages}/api/sessions/{key}/counts", timeout=120) as answer:
        told = json.load(answer)
    counts = finished.house.counts().exposures
    assert told["counts"]["total"] == counts.came_in
    assert (told["counts"]["done"], told["counts"]["quarantined"]) == (counts.done, counts.quarantined)
    with urllib.request.urlopen(f"{pages}/sessions/{key}", timeout=120) as answer:
        assert next(iter(finished.truth)).removesuffix(".mrc") in answer.read().decode()
