"""Whether a fit explains rings, or has only converged.

A least-squares fit always finds something. Real Thon rings agree with the fit ring by ring, all
the way around, in phase, and no other defocus explains them nearly as well. Each of these is
measured here by itself, and all have to hold before a fit is called good.
"""

from dataclasses import dataclass

import numpy as np

from vitriflow.kernels.ctf_rings import SECTORS, Floats, Ints, Rings

GOOD = "good"
DOUBTFUL = "doubtful"
NO_RINGS = "no rings"

_BLOCK_PIXELS = 6.0  # rings finer than this are judged together
_SIGNIFICANT = 4.0


@dataclass(frozen=True)
class Blocks:
    """Agreement ring by ring. A block is one turn of the CTF, or several where rings are fine.

    Attributes
    ----------
    k
        (n,) mean frequency of each block (1/A), rising.
    score
        (n,) modulation in standard deviations, these from the scatter between sectors.
    modulation
        (n,) depth of the rings in the whitened power.
    level
        (n,) mean of the whitened power.
    phase_error
        (n,) by how much the data's rings are off the fit's, as a phase of 2 chi (radians).
    sectors
        (n, SECTORS) covariance with the fit in each sector.
    """

    k: Floats
    score: Floats
    modulation: Floats
    level: Floats
    phase_error: Floats
    sectors: Floats

    def run(self, gap: int = 1) -> int:
        """Index past the last block of the first unbroken run of significant ones.

        ``gap`` blocks in a row may fail inside the run; before it, two may.
        """
        end, missed = 0, 0
        for index, score in enumerate(self.score):
            if score > _SIGNIFICANT:
                end, missed = index + 1, 0
            else:
                missed += 1
                if missed > (gap if end else 2):
                    break
        return end


def make_blocks(rings: Rings, chi: Floats, background: Floats) -> Blocks:
    """Measure the agreement of the whitened power with ``-cos(2 chi)``, ring by ring.

    Parameters
    ----------
    rings
        The whitened spectrum.
    chi
        (n,) phase of the fit at each pixel (radians).
    background
        (n_rings,) smooth part of the whitened power.
    """
    block = _block_of_pixel(rings, chi)
    n_blocks = int(block.max()) + 1
    cell = block * SECTORS + rings.sector
    shape = (n_blocks, SECTORS)

    def total(weights: Floats | None = None) -> Floats:
        return np.bincount(cell, weights, minlength=n_blocks * SECTORS).reshape(shape).astype(np.float64)

    value = rings.value - background[rings.ring]
    wave, quadrature = -np.cos(2.0 * chi), np.sin(2.0 * chi)
    count = np.maximum(total(), 1.0)
    value_sum = total(value)

    def centred(one: Floats, two: Floats, two_sum: Floats) -> Floats:
        return total(one * two) - total(one) * two_sum / count

    with_wave = centred(wave, value, value_sum)
    with_quadrature = centred(quadrature, value, value_sum)
    power = centred(wave, wave, total(wave))
    side = centred(quadrature, quadrature, total(quadrature))
    strength = np.maximum(power.sum(axis=1), 1e-12)
    modulation = with_wave.sum(axis=1) / strength
    off = with_quadrature.sum(axis=1) / np.maximum(side.sum(axis=1), 1e-12)
    scatter = np.square(with_wave - modulation[:, None] * power).sum(axis=1) * SECTORS / (SECTORS - 1)
    k = np.bincount(block, rings.k, minlength=n_blocks) / np.maximum(
        np.bincount(block, minlength=n_blocks), 1
    )
    order = np.argsort(k, kind="stable")
    score = with_wave.sum(axis=1) / np.sqrt(np.maximum(scatter, 1e-30))
    return Blocks(
        k=k[order],
        score=score[order],
        modulation=modulation[order],
        level=(total(rings.value).sum(axis=1) / count.sum(axis=1))[order],
        phase_error=np.arctan2(off, modulation)[order],
        sectors=with_wave[order],
    )


