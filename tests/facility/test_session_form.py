"""The form of a session: every field acts, and what a browser sends back unchanged says nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitriflow.elogbook import ImagingParameters
from vitriflow.elogbook.imaging import DERIVED
from vitriflow.errors import BadParameter
from vitriflow.facility.session_form import (
    BadForm,
    FormField,
    form_fields,
    parameters_for,
    prune,
    read_form,
    readers,
)
from vitriflow.pipeline import load_template, template_names

MOVIES = load_template("single-particle")
FIELDS = {field.name: field for field in form_fields(MOVIES)}


def as_sent(field: FormField) -> str:
    if field.kind == "boolean":
        return "" if field.default is None else str(field.default).lower()
    return str(field.default) if field.kind == "choice" and field.default is not None else ""


@pytest.mark.parametrize("name", template_names())
def test_a_form_sent_back_unchanged_says_nothing(name: str) -> None:
    template = load_template(name)
    answers = {field.name: as_sent(field) for field in form_fields(template)}
    assert read_form(template, answers).record() == {}


def test_every_parameter_of_every_step_can_be_asked() -> None:
    asked = set(FIELDS) | {DERIVED[name] for name in DERIVED}
    assert set(readers(MOVIES)) <= asked


def test_every_field_says_what_it_does_and_the_pipelines_fields_are_read() -> None:
    for field in FIELDS.values():
        assert field.acts in ("pipeline", "template", "check", "record")
        if field.acts == "pipeline":
            assert field.nodes


SAID: dict[str, Any] = {
    "voltage_kV": 200.0,
    "particle_diameter_A": 120.0,
    "patches_x": 3,
    "b_factor_px2": 200.0,
    "eer_upsampling": "2",
    "method": "log",
    "phase_plate": "true",
    "super_resolution": "true",
    "frames_thrown_away": "2",
}


def test_what_was_said_reaches_the_steps_in_their_own_words() -> None:
    settings = read_form(MOVIES, SAID)
    assert parameters_for(MOVIES, settings) == {
        "voltage_kV": 200.0,
        "particle_diameter_A": 120.0,
        "patches_x": 3,
        "b_factor_px2": 200.0,
        "eer_upsampling": 2,
        "method": "log",
        "fit_phase_shift": True,
        "bin_factor": 2.0,
        "first_frame": 3,
    }
    assert read_form(MOVIES, settings.record()).record() == settings.record()


def test_a_total_dose_and_frames_give_the_dose_of_a_frame() -> None:
    imaging = ImagingParameters(total_dose_e_per_A2=60, n_frames=40)
    assert imaging.step_parameters()["dose_per_frame_e_per_A2"] == 1.5


def test_without_picking_nothing_picks_and_what_only_picking_reads_is_left_out() -> None:
    settings = read_form(MOVIES, {"picking": "false", "particle_diameter_A": "90", "size_px": "512"})
    pruned = prune(MOVIES, settings.imaging)
    assert sorted(pruned.written.nodes) == ["ctf", "motion", "preview"]
    assert parameters_for(pruned, settings) == {"size_px": 512}


def test_all_wrong_fields_are_named_at_once() -> None:
    with pytest.raises(BadForm) as caught:
        read_form(MOVIES, {"voltage_kV": "3000", "patches_x": "many", "quality": "7", "unheard": "1"})
    assert set(caught.value.problems) == {"voltage_kV", "patches_x", "quality", "unheard"}
    assert "3 more fields" in str(caught.value)


@pytest.mark.parametrize(
    "answers",
    [
        {"min_diameter_A": 200, "max_diameter_A": 100},
        {"tilt_min_deg": 60, "tilt_max_deg": -60},
        {"frame_duration_s": 5, "exposure_time_s": 2},
        {"symmetry": "Z9"},
        {"dose_per_frame_e_per_A2": "nan"},
        {"pixel_size_A": "inf"},
    ],
)
def test_values_that_contradict_each_other_or_cannot_be_are_refused(answers: dict[str, Any]) -> None:
    with pytest.raises(BadParameter):
        read_form(MOVIES, answers)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), st.text(max_size=12), max_size=6))
def test_whatever_is_typed_the_form_answers_in_words(answers: dict[str, str]) -> None:
    try:
        settings = read_form(MOVIES, answers)
    except BadForm:  # and nothing else
        return
    assert read_form(MOVIES, settings.record()).record() == settings.record()
