"""Small movies that are quick to make, shared by the tests of sessions."""

import pytest

from vitriflow.simulate import MovieSpec


@pytest.fixture(scope="session")
def small() -> MovieSpec:
    return MovieSpec(
        shape=(192, 256), n_frames=4, n_views=4, particle_diameter_A=60.0, particle_spacing_A=100.0
    )
