"""A template is checked as a typed graph before anything runs; errors name file and line."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitriflow.errors import BadParameter, BadTemplate, VitriflowError
from vitriflow.pipeline import Plan, load_template, make_plan, parse_template, template_names

GOOD = """\
name: test
item: movie
parameters:
  seconds: 0.5
nodes:
  motion:
    step: play.any
    inputs: {movie: exposure.movie}
  pick:
    step: play.needy
    inputs:
      micrograph: motion.micrograph
      ctf: motion.ctf
    set:
      minds: hang
"""


def plan(text: str, **given: Any) -> Plan:
    return make_plan(parse_template(text, "mine.yaml"), given)


def test_a_good_template_becomes_a_plan() -> None:
    made = plan(GOOD)
    assert [(n.name, n.step.name, n.folder) for n in made.nodes] == [
        ("motion", "play.any", "Play/job002"),
        ("pick", "play.needy", "Play/job003"),
    ]
    assert made["pick"].parameters.minds == "hang"
    assert [n.parameters.seconds for n in made.nodes] == [0.5, 0.5]


def test_nodes_may_be_written_in_any_order() -> None:
    head, motion, pick = GOOD.partition("  motion:\n")[0], *GOOD.split("nodes:\n")[1].split("  pick:\n")
    made = plan(head + "  pick:\n" + pick + motion)
    assert [node.name for node in made.nodes] == ["motion", "pick"]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("step: play.any", "step: play.many", 7, ["motion", "'play.many'", "Did you mean 'play.any'?"]),
        ("{movie: exposure", "{movies: exposure", 8, ["'movies'", "Did you mean 'movie'?"]),
        ("exposure.movie", "exposure.micrograph", 8, ["exposure.PORT with PORT one of movie"]),
        ("motion.micrograph", "moton.micrograph", 12, ["'moton.micrograph'", "Did you mean 'motion'?"]),
        ("motion.micrograph", "motion.micrographs", 12, ["Did you mean 'micrograph'?"]),
        (
            "motion.micrograph",
            "motion.ctf",
            12,
            ["a micrograph", "motion.ctf, a ctf", "Use motion.micrograph"],
        ),
        ("motion.micrograph", "exposure.movie", 12, ["a micrograph", "exposure.movie, a movie"]),
        ("      micrograph: motion.micrograph\n", "", 9, ["node 'pick'", "micrograph: motion.micrograph"]),
        ("{movie: exposure.movie}", "{}", 6, ["node 'motion'", "exposure.movie"]),
        (
            "{movie: exposure.movie}",
            "{micrograph: pick.micrograph}",
            6,
            ["without loops", "motion <- pick <- motion"],
        ),
        ("minds: hang", "mind: hang", 15, ["'mind'", "Did you mean 'minds'?"]),
        ("minds: hang", "seconds: long", 15, ["'seconds' of node 'pick'", "valid number", "'long'"]),
        ("seconds: 0.5", "seconds: [1]", 4, ["'seconds'", "valid number"]),
        ("seconds: 0.5", "diameter: 100", 4, ["'diameter'", "acts nowhere"]),
        ("item: movie", "item: tilt_series", 2, ["item", "'movie' or 'micrograph'", "'tilt_series'"]),
        ("item: movie", "itm: movie", 2, ["itm"]),
        ("name: test", "title: test", 1, ["name", "nothing"]),
        ("  pick:\n", "  motion:\n", 9, ["'motion'", "line 6"]),
        ("  pick:\n", "  9pick:\n", 9, ["'9pick'", "starts with a letter"]),
        ("  pick:\n", "  exposure:\n", 9, ["taken by the source"]),
        ("  motion:\n", "  motion: [\n", 8, ["YAML"]),
    ],
)
def test_an_error_names_the_line_and_what_would_be_right(
    old: str, new: str, line: int, words: list[str]
) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    with pytest.raises(BadTemplate) as caught:
        plan(text)
    message = str(caught.value)
    assert f"mine.yaml, line {line}" in message, message
    for word in words:
        assert word in message


def test_a_shared_value_that_every_node_overrules_is_an_error() -> None:
    text = GOOD.replace(
        "    inputs: {movie: exposure.movie}\n",
        "    inputs: {movie: exposure.movie}\n    set: {seconds: 1}\n",
    )
    text = text.replace("      minds: hang", "      seconds: 2")
    with pytest.raises(BadTemplate, match=r"line 4.*acts nowhere.*fixed by 'set' in motion, pick"):
        plan(text)


def test_a_value_given_for_a_processing_goes_before_the_templates() -> None:
    made = plan(GOOD, seconds=2.0)
    assert [n.parameters.seconds for n in made.nodes] == [2.0, 2.0]


def test_a_value_given_for_one_node_goes_before_all() -> None:
    made = plan(GOOD, seconds=2.0, **{"pick.seconds": 3.0, "pick.minds": "die"})
    assert [n.parameters.seconds for n in made.nodes] == [2.0, 3.0]
    assert made["pick"].parameters.minds == "die"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"secnds": 1}, "secnds.*acts nowhere.*Did you mean 'seconds'"),
        ({"seconds": "soon"}, "'seconds' of node 'motion'.*valid number"),
        ({"other.seconds": 1}, "other.seconds.*acts nowhere"),
        ({"seconds": float("nan")}, "finite"),
    ],
)
def test_a_given_value_that_is_wrong_or_unused_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(BadParameter, match=words):
        plan(GOOD, **values)


def test_a_missing_template_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(BadTemplate, match="micrographs, quick-screen, single-particle, standard"):
        load_template(tmp_path / "none.yaml")


def test_a_template_is_read_from_a_path(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert load_template(tmp_path / "mine.yaml").text == GOOD


@pytest.mark.parametrize("name", template_names())
def test_a_shipped_template_runs_with_a_particle_diameter_alone(name: str) -> None:
    template = load_template(name)
    assert template.name == name
    assert template.written.title
    made = make_plan(template, {} if name == "quick-screen" else {"particle_diameter_A": 180.0})
    wanted = ["MotionCorr/job002", "CtfFind/job003", "AutoPick/job004"]
    if template.written.item == "micrograph":
        wanted = ["CtfFind/job002", "AutoPick/job003"]
    if name == "quick-screen":
        wanted.pop()  # it looks at the grid alone
    jobs = [node.folder for node in made.nodes if node.job is not None]
    assert jobs[: len(wanted)] == wanted
    assert [node.folder for node in made.nodes if node.name == "preview"] == ["previews"]


def refusal(text: str) -> str:
    """What is said about a text: nothing when it's a template that can run."""
    try:
        make_plan(parse_template(text, "any"))
    except VitriflowError as error:
        return str(error)
    return ""


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_any_text_that_is_no_template_is_refused_in_words(text: str) -> None:
    assert refusal(text).startswith("any")