def _block_of_pixel(rings: Rings, chi: Floats) -> Ints:
    """Number the turns of chi at each pixel, fine neighbours joined to blocks of enough width."""
    turn = np.floor(chi / np.pi).astype(np.intp)
    turn -= int(turn.min())
    n_turns = int(turn.max()) + 1
    count = np.bincount(turn, minlength=n_turns)
    k = np.bincount(turn, rings.k, minlength=n_turns) / np.maximum(count, 1)
    around = np.pi * k / rings.step  # pixels on half a circle
    width = count / np.maximum(around, 1.0)
    table = np.zeros(n_turns, dtype=np.intp)
    block, filled = 0, 0.0
    for index in range(n_turns):
        table[index] = block
        filled += width[index]
        if filled >= _BLOCK_PIXELS:
            block, filled = block + 1, 0.0
    if 0.0 < filled < _BLOCK_PIXELS and block:
        table[table == block] = block - 1  # a sliver at the end belongs to what came before
    return table[turn]


@dataclass(frozen=True)
class Evidence:
    """All that a verdict rests on.

    Attributes
    ----------
    blocks
        Agreement ring by ring.
    rival_gain
        What the best other defocus explains, over what the fit explains.
    rival_defocus_A
        That other defocus (A), None when there is none.
    rival_limit
        Above which the other defocus is a rival to take seriously.
    inside
        Whether the fit lies in the ranges that were asked for.
    relative_uncertainty
        Standard deviation of the defocus over the defocus.
    """

    blocks: Blocks
    rival_gain: float
    rival_defocus_A: float | None
    rival_limit: float
    inside: bool
    relative_uncertainty: float


def judge(evidence: Evidence) -> tuple[str, tuple[str, ...]]:
    """The verdict, and in words what speaks against the fit.

    Returns
    -------
    tuple
        ``good``, ``doubtful`` or ``no rings``, and the doubts (empty for ``good``).
    """
    blocks = evidence.blocks
    end = blocks.run()
    seen = int(np.count_nonzero(blocks.score[:end] > _SIGNIFICANT))
    if seen < 2:
        return NO_RINGS, (f"{seen} of {blocks.score.size} rings agree with the best fit; at least 2 have to",)
    off = _phase_scatter(blocks, end)
    around = blocks.sectors[:end].sum(axis=0)
    share = float(np.mean(around > 0.25 * around.mean()))
    doubts = []
    if seen < 4:
        doubts.append(f"only {seen} rings agree with the fit")
    if off > 20.0:
        doubts.append(f"the rings are off the fit by {off:.0f} degrees of phase")
    if share < 0.9:
        doubts.append(f"rings agree with the fit in {share:.0%} of directions only")
    if float(np.max(blocks.modulation[:end] / np.maximum(blocks.level[:end], 1e-6))) > 1.15:
        doubts.append("the rings are deeper than any CTF can make them: a filter or a structure, not a CTF")
    if evidence.rival_gain > evidence.rival_limit and evidence.rival_defocus_A is not None:
        doubts.append(f"{evidence.rival_defocus_A:.0f} A of defocus explains the spectrum nearly as well")
    if not evidence.inside:
        doubts.append("the best fit lies outside the ranges of defocus and astigmatism that were asked for")
    if evidence.relative_uncertainty > 0.02:
        doubts.append(f"the defocus is known to {evidence.relative_uncertainty:.1%} only")
    if not doubts:
        return GOOD, ()
    hopeless = (seen < 4 and len(doubts) > 1) or len(doubts) > 2 or share < 0.5 or off > 40.0
    return (NO_RINGS if hopeless else DOUBTFUL), tuple(doubts)


def _phase_scatter(blocks: Blocks, end: int) -> float:
    """Scatter of the rings' phases against the fit (degrees), without what noise alone would do."""
    score = np.maximum(blocks.score[:end], 1.0)
    beyond = np.square(blocks.phase_error[:end]) - 1.0 / np.square(score)
    # no ring weighs more than twice a plain one: the innermost also carries the particle's own shape
    weight = np.minimum(score, 2.0 * _SIGNIFICANT)
    return float(np.degrees(np.sqrt(max(float(np.average(beyond, weights=weight)), 0.0))))
