"""One processed session to ask about, and a house to type commands in."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.facility.command import House
from tests.facility.conftest import Played, play
from vitriflow.simulate import Fault


@dataclass(frozen=True)
class Processed:
    """A session of two good movies and a truncated one, processed by the command."""

    house: House
    played: Played
    key: str
    sound: str
    truncated: str


@pytest.fixture(scope="session")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Processed:
    folder = tmp_path_factory.mktemp("processed")
    played = play(folder, exposures=3, unique=1, faults={Fault.TRUNCATED: 1 / 3})
    house = House(folder / "house")
    house.vitriflow("run", played.source, "--once", *played.settings)
    keys = {w.exposure.fault: str(w.movie.relative_to(played.source)) for w in played.report.movies}
    return Processed(house, played, house.session().key, keys[None], keys[Fault.TRUNCATED])


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "house")
