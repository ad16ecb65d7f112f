"""The fit's word: its uncertainties, and that good means good. Spectra drawn from the model, seeds not tuned on."""

import numpy as np
import pytest
import torch
from benchmarks.ctf_checks import AMPLITUDE_CONTRAST, PIXEL_A, Drawn, calibrate, draw_spectrum

from vitriflow.kernels import Spectrum, fit_ctf


@pytest.fixture(scope="module")
def rows() -> list[dict[str, object]]:
    return calibrate(25, seed=71)


def test_no_fit_called_good_is_far_off(rows) -> None:
    good = [row for row in rows if row["quality"] == "good"]
    assert len(good) >= 10
    assert not [row for row in good if row["far"]]


def test_stated_uncertainties_are_those_of_the_errors(rows) -> None:
    good = [row for row in rows if row["quality"] == "good"]
    pulls = np.abs([row["pull"] for row in good])
    assert np.mean(pulls < 3.0) >= 0.9
    assert pulls.max() < 4.5
    assert 0.4 < np.sqrt(np.mean(pulls**2)) < 1.4
    turned = np.abs([row["angle_pull"] for row in good if row["astigmatism_A"] > 300.0])
    assert turned.max() < 4.5


def test_spectra_without_signal_are_called_so(rows) -> None:
    assert {row["quality"] for row in rows if row["no_signal"]} == {"no rings"}


def test_rings_past_4_6_A_that_disagree_are_left_out_and_counted_as_doubt() -> None:
    """A fit told a wrong Cs bends away at fine rings only: the coarse ones decide, and the error grows."""
    case = Drawn(11000.0, 600.0, 20.0, cs_mm=2.7, ssnr=0.5, b_factor_A2=40.0, seed=9)
    spectrum = draw_spectrum(case)
    right = fit_ctf(spectrum, PIXEL_A, 300.0, 2.7, AMPLITUDE_CONTRAST)
    wrong = fit_ctf(spectrum, PIXEL_A, 300.0, 2.0, AMPLITUDE_CONTRAST)
    assert abs(0.5 * (right.defocus_u_A + right.defocus_v_A) - 11000.0) < 20.0
    assert wrong.defocus_uncertainty_A > 1.5 * right.defocus_uncertainty_A


def test_u_and_v_have_uncertainties_of_their_own() -> None:
    fit = fit_ctf(
        draw_spectrum(Drawn(15000.0, 1500.0, 40.0, seed=10)), PIXEL_A, 300.0, 2.7, AMPLITUDE_CONTRAST
    )
    assert abs(fit.defocus_u_A - 15750.0) < 4.0 * fit.defocus_u_uncertainty_A
    assert abs(fit.defocus_v_A - 14250.0) < 4.0 * fit.defocus_v_uncertainty_A
    assert fit.phase_uncertainty_deg == 0.0


def test_the_ice_ring_is_the_power_at_3_6_to_4_A_over_that_at_4_to_4_4_A() -> None:
    flat = torch.ones((512, 512), dtype=torch.float64) + 0.01 * torch.rand((512, 512), dtype=torch.float64)
    axis = (torch.arange(512, dtype=torch.float64) - 256) / (512 * PIXEL_A)
    k = torch.hypot(axis[:, None], axis[None, :])
    icy = torch.where((k >= 1 / 4.0) & (k < 1 / 3.6), flat * 2.0, flat)
    assert fit_ctf(icy, PIXEL_A, 300.0, 2.7).ice_ring == pytest.approx(4.0, rel=0.02)
    assert fit_ctf(flat, PIXEL_A, 300.0, 2.7).ice_ring == pytest.approx(1.0, rel=0.02)


def test_the_fit_resolution_is_where_the_rings_end() -> None:
    """Rings that stop at a known frequency are followed to there, and not on into the noise."""
    case = Drawn(15000.0, 300.0, 10.0, ssnr=0.5, b_factor_A2=40.0, seed=11)
    with_rings, without = draw_spectrum(case), draw_spectrum(Drawn(15000.0, 300.0, 10.0, ssnr=0.0, seed=12))
    axis = (torch.arange(512, dtype=torch.float64) - 256) / (512 * PIXEL_A)
    k = torch.hypot(axis[:, None], axis[None, :])
    cut = Spectrum(torch.where(k < 1 / 6.0, with_rings, without), PIXEL_A, 1)
    fit = fit_ctf(cut.amplitude, PIXEL_A, 300.0, 2.7, AMPLITUDE_CONTRAST)
    assert fit.fit_resolution_A == pytest.approx(6.0, rel=0.06)
