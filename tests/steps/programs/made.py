"""Small inputs for outside programs: a movie that moves, a micrograph with rings, particles of a blob."""

from pathlib import Path

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

from vitriflow.formats import MrcWriter, write_mrc, write_particles, write_stack
from vitriflow.steps import Artifact, BatchItem, Kind

SIDE = 256
STEPS_PX = (1.0, 2.0)  # y and x that the picture moves from frame to frame


def make_movie(path: Path, n_frames: int = 8) -> Path:
    """A picture that moves by whole pixels, on noise."""
    rng = np.random.default_rng(1)
    picture = gaussian_filter(rng.random((300, 300)), 3) * 40.0
    picture += np.linspace(0, 3, 300)[:, None] - picture.min()
    with MrcWriter(path, (SIDE, SIDE), np.float32, 1.0, n_frames) as writer:
        for frame in range(n_frames):
            y, x = 10 + frame * int(STEPS_PX[0]), 10 + frame * int(STEPS_PX[1])
            cut = picture[y : y + SIDE, x : x + SIDE]
            writer.write((cut + rng.normal(0, 1, cut.shape)).astype(np.float32))
    return path


def shifts_of(n_frames: int = 8) -> np.ndarray:
    """What brings each frame of :func:`make_movie` onto the first, y and x (px)."""
    return np.arange(n_frames)[:, None] * np.array(STEPS_PX)


def volume(side: int = 32) -> np.ndarray:
    """Some unequal blobs, inside a sphere of 20 px."""
    rng = np.random.default_rng(3)
    found = np.zeros((side,) * 3)
    for at in rng.uniform(-7, 7, (6, 3)):
        z, y, x = np.rint(at + side / 2).astype(int)
        found[z, y, x] += rng.uniform(50, 150)
    return gaussian_filter(found, 1.5)


def make_particles(folder: Path, count: int = 300, side: int = 32, members: int = 2) -> list[BatchItem]:
    """Noisy projections of :func:`volume`, shared out to exposures; the first has 16-bit images."""
    import pandas as pd

    rng = np.random.default_rng(5)
    object_ = volume(side)
    centre = np.full(3, side / 2)
    items = []
    for member in range(members):
        images = []
        for turn in Rotation.random(count // members, random_state=member).as_matrix():
            turned = affine_transform(object_, turn, centre - turn @ centre, order=1)
            images.append(turned.sum(0) + rng.normal(0, 1.0, (side, side)))
        stack = np.array(images, dtype=np.float32)
        name = f"m{member}_particles"
        write_stack(folder / f"{name}.mrcs", stack, 4.0, half=member == 0)
        table = pd.DataFrame(
            {
                "rlnImageName": [f"{index:06d}@{name}.mrcs" for index in range(1, len(stack) + 1)],
                "rlnMicrographName": f"m{member}.mrc",
                "rlnOpticsGroup": 1,
                "rlnCoordinateX": 10.0,
                "rlnCoordinateY": 10.0,
            }
        )
        optics = {
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnOpticsGroup": [1],
            "rlnImagePixelSize": [4.0],
            "rlnImageSize": [side],
            "rlnImageDimensionality": [2],
        }
        write_particles(folder / f"{name}.star", table, pd.DataFrame(optics))
        artifact = Artifact(kind=Kind.PARTICLES, path=folder / f"{name}.star", pixel_size_A=4.0)
        items.append(BatchItem(f"m{member}", member, {"particles": artifact}))
    return items


def make_reference(path: Path, side: int = 32) -> Path:
    """The volume, blurred, as a map to begin with."""
    write_mrc_volume(path, gaussian_filter(volume(side), 2.0).astype(np.float32), 4.0)
    return path


def write_mrc_volume(path: Path, values: np.ndarray, pixel_A: float) -> None:
    """A map, as RELION reads it."""
    import mrcfile

    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(values)
        file.set_volume()
        file.voxel_size = pixel_A


def make_micrograph(path: Path, side: int = 512, pixel_A: float = 2.0) -> np.ndarray:
    """Dark round particles on noise; returns where they are, y and x (px)."""
    rng = np.random.default_rng(9)
    at = np.array([(y, x) for y in range(60, side - 50, 80) for x in range(60, side - 50, 80)], float)
    at += rng.uniform(-8, 8, at.shape)
    y, x = np.mgrid[:side, :side]
    image = rng.normal(0, 1, (side, side))
    for one in at:
        image -= 1.5 * ((y - one[0]) ** 2 + (x - one[1]) ** 2 < 20.0**2)
    write_mrc(path, image.astype(np.float32), pixel_A)
    return at
