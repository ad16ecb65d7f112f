"""Specimens: the phantom, real coordinates, and motion of real movies."""

import numpy as np
import pytest
import starfile
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from vitriflow.errors import BadFile
from vitriflow.simulate import MotionSpec, MovieSpec, simulate_movie
from vitriflow.simulate.specimen import ideal_helix, phantom, project, read_structure


def test_the_phantom_has_octahedral_symmetry_and_a_hollow():
    atoms = phantom(120.0)
    tree = cKDTree(atoms.positions_A)
    for rotation in Rotation.create_group("O"):
        assert tree.query(rotation.apply(atoms.positions_A))[0].max() < 1e-6
    assert tree.query(Rotation.from_euler("z", 45, degrees=True).apply(atoms.positions_A))[0].max() > 1.0
    radii = np.linalg.norm(atoms.positions_A, axis=1)
    assert radii.min() > 25.0
    assert atoms.diameter_A == pytest.approx(120.0, rel=0.05)


@pytest.mark.parametrize("diameter", [80.0, 200.0])
def test_the_phantom_grows_with_its_diameter(diameter):
    assert phantom(diameter).diameter_A == pytest.approx(diameter, rel=0.08)


def test_a_helix_rises_as_an_alpha_helix_and_is_right_handed():
    helix = ideal_helix(20)
    ca = helix.positions_A.reshape(20, -1, 3)[:, 1]
    assert np.linalg.norm(np.diff(ca, axis=0), axis=1) == pytest.approx(3.8, abs=0.05)
    triple = np.einsum("ij,ij->i", np.cross(ca[1:-2] - ca[:-3], ca[2:-1] - ca[1:-2]), ca[3:] - ca[2:-1])
    assert (triple > 0).all()


def test_projections_keep_the_scattering_mass_in_every_view():
    stamps = project(phantom(80.0), 1.5, 300.0, 5, seed=1)
    masses = stamps.phases.sum(axis=(1, 2))
    assert masses == pytest.approx(masses.mean(), rel=1e-3)
    assert masses.mean() > 0


def test_projections_agree_between_pixel_sizes():
    atoms = phantom(80.0)
    fine, coarse = project(atoms, 1.0, 300.0, 1, seed=1), project(atoms, 2.0, 300.0, 1, seed=1)
    assert fine.phases.sum() * 1.0 == pytest.approx(coarse.phases.sum() * 4.0, rel=0.01)


def test_the_centre_of_a_view_is_where_its_offset_says():
    stamps = project(phantom(80.0), 1.0, 300.0, 4, seed=2)
    axis = np.arange(stamps.box) - stamps.box // 2
    for phases, offset in zip(stamps.phases, stamps.offsets_px, strict=True):
        mass = phases.sum()
        centre = [(phases.sum(axis=1 - i) * axis).sum() / mass for i in (0, 1)]
        assert centre == pytest.approx(offset, abs=0.05)


def test_coordinates_of_a_real_protein_make_a_movie(real_data):
    path = real_data / "structures" / "6z6u.pdb"
    atoms = read_structure(path)
    assert atoms.diameter_A == pytest.approx(128.0, abs=8.0)
    assert "H" not in set(atoms.elements.tolist())
    movie = simulate_movie(MovieSpec(shape=(384, 384), n_frames=1, specimen=path, n_views=2))
    assert len(movie.truth.particles_px) > 0
    assert movie.frame(0).any()


def test_a_small_file_of_coordinates_works_in_any_script(tmp_path):
    lines = [
        f"ATOM  {i:5d}  CA  ALA A{i:4d}    {x:8.3f}{0.0:8.3f}{0.0:8.3f}  1.00  0.00           C"
        for i, x in enumerate(np.linspace(-20, 20, 9), 1)
    ]
    path = tmp_path / "分子 ж.pdb"
    path.write_text("\n".join([*lines, "END"]))
    assert read_structure(path).diameter_A == pytest.approx(40.0)


@pytest.mark.parametrize("content", [None, "", "nothing of use\n"])
def test_a_file_without_atoms_is_refused(tmp_path, content):
    path = tmp_path / "wrong.pdb"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadFile):
        read_structure(path)


def test_real_motion_is_replayed_in_angstroms(real_data):
    path = real_data / "empiar-10204-relion5" / "MotionCorr" / "20170629_00021_frameImage.star"
    spec = MovieSpec(
        shape=(3838, 3710), n_frames=24, pixel_size_A=1.77, motion=MotionSpec(relion_star=path), n_particles=0
    )
    from vitriflow.simulate.motion import make_motion

    motion = make_motion(spec, np.random.default_rng(0))
    # its last row reads x 11.273892, y -11.52884 px of 0.885 A; ours are twice as large
    assert motion.global_shifts_px[-1] == pytest.approx([-11.52884 / 2, 11.273892 / 2])
    # its patches were measured there: the model follows them, and would not with x and y exchanged
    patches = starfile.read(path, always_dict=True)["local_shift"]
    measured = patches[["rlnMicrographShiftY", "rlnMicrographShiftX"]].to_numpy()
    local = np.array(
        [
            2 * motion.local_at(int(frame) - 1, np.array(y), np.array(x))
            for frame, x, y in patches.iloc[:, :3].to_numpy()
        ]
    )
    left = np.sqrt(np.mean((measured - local) ** 2))
    assert left < 0.7 * np.sqrt(np.mean(measured**2))
    assert left < 0.5 * np.sqrt(np.mean((measured - local[:, ::-1]) ** 2))
    assert np.abs(motion.local_coefficients_px[0]).max() == 0


def test_a_star_of_another_kind_is_refused(real_data):
    path = real_data / "particles-cryodrgn" / "relion31.star"
    with pytest.raises(BadFile, match="global_shift"):
        simulate_movie(MovieSpec(shape=(64, 64), n_frames=2, motion=MotionSpec(relion_star=path)))
