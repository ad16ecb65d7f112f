"""A real PostgreSQL server that tests start and stop themselves."""

import os
import pwd
import secrets
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psycopg


class PostgresServer:
    """One server in a folder of its own, on a free port of the loopback interface.

    PostgreSQL refuses to run as root, so root runs it as the user ``postgres``.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs = programs
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.password = secrets.token_hex(8)
        self.process: subprocess.Popen[bytes] | None = None
        self._ids = _ids_to_run_as()
        folder.mkdir(parents=True, exist_ok=True)
        if self._ids:
            os.chown(folder, *self._ids)
        word = folder / "password"
        word.write_text(self.password)
        word.chmod(0o644)
        self._run(
            "initdb", "-D", str(self.data), "-U", "vitriflow", "-A", "scram-sha-256",
            f"--pwfile={word}", "-E", "UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it answers."""
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [
                str(self.programs / "postgres"), "-D", str(self.data), "-p", str(self.port),
                "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}",
                "-c", "fsync=off", "-c", "max_connections=40", "-c", "shared_buffers=32MB",
            ],
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd=self.folder,
            **self._as_user(),
        )  # fmt: skip
        log.close()
        deadline = time.monotonic() + 60
        while True:
            try:
                with psycopg.connect(self.dsn("postgres")):
                    return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it by its own process id; SIGINT disconnects clients (a fast shutdown)."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(120)
            self.process = None

    def new_database(self) -> str:
        """Make an empty database and give its SQLAlchemy URL."""
        name = f"test_{secrets.token_hex(4)}"
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://vitriflow:{self.password}@127.0.0.1:{self.port}/{name}"

    def dsn(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=vitriflow password={self.password} dbname={database}"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self.programs / program), *arguments],
            check=True,
            capture_output=True,
            cwd=self.folder,
            **self._as_user(),
        )

    def _as_user(self) -> dict[str, object]:
        if self._ids is None:
            return {}
        return {"user": self._ids[0], "group": self._ids[1], "extra_groups": []}


def _ids_to_run_as() -> tuple[int, int] | None:
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam("postgres")
    return user.pw_uid, user.pw_gid


def free_port() -> int:
    """A port that nobody has, below those that the kernel gives to outgoing connections.

    One of those could be taken between now and the server's start, or while a test has stopped its server:
    even by a client that tries to reach that very server.
    """
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
