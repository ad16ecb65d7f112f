"""Experiments, samples, boxes and the log, as an operator keeps them."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.databases import new_sqlite
from vitriflow.catalog import Audit, Catalog, Experiment, Grid, LogEntry, Sample
from vitriflow.elogbook.boxes import create_box, edit_grid, list_boxes
from vitriflow.elogbook.entries import (
    as_html,
    attach_file,
    clean_file_name,
    edit_entry,
    known_tags,
    list_entries,
    note,
    strike_entry,
    write_entry,
)
from vitriflow.elogbook.experiments import (
    create_experiment,
    edit_experiment,
    find_experiment,
    list_experiments,
)
from vitriflow.elogbook.people import add_person
from vitriflow.elogbook.permissions import Caller
from vitriflow.elogbook.samples import clone_sample, create_sample, edit_sample, find_sample, list_samples
from vitriflow.errors import BadParameter

OPERATOR = Caller(way="cookie", login="olga", facility_role="operator")
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = new_sqlite(tmp_path / "catalog.db")
    yield catalog
    catalog.close()


def make(catalog: Catalog, name: str = "cm12345", **more: Any) -> int:
    return catalog.write(lambda orm: create_experiment(orm, OPERATOR, name, **more).id)


def test_an_experiment_is_made_with_its_pi_as_a_collaborator(catalog: Catalog) -> None:
    catalog.write(lambda orm: add_person(orm, "ada", name="Ada"))
    number = make(catalog, title="Ribosomes", pi="ada", starts_at=NOON, ends_at=NOON + timedelta(days=3))
    ada = Caller(way="cookie", login="ada", roles={number: "collaborator"})
    (shown,) = catalog.read(lambda orm: list_experiments(orm, ada))
    assert (shown["name"], shown["title"], shown["pi"], shown["state"]) == (
        "cm12345",
        "Ribosomes",
        "Ada",
        "open",
    )


def test_a_list_shows_only_what_is_ones_own(catalog: Catalog) -> None:
    mine, _ = make(catalog, "mine"), make(catalog, "theirs")
    visitor = Caller(way="cookie", login="eve", roles={mine: "researcher"})
    assert [one["name"] for one in catalog.read(lambda orm: list_experiments(orm, visitor))] == ["mine"]
    assert len(catalog.read(lambda orm: list_experiments(orm, OPERATOR))) == 2
    found = catalog.read(lambda orm: list_experiments(orm, OPERATOR, "THEI"))
    assert [one["name"] for one in found] == ["theirs"]


@pytest.mark.parametrize("name", ["", "../etc", "a b", "a/b", "ü", "-x", ".x", "x" * 65, "<script>"])
def test_a_name_that_paths_and_star_files_cannot_carry_is_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises(BadParameter, match="experiment's name"):
        make(catalog, name)
    assert catalog.read(lambda orm: list_experiments(orm, OPERATOR)) == []


def test_names_differing_only_in_case_are_one(catalog: Catalog) -> None:
    make(catalog, "Ribo")
    with pytest.raises(BadParameter, match="experiment Ribo"):
        make(catalog, "ribo")


def test_dates_the_wrong_way_round_and_an_unknown_pi_leave_nothing_behind(catalog: Catalog) -> None:
    with pytest.raises(BadParameter, match="end of the experiment"):
        make(catalog, starts_at=NOON, ends_at=NOON - timedelta(hours=1))
    with pytest.raises(BadParameter, match="nobody"):
        make(catalog, pi="nobody")
    assert catalog.read(lambda orm: list_experiments(orm, OPERATOR)) == []


def test_a_closed_experiment_takes_no_samples_until_it_is_opened(catalog: Catalog) -> None:
    make(catalog)

    def set_state(state: str) -> None:
        catalog.write(
            lambda orm: edit_experiment(orm, OPERATOR, find_experiment(orm, "cm12345"), state=state).id
        )

    set_state("closed")
    with pytest.raises(BadParameter, match="closed"):
        catalog.write(lambda orm: create_sample(orm, OPERATOR, find_experiment(orm, "cm12345"), "s1").id)
    set_state("open")
    catalog.write(lambda orm: create_sample(orm, OPERATOR, find_experiment(orm, "cm12345"), "s1").id)
    with pytest.raises(BadParameter, match="open or closed"):
        set_state("half-open")


def test_a_clone_has_the_settings_of_its_model_and_goes_its_own_way(catalog: Catalog) -> None:
    make(catalog)

    def work(orm: Any) -> None:
        award = find_experiment(orm, "cm12345")
        first = create_sample(
            orm, OPERATOR, award, "s1", title="Apo", settings={"particle_diameter_A": 130.0}
        )
        second = clone_sample(orm, OPERATOR, first, "s2")
        edit_sample(orm, OPERATOR, second, settings={"particle_diameter_A": 90.0}, title="Holo")

    catalog.write(work)
    first, second = (catalog.read(lambda orm, n=n: find_sample(orm, "cm12345", n)) for n in ("s1", "s2"))
    assert (first.settings, second.settings) == (
        {"particle_diameter_A": 130.0},
        {"particle_diameter_A": 90.0},
    )
    assert (first.title, second.title, second.cloned_from) == ("Apo", "Holo", first.id)
    states = {
        one["name"]: one["state"] for one in catalog.read(lambda orm: list_samples(orm, first.experiment_id))
    }
    assert states == {"s1": "new", "s2": "new"}


def test_grids_in_a_box_name_their_sample_and_state(catalog: Catalog) -> None:
    number = make(catalog)

    def work(orm: Any) -> None:
        award = orm.get_one(Experiment, number)
        create_sample(orm, OPERATOR, award, "s1")
        box = create_box(orm, OPERATOR, award, "B7", container="puck 3", n_grids=4)
        grid = orm.query(Grid).filter_by(box_id=box.id, position=2).one()
        edit_grid(orm, OPERATOR, grid, name="g2", sample="s1", state="loaded")

    catalog.write(work)
    (box,) = catalog.read(lambda orm: list_boxes(orm, number))
    assert [(g["position"], g["name"], g["sample"], g["state"]) for g in box["grids"]][1] == (
        2,
        "g2",
        "s1",
        "loaded",
    )
    assert len(box["grids"]) == 4
    grid_id = box["grids"][0]["id"]
    for changes, named in (({"sample": "s9"}, "s9"), ({"state": "lost"}, "lost"), ({"depth": 1}, "depth")):
        with pytest.raises(BadParameter, match=named):
            catalog.write(lambda orm, c=changes: edit_grid(orm, OPERATOR, orm.get_one(Grid, grid_id), **c).id)


def test_the_log_is_searched_by_words_authors_and_tags(catalog: Catalog) -> None:
    number = make(catalog)
    ada = Caller(way="cookie", login="ada", roles={number: "collaborator"})

    def work(orm: Any) -> None:
        award = orm.get_one(Experiment, number)
        write_entry(orm, OPERATOR, award, "Ice is **thick** on grid 2", tags=["#ice", "grid-2"])
        write_entry(orm, ada, award, "Beautiful 100 % coverage")
        note(orm, number, "Session started", tags=["session"])

    catalog.write(work)

    def texts(**how: Any) -> list[str]:
        return [one["text"] for one in catalog.read(lambda orm: list_entries(orm, number, **how))]

    assert len(texts()) == 3
    assert texts(search="THICK grid") == ["Ice is **thick** on grid 2"]
    assert texts(search="ada") == ["Beautiful 100 % coverage"]
    assert texts(search="%") == ["Beautiful 100 % coverage"]
    assert texts(tag="ice") == ["Ice is **thick** on grid 2"]
    assert texts(automatic=True) == ["Session started"]
    assert catalog.read(lambda orm: known_tags(orm, number)) == ["grid-2", "ice", "session"]


def test_an_entry_is_changed_by_its_author_or_an_operator_and_struck_out_never_deleted(
    catalog: Catalog,
) -> None:
    number = make(catalog)
    ada, eve = (Caller(way="cookie", login=login, roles={number: "collaborator"}) for login in ("ada", "eve"))
    entry = catalog.write(lambda orm: write_entry(orm, ada, orm.get_one(Experiment, number), "First").id)
    with pytest.raises(BadParameter, match="one by ada"):
        catalog.write(lambda orm: edit_entry(orm, eve, orm.get_one(LogEntry, entry), "Mine").id)
    catalog.write(lambda orm: edit_entry(orm, ada, orm.get_one(LogEntry, entry), "Second").id)
    catalog.write(lambda orm: strike_entry(orm, OPERATOR, orm.get_one(LogEntry, entry)).id)
    with pytest.raises(BadParameter, match="struck out"):
        catalog.write(lambda orm: edit_entry(orm, ada, orm.get_one(LogEntry, entry), "Third").id)
    (shown,) = catalog.read(lambda orm: list_entries(orm, number))
    assert (shown["text"], shown["struck_by"]) == ("Second", "olga")
    was = catalog.read(lambda orm: [row.details for row in orm.query(Audit).filter_by(action="log.edit")])
    assert was == [{"was": "First"}]


@pytest.mark.parametrize(
    ("text", "tags"), [("", ()), ("   ", ()), ("x" * 100_001, ()), ("fine", ["a b"]), ("fine", ["<b>"])]
)
def test_an_entry_without_words_or_with_odd_tags_is_refused(
    catalog: Catalog, text: str, tags: tuple[str, ...]
) -> None:
    number = make(catalog)
    with pytest.raises(BadParameter):
        catalog.write(
            lambda orm: write_entry(orm, OPERATOR, orm.get_one(Experiment, number), text, tags=tags).id
        )
    assert catalog.read(lambda orm: list_entries(orm, number)) == []


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


ALLOWED = {
    "a",
    "p",
    "em",
    "strong",
    "code",
    "pre",
    "ul",
    "ol",
    "li",
    "blockquote",
    "hr",
    "br",
    "img",
    "s",
} | {*("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td")}
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "![x](javascript:alert(1))",
    "[x](data:text/html;base64,AAAA)",
    "<a href='vbscript:x'>y</a>",
    "[x](&#106;avascript:alert(1))",
    '[x](http://a.b "onmouseover=alert(1)")',
]


def assert_harmless(html: str) -> None:
    parser = _Tags()
    parser.feed(html)
    for tag, attributes in parser.found:
        assert tag in ALLOWED
        for name, value in attributes:
            assert name in {"href", "src", "alt", "title", "class", "style", "start"}
            if name == "style":
                assert re.fullmatch(r"text-align:(left|right|center)", value or "")
            if name in {"href", "src"}:
                assert not re.match(r"\s*(javascript|vbscript|file|data:text)", value or "", re.IGNORECASE)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_are_shown_as_words(text: str) -> None:
    assert_harmless(as_html(text))


@given(st.text(alphabet=st.sampled_from("<>\"'()[]!&;:/= \n`*#javscript"), max_size=80))
def test_whatever_is_written_the_page_gets_no_script(text: str) -> None:
    assert_harmless(as_html(text))


def test_markdown_is_rendered() -> None:
    html = as_html("# Day 1\n\n* **good** ice\n\n| a | b |\n|---|---|\n| 1 | 2 |")
    assert "<h1>Day 1</h1>" in html
    assert "<strong>good</strong>" in html
    assert "<td>1</td>" in html


@given(st.text(max_size=60))
def test_a_files_name_never_carries_a_folder(name: str) -> None:
    plain = clean_file_name(name)
    assert plain
    assert "/" not in plain
    assert "\\" not in plain
    assert plain.isprintable()


def test_files_belong_to_their_entry(catalog: Catalog) -> None:
    number = make(catalog)

    def work(orm: Any) -> None:
        entry = write_entry(orm, OPERATOR, orm.get_one(Experiment, number), "See the picture")
        attach_file(
            orm,
            OPERATOR,
            entry,
            name="../../atlas.png",
            media_type="image/png",
            size=9,
            blake3="0" * 64,
            path="elogbook/00/00",
        )

    catalog.write(work)
    (shown,) = catalog.read(lambda orm: list_entries(orm, number))
    assert [(one["name"], one["size"]) for one in shown["files"]] == [("atlas.png", 9)]


def test_a_sample_is_named_with_what_there_is_when_it_is_not_found(catalog: Catalog) -> None:
    number = make(catalog)
    catalog.write(lambda orm: create_sample(orm, OPERATOR, orm.get_one(Experiment, number), "apo").id)
    with pytest.raises(BadParameter, match="apo"):
        catalog.read(lambda orm: find_sample(orm, "cm12345", "holo"))
    assert catalog.read(lambda orm: orm.query(Sample).count()) == 1
