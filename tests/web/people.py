"""People of a small facility, signed in to a real server, each as a browser would be."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from argon2 import PasswordHasher
from fastapi import FastAPI
from sqlalchemy import select

from tests.databases import new_sqlite
from tests.web.conftest import running
from tests.web.factory import World, make_world
from vitriflow.catalog import (
    Experiment,
    Microscope,
    Person,
    Sample,
    Session,
    SessionState,
    now,
)
from vitriflow.elogbook.people import add_person, join_experiment
from vitriflow.elogbook.tokens import make_token
from vitriflow.web import create_app

PASSWORD = "correct horse battery"
ROLES = {"ada": "administrator", "olga": "operator"}
MEMBERS = {"carl": "collaborator", "rita": "researcher"}
STRANGER = "otto"  # researcher of another experiment


@dataclass
class Facility:
    """A server over a catalog with two experiments; the first one's session is active."""

    world: World
    app: FastAPI
    address: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    clients: dict[str, httpx.Client] = field(default_factory=dict)

    def client(self, login: str) -> httpx.Client:
        """Somebody's browser, signed in; one for each login."""
        if login not in self.clients:
            self.clients[login] = sign_in(self.address, login)
        return self.clients[login]

    @property
    def visitor(self) -> httpx.Client:
        """A browser that nobody is signed in with."""
        if "" not in self.clients:
            self.clients[""] = httpx.Client(base_url=self.address, timeout=120)
        return self.clients[""]

    def with_token(self, login: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens[login]}"}


def sign_in(address: str, login: str, password: str = PASSWORD) -> httpx.Client:
    client = httpx.Client(base_url=address, timeout=120)
    answer = client.post(
        "/sign-in", data={"login": login, "password": password, "csrf": csrf(client, "/sign-in")}
    )
    assert answer.status_code == 303, answer.text
    return client


def csrf(client: httpx.Client, page: str = "/me") -> str:
    """The secret that forms on a page carry."""
    found = re.search(r'data-csrf="([^"]+)"', client.get(page).text)
    assert found is not None
    return found[1]


def quick_hash(password: str) -> str:
    """An argon2 hash that takes next to nothing to check."""
    return PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(password)


def populate(world: World) -> dict[str, str]:
    """People, their roles and a reading token each; a second experiment with a session of its own."""
    hashed = quick_hash(PASSWORD)
    tokens = {}

    def work(orm):
        mine = orm.scalars(select(Experiment).where(Experiment.name == "C123")).one()
        other = Experiment(name="X999", created_at=now())
        orm.add(other)
        orm.flush()
        grid = Sample(experiment_id=other.id, name="secret protein")
        orm.add(grid)
        orm.flush()
        tem2 = Microscope(name="tem2")
        orm.add(tem2)
        orm.flush()
        orm.add(
            Session(
                key="foreign",
                microscope_id=tem2.id,
                sample_id=grid.id,
                state=SessionState.ACTIVE,
                source=str(world.folder),
                root=str(world.folder / "foreign"),
                created_at=now(),
            )
        )
        for login in (*ROLES, *MEMBERS, STRANGER):
            person = add_person(
                orm,
                login,
                facility_role=ROLES.get(login, ""),
                password_hash=hashed,
                unix_name=f"u_{login}",
            )
            if login in MEMBERS:
                join_experiment(orm, mine.id, person, MEMBERS[login])
            if login == STRANGER:
                join_experiment(orm, other.id, person, "researcher")
            tokens[login] = make_token(orm, person, "reading", ["read"], 1)[0]

    world.catalog.write(work)
    return tokens


def person(world: World, login: str) -> Person:
    return world.catalog.read(lambda orm: orm.scalars(select(Person).where(Person.login == login)).one())


@contextmanager
def facility(folder: Path) -> Iterator[Facility]:
    catalog = new_sqlite(folder / "catalog.db")
    world = make_world(folder, catalog=catalog)
    world.add()
    raw = world.root / "raw"
    raw.mkdir(exist_ok=True)
    (raw / "movie_1.tiff").write_bytes(b"0123456789" * 100)
    (folder / "outside.txt").write_text("not of this session")
    (raw / "leak.txt").symlink_to(folder / "outside.txt")
    made = Facility(world, create_app(world.url(), title="Test facility", poll_s=0.1))
    made.tokens = populate(world)
    with running(made.app) as made.address:
        yield made
        for client in made.clients.values():
            client.close()
    world.catalog.close()
