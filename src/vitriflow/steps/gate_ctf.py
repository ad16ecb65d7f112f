"""``gate.ctf`` and ``gate.ice``, ``gate.tilt``: exposures whose contrast transfer function says no."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from vitriflow.steps.gate import Criterion, Gate, GateParameters, StrictGateParameters
from vitriflow.steps.judging import passed_on
from vitriflow.steps.records import Kind


class GateCtfParameters(StrictGateParameters):
    """What a fit has to say. A limit of None isn't asked about."""

    least_defocus_A: float | None = Field(default=1000.0, description="mean underfocus, at least (A)")
    most_defocus_A: float | None = Field(default=60000.0, description="mean underfocus, at most (A)")
    most_astigmatism_A: float | None = Field(default=None, ge=0, description="U - V, at most (A)")
    most_astigmatism: float | None = Field(
        default=0.15, ge=0, description="U - V over the mean defocus, at most (1)"
    )
    max_fit_resolution_A: float | None = Field(
        default=10.0, gt=0, description="where the rings stop fitting, at most (A)"
    )
    min_phase_shift_deg: float | None = Field(default=None, description="phase plate, at least (degrees)")
    max_phase_shift_deg: float | None = Field(default=None, description="phase plate, at most (degrees)")
    max_ice_ring: float | None = Field(
        default=None, gt=0, description="3.6-4.0 A over 4.0-4.4 A, at most; an unknown one passes"
    )
    min_figure_of_merit: float | None = Field(
        default=None, ge=0, le=1, description="correlation of fit and spectrum, at least (0 to 1)"
    )


class GateCtf(Gate[GateCtfParameters]):
    """Rejects exposures by their CTF fit."""

    name = "gate.ctf"
    summary = (
        "Rejects exposures by defocus, astigmatism, resolution, phase, ice and figure of merit of the fit"
    )
    inputs = passed_on(Kind.CTF)
    Parameters = GateCtfParameters
    uses = (
        "defocus_A",
        "astigmatism_A",
        "fit_resolution_A",
        "phase_shift_deg",
        "ice_ring",
        "cross_correlation",
    )

    def derive(self, values: Mapping[str, Any], memory: Any) -> dict[str, Any]:
        """The fit's numbers, and the astigmatism over the defocus."""
        mine = super().derive(values, memory)
        defocus, astigmatism = mine["defocus_A"], mine["astigmatism_A"]
        known = isinstance(defocus, int | float) and isinstance(astigmatism, int | float) and defocus
        mine["relative_astigmatism"] = astigmatism / abs(defocus) if known else None
        return mine

    def criteria(self, parameters: GateCtfParameters) -> Sequence[Criterion]:
        """One for each quantity."""
        p = parameters
        return (
            Criterion("defocus", "defocus_A", p.least_defocus_A, p.most_defocus_A, " A"),
            Criterion("astigmatism", "astigmatism_A", high=p.most_astigmatism_A, unit=" A"),
            Criterion("relative_astigmatism", "relative_astigmatism", high=p.most_astigmatism),
            Criterion("resolution", "fit_resolution_A", high=p.max_fit_resolution_A, unit=" A"),
            Criterion("phase", "phase_shift_deg", p.min_phase_shift_deg, p.max_phase_shift_deg, " degrees"),
            # Pixels may be too large to see the ring: that's no reason to refuse them.
            Criterion("ice", "ice_ring", high=p.max_ice_ring, may_lack=True),
            Criterion("figure_of_merit", "cross_correlation", low=p.min_figure_of_merit),
        )


class GateIceParameters(GateParameters):
    """How much ice is too much."""

    max_ice_ring: float | None = Field(
        default=1.5, gt=0, description="strength of 3.6-4.0 A over 4.0-4.4 A, at most"
    )
    max_masked_fraction: float | None = Field(
        default=0.7, gt=0, le=1, description="part of the image called carbon, ice or dirt, at most (0 to 1)"
    )


class GateIce(Gate[GateIceParameters]):
    """Rejects exposures with crystalline ice, or with little to see between carbon and dirt."""

    name = "gate.ice"
    summary = "Rejects exposures by their ice ring, and by how much is carbon, ice or dirt"
    Parameters = GateIceParameters
    uses = ("ice_ring", "masked_fraction")

    def criteria(self, parameters: GateIceParameters) -> Sequence[Criterion]:
        """The ring, and what is masked."""
        return (
            Criterion("ring", "ice_ring", high=parameters.max_ice_ring),
            Criterion("masked", "masked_fraction", high=parameters.max_masked_fraction),
        )


class GateTiltParameters(GateParameters):
    """How far the specimen may be tilted."""

    max_tilt_deg: float | None = Field(
        default=10.0,
        gt=0,
        le=90,
        description="tilt that the spectra of the field's parts tell of, at most (degrees)",
    )
    max_tilt_uncertainty_deg: float | None = Field(
        default=None, gt=0, description="of that tilt: above, the parts don't agree on one (degrees)"
    )


class GateTilt(Gate[GateTiltParameters]):
    """Rejects exposures by the tilt that the CTF fit found, where it was asked for one."""

    name = "gate.tilt"
    summary = "Rejects exposures whose fitted tilt (spectra by place) is too large, or not sure enough"
    inputs = passed_on(Kind.CTF)
    Parameters = GateTiltParameters
    uses = ("tilt_deg", "tilt_uncertainty_deg")

    def criteria(self, parameters: GateTiltParameters) -> Sequence[Criterion]:
        """The tilt, and how sure it is."""
        return (
            Criterion("tilt", "tilt_deg", high=parameters.max_tilt_deg, unit=" degrees"),
            Criterion(
                "agreement", "tilt_uncertainty_deg", high=parameters.max_tilt_uncertainty_deg, unit=" degrees"
            ),
        )