@given(
    st.integers(0, len(GOOD) - 1),
    st.sampled_from([":", " ", "\n", "{", "-", "&", "*", "!", "%", "\t", "'", "é", ""]),
)
def test_a_template_with_one_letter_changed_runs_or_is_refused_in_words(position: int, letter: str) -> None:
    said = refusal(GOOD[:position] + letter + GOOD[position + 1 :])
    assert not said or said.startswith("any")


def test_a_nodes_own_value_goes_before_the_shared_one() -> None:
    made = plan(GOOD.replace("seconds: 0.5", "minds: x"))
    assert (made["motion"].parameters.minds, made["pick"].parameters.minds) == ("x", "hang")


def test_nodes_on_one_resource_are_one_group_and_gpu_nodes_are_kept_together() -> None:
    text = """
name: mixed
nodes:
  a: {step: play.any, inputs: {movie: exposure.movie}, set: {gpus: 1}}
  b: {step: play.any, inputs: {micrograph: a.micrograph}}
  c: {step: play.any, inputs: {micrograph: a.micrograph}, set: {gpus: 1}}
  d: {step: play.any, inputs: {micrograph: c.micrograph}}
"""
    made = plan(text)
    assert [group.nodes for group in made.groups(gpus=False)] == [("a", "b", "c", "d")]
    assert [(group.nodes, group.gpu) for group in made.groups(gpus=True)] == [
        (("a", "c"), True),
        (("b", "d"), False),
    ]
    assert [node.job for node in made.nodes] == [2, 3, 4, 5], "numbers don't depend on the machine"
