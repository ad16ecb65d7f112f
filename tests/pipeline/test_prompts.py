"""Questions, variables, and what is said of a template that can't work."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitriflow.errors import BadParameter, BadTemplate
from vitriflow.pipeline import load_template, make_plan, parse_template, read_answers, template_names

ASKING = """name: asking
parameters: {seconds: 0}
prompts:
  minds:
    title: What is minded
    kind: choice
    choices: [fail, reject]
    default: ${sample.trouble|fail}
  motion.gpus: {title: GPUs, kind: integer, least: 0, most: 4}
nodes:
  motion: {step: play.any, inputs: {movie: exposure.movie}, set: {journal: 'x-${microscope.name|none}'}}
"""
MOTION = "nodes:\n  motion: {step: play.any, inputs: {movie: exposure.movie}}\n"


def test_answers_become_parameters_and_defaults_stand_for_what_nobody_said() -> None:
    template = parse_template(ASKING, "asking.yaml").filled({"microscope": {"name": "tem1"}})
    plan = make_plan(template, read_answers(template.written.prompts, {"motion.gpus": "2"}))
    (node,) = plan.nodes
    assert (node.parameters.minds, node.parameters.gpus, node.parameters.journal) == ("fail", 2, "x-tem1")
    sample = parse_template(ASKING, "asking.yaml").filled({"sample": {"trouble": "reject"}})
    assert make_plan(sample)["motion"].parameters.minds == "reject"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({}, "GPUs .motion.gpus.*no answer"),
        ({"motion.gpus": 5}, "GPUs .motion.gpus.*at least 0 and at most 4; found 5"),
        ({"motion.gpus": 1.5}, "a whole number"),
        ({"motion.gpus": True}, "a whole number"),
        ({"motion.gpus": "many"}, "a whole number"),
        ({"motion.gpus": 1, "minds": "wander"}, "one of fail, reject"),
    ],
)
def test_a_wrong_answer_is_refused_with_the_question(answers: dict[str, object], message: str) -> None:
    template = parse_template(ASKING, "asking.yaml")
    with pytest.raises(BadParameter, match=message):
        read_answers(template.written.prompts, answers)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (f"name: t\nprompts:\n  mindz: {{title: x}}\n{MOTION}", 3, "Did you mean 'minds'"),
        (f"name: t\nprompts:\n  gpus: {{title: x, default: 7, most: 4}}\n{MOTION}", 3, "at most 4"),
        (f"name: t\nprompts:\n  gpus: {{title: x, kind: choice}}\n{MOTION}", 3, "choices stand with"),
        (f"name: t\nparameters:\n  gpus: ${{sample.gpus}}\n{MOTION}", 3, "a value of the sample"),
        (f"name: t\nparameters:\n  gpus: ${{moon.gpus}}\n{MOTION}", 3, "facility.NAME, microscope.NAME"),
        (f"name: t\nparameters:\n  mind: x\n{MOTION}", 3, "acts nowhere.*Did you mean 'minds'"),
        ("name: t\nnodes:\n  a: {step: play.nay}\n", 3, "Did you mean 'play.any'"),
        (
            "name: t\nnodes:\n  a: {step: play.any, inputs: {micrograph: b.micrograph}}\n"
            "  b: {step: play.any, inputs: {micrograph: a.micrograph}}\n",
            3,
            "a graph without loops; found a <- b <- a",
        ),
        ("name: t\nnodes:\n  a: {step: play.any, inputs: {ctf: exposure.movie}}\n", 3, "a ctf; found"),
        (
            "name: t\nnodes:\n  m: {step: play.any, inputs: {movie: exposure.movie}}\n"
            "  g: {step: gate.ice, inputs: {micrograph: m.micrograph}}\n"
            "  n: {step: play.any, inputs: {ctf: g.ctf}}\n",
            5,
            "g.PORT with PORT one of micrograph",
        ),
        (
            "name: t\nnodes:\n  g: {step: gate.ctf, inputs: {movie: exposure.movie}}\n",
            3,
            "input 'ctf'",
        ),
        (
            "name: t\nnodes:\n  g:\n    step: gate.custom\n    inputs: {movie: exposure.movie}\n"
            "    set: {accept: 'open(x) > 1'}\n",
            6,
            "isn't allowed here",
        ),
    ],
)
def test_what_cannot_work_is_told_with_the_line(text: str, line: int, message: str) -> None:
    with pytest.raises(BadTemplate, match=rf"t.yaml, line {line}.*{message}"):
        make_plan(parse_template(text, "t.yaml"))


@pytest.mark.parametrize("name", template_names())
def test_every_shipped_template_is_sound_with_a_diameter_alone(name: str) -> None:
    template = load_template(name)
    given = {} if name == "quick-screen" else {"particle_diameter_A": 140}
    plan = make_plan(template, given)
    used = {getattr(node.parameters, "particle_diameter_A", 140) for node in plan.nodes}
    assert used == {140}


@given(st.text(max_size=30))
def test_no_text_breaks_the_filling_in_of_variables(text: str) -> None:
    from vitriflow.formats.marked import MarkedText
    from vitriflow.pipeline.prompts import fill

    marks = MarkedText("t.yaml", {"name": text})
    with contextlib.suppress(BadTemplate):  # anything else fails the test
        fill(text, marks, {"sample": {"a": 1}})
