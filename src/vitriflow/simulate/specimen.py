"""The particle: atoms from a file or an ideal phantom, and its projections in random orientations."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import gemmi
import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vitriflow.errors import BadFile, Reason
from vitriflow.simulate.optics import (
    ICE_MOLECULES_PER_A3,
    frequency_axes,
    phase_per_scattering_length,
    scattering_factor,
    water_scattering_length,
)

Float = NDArray[np.float32]

# Hydrogens that a heavy atom of protein carries on average, where the file has none
IMPLICIT_HYDROGENS = {"C": 1.3, "N": 1.1, "O": 0.2, "S": 0.3}
PROTEIN_A3_PER_DALTON = 1.21  # partial specific volume 0.73 mL/g
ATOM_B_FACTOR_A2 = 20.0
SOLVENT_B_FACTOR_A2 = 100.0  # how smoothly the displaced water is spread

# One residue of an ideal helix: element, radius (A), angle (degrees) and rise (A) against its CA.
# Backbone of an ideal alpha helix; the side chain is an average one.
_RESIDUE = (
    ("N", 1.55, -28.0, -0.90),
    ("C", 2.28, 0.0, 0.0),
    ("C", 1.66, 26.0, 1.10),
    ("O", 2.02, 24.0, 2.35),
    ("C", 3.30, -18.0, -0.35),
    ("C", 4.40, -4.0, -0.90),
    ("C", 5.40, -16.0, -1.60),
    ("O", 6.20, -6.0, -2.10),
)
_RISE_A, _TURN_DEG = 1.5, 100.0


@dataclass(frozen=True)
class Atoms:
    """Atoms centred on the origin: ``positions_A (n, 3)`` in x, y, z and the element of each."""

    positions_A: NDArray[np.float64]
    elements: NDArray[np.str_]

    @property
    def diameter_A(self) -> float:
        """Twice the distance of the farthest atom from the centre (A)."""
        return 2.0 * float(np.linalg.norm(self.positions_A, axis=1).max())


def ideal_helix(n_residues: int) -> Atoms:
    """An ideal alpha helix along z, centred: 1.5 A and 100 degrees a residue (Pauling 1951)."""
    number = np.arange(n_residues)[:, None]
    radius, angle, rise = (np.array([row[i] for row in _RESIDUE], dtype=np.float64) for i in (1, 2, 3))
    turn = np.deg2rad(_TURN_DEG * number + angle[None])
    z = _RISE_A * number + rise[None]
    xyz = np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=-1).reshape(-1, 3)
    names = np.tile(np.array([row[0] for row in _RESIDUE]), n_residues)
    return Atoms(xyz - xyz.mean(axis=0), names)


# A vertex of the snub cube: the 24 copies stand as far apart on the sphere as they can
_VERTEX = np.array([1.0, 0.5436890126920764, 1.8392867552141612])
_LEAN_DEG = 120.0  # of each bundle about its own radius, chosen so that neighbours don't clash


def phantom(diameter_A: float = 120.0) -> Atoms:
    """A hollow ball of helices with octahedral symmetry, like ferritin, of a given diameter (A).

    Twenty-four bundles of four antiparallel helices lie in a shell about 24 A thick. Helices are
    27 residues at 120 A and grow with the diameter.
    """
    n_residues = max(6, round(27 * diameter_A / 120.0))
    helix = ideal_helix(n_residues)
    parts = []
    for tangent, radial, up in ((-5.0, -5.0, 1.0), (5.0, -5.0, -1.0), (-5.0, 5.0, -1.0), (5.0, 5.0, 1.0)):
        # turning about x, not mirroring: helices stay right-handed
        parts.append(helix.positions_A * np.array([1.0, up, up]) + [tangent, radial, 0.0])
    bundle = Rotation.from_euler("y", _LEAN_DEG, degrees=True).apply(np.concatenate(parts))
    half_width = np.hypot(bundle[:, 0], bundle[:, 2]).max()
    outside = np.sqrt(max((0.5 * diameter_A) ** 2 - half_width**2, 0.0))
    bundle += [0.0, max(outside - bundle[:, 1].max(), 0.0), 0.0]
    outward = _VERTEX / np.linalg.norm(_VERTEX)
    placed = Rotation.align_vectors(outward[None], np.array([[0.0, 1.0, 0.0]]))[0].apply(bundle)
    group = Rotation.create_group("O")
    positions = np.concatenate([rotation.apply(placed) for rotation in group])
    elements = np.tile(np.tile(helix.elements, 4), len(group))
    return Atoms(positions, elements)


def read_structure(path: Path) -> Atoms:
    """Heavy atoms of a PDB or mmCIF file's first biological assembly, without water, centred."""
    if not path.is_file():
        raise BadFile(Reason.VANISHED, str(path), "a PDB or mmCIF file", "no such file", "Check --specimen.")
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError) as error:
        raise BadFile(
            Reason.UNREADABLE, str(path), "a PDB or mmCIF file", str(error), "Try the file in a viewer."
        ) from error
    structure.setup_entities()
    structure.remove_waters()
    structure.remove_hydrogens()
    structure.remove_alternative_conformations()
    if len(structure) == 0:
        raise BadFile(
            Reason.EMPTY, str(path), "coordinates of atoms", "no model", "Give the file of a structure."
        )
    model = structure[0]
    if structure.assemblies:
        model = gemmi.make_assembly(structure.assemblies[0], model, gemmi.HowToNameCopiedChain.AddNumber)
    rows = [(a.pos.x, a.pos.y, a.pos.z, a.element.name) for c in model for r in c for a in r if a.occ > 0]
    if not rows:
        raise BadFile(Reason.EMPTY, str(path), "atoms", "none", "Give the file of a structure.")
    positions = np.array([row[:3] for row in rows], dtype=np.float64)
    elements = np.array([row[3] for row in rows])
    return Atoms(positions - positions.mean(axis=0), elements)


