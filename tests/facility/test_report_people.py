"""A report says what people rejected and why, by which limits, and gives the verdict that the page gives."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.facility.test_report import EVIL, make
from tests.web.factory import World
from vitriflow.catalog import Event, Limits, Mark, now
from vitriflow.config import Config
from vitriflow.facility.report import make_report


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Besides what :func:`make` marks: one rejected with a reason, one kept, one comment."""
    made = make(tmp_path_factory.mktemp("people"))
    mark = {"session_id": made.session_id, "at": now()}

    def work(orm: Any) -> None:
        orm.add(Mark(exposure_id=made.ids[1], kind="reject", text=f"ethane {EVIL}", author="olga", **mark))
        orm.add(Mark(exposure_id=made.ids[2], kind="keep", text="", author="olga", **mark))
        orm.add(Mark(exposure_id=made.ids[2], kind="comment", text="nice hole", author="rita", **mark))
        undone = Mark(exposure_id=made.ids[3], kind="reject", text="by mistake", author="olga", **mark)
        undone.undone_at, undone.undone_by = now(), "olga"
        orm.add(undone)

    made.catalog.write(work)
    return made


def page_verdict(world: World) -> Any:
    from vitriflow.web.lookup import find_scene
    from vitriflow.web.site import Site
    from vitriflow.web.summary import summarise

    site = Site("x", world.catalog, None)  # type: ignore[arg-type]
    scene = world.catalog.read(lambda orm: find_scene(site, orm, world.key))
    return summarise(scene.session, scene.snapshot, scene.overlay).verdict


def plain(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_who_rejected_what_and_why_stands_in_it(world: World) -> None:
    report = make_report(Config(), world.catalog, world.key)
    said = report.values["people"]
    by = {(one["author"], one["why"][:6]): one["count"] for one in said["reject"]}
    assert by == {("rita", ""): 1, ("olga", "ethane"): 1}
    assert [one["author"] for one in said["keep"]] == ["olga"]
    assert [one["text"] for one in said["comments"]] == ["nice hole"]
    assert "by mistake" not in report.html  # it was undone
    assert "<script" not in report.html
    assert "ethane" in plain(report.html)


def test_each_limit_says_how_many_it_leaves_out_and_who_set_it(world: World) -> None:
    report = make_report(Config(), world.catalog, world.key)
    (limit,) = report.values["limits"]
    assert (limit["name"], limit["lowest"], limit["highest"], limit["author"]) == (
        "defocus_A",
        8000,
        None,
        "carl",
    )
    assert 0 <= limit["outside"] <= report.values["counts"]["done"]
    assert "By limits" in report.html


def test_its_verdict_is_the_pages(world: World) -> None:
    shown = make_report(Config(), world.catalog, world.key)
    page = page_verdict(world)
    verdict = shown.values["verdict"]
    assert verdict["sentence"] == page.sentence
    assert verdict["reasons"] == page.reasons
    assert "2 exposures set aside by people." in verdict["reasons"]
    assert page.sentence in plain(shown.html)


def test_a_wrong_gain_reference_stops_both(tmp_path: Path) -> None:
    world = make(tmp_path)
    text = "Gain check on 8 movies: the gain reference is flipped. Take it again"
    event = {"session_id": world.session_id, "processing_id": world.processing_id, "at": now()}
    world.catalog.write(lambda orm: orm.add(Event(severity="alarm", text=text, **event)))
    verdict = make_report(Config(), world.catalog, world.key).values["verdict"]
    assert verdict["sentence"] == page_verdict(world).sentence == "Stop: the gain reference is flipped."


def test_without_marks_and_limits_nothing_of_them_is_said(tmp_path: Path) -> None:
    world = make(tmp_path)
    world.catalog.write(lambda orm: orm.query(Mark).delete() and orm.query(Limits).delete())
    html = make_report(Config(), world.catalog, world.key).html
    assert "By people" not in html
    assert "By limits" not in html
