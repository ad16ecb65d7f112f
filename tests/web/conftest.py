"""A filled catalog for reading, a fresh one for changing, and a real server over either."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from tests.web.factory import World, make_world
from vitriflow.catalog import SessionState
from vitriflow.web import create_app

OUTCOMES = ["done"] * 4 + [
    "quarantined",
    "done",
    "rejected",
    "failed",
    "problem",
    "done",
    "open",
    "growing",
    "done",
    "done",
]


def fill(world: World) -> None:
    for number, outcome in enumerate(OUTCOMES):
        world.add(outcome, quality="doubtful" if number == 12 else "good")
    world.say("Session started")
    world.say("Disk of tem1 is 81 % full", "warning")


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A session with every outcome, one that is closed and one without exposures: for reading only."""
    folder = tmp_path_factory.mktemp("full")
    world = make_world(folder)
    fill(world)
    make_world(folder, "empty", catalog=world.catalog, sample="empty grid", processing=False)
    closed = make_world(folder, "closed", catalog=world.catalog, sample="ribosome", state=SessionState.CLOSED)
    closed.add()
    return world


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A session without exposures, to add to."""
    return make_world(tmp_path)


@contextmanager
def running(app: FastAPI, port: int = 0) -> Iterator[str]:
    """The real server on a loopback port, stopped at the end. Gives its address."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="critical", timeout_graceful_shutdown=1, lifespan="on"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)


@contextmanager
def serve(world: World, port: int = 0) -> Iterator[str]:
    """The pages over a world's catalog. Gives their address."""
    app = create_app(world.url(), title="Test facility", scan_interval_s=1.0, poll_s=0.1)
    with running(app, port) as address:
        yield address


@contextmanager
def client_for(app: FastAPI) -> Iterator[httpx.Client]:
    with running(app) as address, httpx.Client(base_url=address, timeout=120) as client:
        yield client


@contextmanager
def client_of(world: World) -> Iterator[httpx.Client]:
    with serve(world) as address, httpx.Client(base_url=address, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def client(full: World) -> Iterator[httpx.Client]:
    with client_of(full) as made:
        yield made


def wait_for(ready: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