@dataclass(frozen=True)
class Stamps:
    """Projected phases of the particle against the ice it displaces.

    Attributes
    ----------
    phases
        ``(n_views, box, box)`` in radians; the particle's centre stands at pixel ``box // 2`` plus
        the view's offset, so that a field of whole-pixel stamps has sub-pixel truth.
    offsets_px
        ``(n_views, 2)``, y then x, each in -0.5 to 0.5.
    rotations
        Orientation of each view.
    """

    phases: Float
    offsets_px: NDArray[np.float64]
    rotations: Rotation

    @property
    def box(self) -> int:
        """Side of a stamp (px)."""
        return int(self.phases.shape[-1])


def _net_scattering(element: str, k2: Float) -> Float:
    """Scattering length (A) of an atom with its hydrogens, less that of the water it displaces."""
    hydrogens = IMPLICIT_HYDROGENS.get(element, 0.0)
    mass = gemmi.Element(element).weight + 1.008 * hydrogens
    atom = scattering_factor(element, k2) + np.float32(hydrogens) * scattering_factor("H", k2)
    water = water_scattering_length(np.zeros(1, dtype=np.float32))[0] * ICE_MOLECULES_PER_A3
    displaced = PROTEIN_A3_PER_DALTON * mass * water * np.exp(-0.25 * SOLVENT_B_FACTOR_A2 * k2)
    net: Float = (atom * np.exp(-0.25 * ATOM_B_FACTOR_A2 * k2) - displaced).astype(np.float32)
    return net


def _deposit(y: NDArray[np.float64], x: NDArray[np.float64], size: int) -> Float:
    """Spread points over their four neighbours of a ``(size, size)`` grid, bilinearly."""
    row, column = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    fy, fx = y - row, x - column
    flat = row * size + column
    index = np.concatenate([flat, flat + 1, flat + size, flat + size + 1])
    weight = np.concatenate([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx])
    counts = np.bincount(index, weights=weight, minlength=size * size)
    grid: Float = counts.reshape(size, size).astype(np.float32)
    return grid


def project(atoms: Atoms, pixel_size_A: float, voltage_kV: float, n_views: int, seed: int) -> Stamps:
    """Projections of atoms in ``n_views`` random orientations as phases (rad).

    Atoms of one element are gathered on a fine grid, multiplied by their scattering factor in
    Fourier space, and cut to the pixel's Nyquist.
    """
    rng = np.random.default_rng([seed, 0x5EED])
    rotations = Rotation.random(n_views, rng=rng)
    offsets = rng.uniform(-0.5, 0.5, size=(n_views, 2))
    box = 2 * scipy.fft.next_fast_len(int(np.ceil((0.5 * atoms.diameter_A + 16.0) / pixel_size_A)) + 1)
    fine = max(1, int(np.ceil(pixel_size_A / 0.6)))
    size, step = box * fine, pixel_size_A / fine
    ky, kx = frequency_axes((size, size), step)
    kinds = sorted(set(atoms.elements.tolist()))
    # bilinear gathering is a triangle in each axis: undo its sinc^2
    undo = 1.0 / (np.sinc(ky * step) ** 2 * np.sinc(kx * step) ** 2)
    scale = phase_per_scattering_length(voltage_kV) / pixel_size_A**2
    filters = {kind: _net_scattering(kind, ky * ky + kx * kx) * undo * scale for kind in kinds}
    phases = np.empty((n_views, box, box), dtype=np.float32)
    half = box // 2
    for view in range(n_views):
        xyz = rotations[view].apply(atoms.positions_A)
        y = xyz[:, 1] / step + (half + offsets[view, 0]) * fine
        x = xyz[:, 0] / step + (half + offsets[view, 1]) * fine
        total = np.zeros((size, size // 2 + 1), dtype=np.complex64)
        for kind in kinds:
            chosen = atoms.elements == kind
            total += scipy.fft.rfft2(_deposit(y[chosen], x[chosen], size)) * filters[kind]
        rows = np.r_[0:half, size - half : size]
        cut = total[rows, : half + 1]
        cut[half] = 0.0  # Nyquist has no partner on the coarse grid
        cut[:, half] = 0.0
        phases[view] = scipy.fft.irfft2(cut, s=(box, box))
    return Stamps(phases, offsets, rotations)


@lru_cache(maxsize=4)
def load_stamps(
    specimen: Path | None, diameter_A: float, pixel_size_A: float, voltage_kV: float, n_views: int, seed: int
) -> Stamps:
    """Projections of the specimen of a session: made once, used for all of its movies."""
    atoms = phantom(diameter_A) if specimen is None else read_structure(specimen)
    return project(atoms, pixel_size_A, voltage_kV, n_views, seed)
