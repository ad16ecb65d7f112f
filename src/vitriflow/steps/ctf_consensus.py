"""Says whether several estimates of one CTF agree, and hands on their mean."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from vitriflow.errors import BadFile, Reason
from vitriflow.steps.base import Context, Port, Resources, Step, StepParameters
from vitriflow.steps.ctf_native import write_ctf_star
from vitriflow.steps.records import Artifact, CtfConsensusResult, Kind, Status

if TYPE_CHECKING:
    from vitriflow.kernels.consensus import CtfEstimate

_NEEDED = (
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
)
_NO_LIMIT = 990.0  # what stands in a STAR for a resolution that isn't known


class CtfConsensusParameters(StepParameters):
    """What agreeing means."""

    resolution_A: float = Field(
        default=6.0,
        gt=1,
        le=100,
        description="estimates agree when their phases differ by less than pi/2 up to this resolution (A)",
    )
    min_agreeing: int = Field(
        default=1,
        ge=1,
        le=4,
        description="estimates that have to agree; with 1 a single estimate, where the others failed, is handed on",
    )


class CtfConsensus(Step[CtfConsensusParameters, CtfConsensusResult]):
    """The largest group of estimates that all agree is averaged; the others are named.

    With two that disagree there's no telling which is right: the exposure is quarantined with both numbers.
    """

    name = "ctf.consensus"
    version = "1"
    summary = "Mean of the CTF estimates that agree up to a resolution; those that don't are named"
    folder = "CtfFind"
    inputs = {  # noqa: RUF012  (declared as ClassVar by Step)
        "ctf_1": Port(Kind.CTF, "an estimate", optional=True),
        "ctf_2": Port(Kind.CTF, "another one", optional=True),
        "ctf_3": Port(Kind.CTF, "a third", optional=True),
        "ctf_4": Port(Kind.CTF, "a fourth", optional=True),
    }
    outputs = {  # noqa: RUF012
        "ctf": Port(Kind.CTF, "STAR with the mean; not written where too few agree", optional=True)
    }
    Parameters = CtfConsensusParameters
    Record = CtfConsensusResult

    def resources(self, parameters: CtfConsensusParameters) -> Resources:
        """Some numbers."""
        return Resources(threads=1, memory_bytes=256 * 1024**2, time_limit_s=60.0)

    def run(
        self, inputs: Mapping[str, Artifact], parameters: CtfConsensusParameters, context: Context
    ) -> CtfConsensusResult:
        """Compare the estimates of one exposure."""
        from vitriflow.kernels.consensus import agreeing, ctf_agreement_A

        read: dict[str, tuple[CtfEstimate, float | None]] = {}
        warnings: list[str] = []
        for port, given in sorted(inputs.items()):
            try:
                read[port] = _read(given)
            except BadFile as error:
                warnings.append(f"{port} can't be used: {error}")
        ports, estimates = list(read), [estimate for estimate, _ in read.values()]
        _same_voltage(estimates)
        group = agreeing(estimates, parameters.resolution_A) if estimates else []
        worst = [ctf_agreement_A(estimates[i], estimates[j]) for i in group for j in group if i < j]
        needed = max(parameters.min_agreeing, 2 if len(estimates) > 1 else 1)
        record = CtfConsensusResult(
            warnings=warnings,
            n_estimates=len(estimates),
            n_agreeing=len(group),
            agreement_A=round(max(worst), 3) if worst else None,
        )
        if len(group) < needed:
            return _quarantined(record, estimates, parameters, needed)
        record.apart = [port for index, port in enumerate(ports) if index not in group]
        if len(estimates) == 1:
            record.warnings.append("only one estimate came: there's nothing to agree with")
        if record.apart:
            record.warnings.append(
                f"{', '.join(record.apart)} doesn't agree with the others and was left out"
            )
        return _averaged(record, [estimates[i] for i in group], [read[ports[i]][1] for i in group], context)


def _same_voltage(estimates: "list[CtfEstimate]") -> None:
    voltages = sorted({round(one.voltage_kV, 1) for one in estimates})
    if len(voltages) > 1:
        raise BadFile(
            Reason.METADATA_BROKEN,
            "estimates of one CTF",
            "the same voltage in all of them",
            ", ".join(f"{one:g} kV" for one in voltages),
            "Set voltage_kV for the whole processing: defocus scales with it.",
        )


def _read(given: Artifact) -> "tuple[CtfEstimate, float | None]":
    """An estimate, and the resolution that its rings fit to (None where it isn't known)."""
    from vitriflow.formats import read_star
    from vitriflow.kernels.consensus import CtfEstimate

    block: Any = read_star(given.path).get("ctf")
    missing = [name for name in _NEEDED if not isinstance(block, dict) or name not in block]
    if missing:
        raise BadFile(
            Reason.METADATA_BROKEN,
            str(given.path),
            "data_ctf of a CTF step",
            f"no {', '.join(missing)}",
            "Make it anew.",
        )
    try:
        u, v, angle, voltage, cs, contrast = (float(block[name]) for name in _NEEDED)
        phase = float(block.get("rlnPhaseShift", 0.0))
        reach = float(block.get("rlnCtfMaxResolution", 999.0))
    except (TypeError, ValueError) as error:
        raise BadFile(
            Reason.METADATA_BROKEN, str(given.path), "numbers", str(error), "Make it anew."
        ) from error
    numbers = (u, v, angle, voltage, cs, contrast, phase)
    if not all(math.isfinite(number) for number in numbers) or not 0 <= contrast <= 1:
        raise BadFile(Reason.NOT_FINITE, str(given.path), "finite numbers", "others", "Make it anew.")
    return CtfEstimate(u, v, angle, phase, voltage, cs, contrast), reach if reach < _NO_LIMIT else None


def _quarantined(
    record: CtfConsensusResult,
    estimates: "list[CtfEstimate]",
    parameters: CtfConsensusParameters,
    needed: int,
) -> CtfConsensusResult:
    record.status = Status.QUARANTINED
    said = ", ".join(
        f"{one.defocus_u_A:.0f}/{one.defocus_v_A:.0f} A at {one.angle_deg:.0f} degrees" for one in estimates
    )
    if len(estimates) < needed:
        record.reason_code = str(Reason.NO_RINGS)
        record.reason = f"{len(estimates)} of the CTF estimates succeeded, {needed} are needed"
    else:
        record.reason_code = str(Reason.CTF_DOUBTFUL)
        record.reason = f"no {needed} CTF estimates agree up to {parameters.resolution_A:g} A: {said}"
    return record


def _averaged(
    record: CtfConsensusResult,
    estimates: "list[CtfEstimate]",
    reach_A: list[float | None],
    context: Context,
) -> CtfConsensusResult:
    from vitriflow.kernels.consensus import mean_ctf
    from vitriflow.kernels.ctf_rings import Optics

    mean = mean_ctf(estimates)
    record.defocus_u_A = round(mean.defocus_u_A, 2)
    record.defocus_v_A = round(mean.defocus_v_A, 2)
    record.astigmatism_A = round(mean.defocus_u_A - mean.defocus_v_A, 2)
    record.defocus_angle_deg = round(mean.angle_deg, 3)
    record.phase_shift_deg = round(mean.phase_shift_deg, 3)
    known = [one for one in reach_A if one is not None]
    # No finer than the estimates agree, however far each alone saw rings
    record.fit_resolution_A = max([max(known), record.agreement_A or 0.0]) if known else None
    spread = [one.mean_A - mean.mean_A for one in estimates]
    if len(estimates) > 1:
        record.defocus_uncertainty_A = round(
            math.sqrt(sum(one * one for one in spread) / (len(spread) - 1)) / math.sqrt(len(spread)), 2
        )
    record.quality = "good" if len(estimates) > 1 else "doubtful"
    optics = Optics(mean.voltage_kV, mean.cs_mm, mean.amplitude_contrast)
    record.outputs = {"ctf": write_ctf_star(record, optics, context)}
    context.say(
        f"mean of {len(estimates)} estimates, means {min(spread):+.0f} to {max(spread):+.0f} A around it"
    )
    return record
