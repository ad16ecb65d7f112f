"""Logs reach people as text, programs as JSON lines, and a real collector over UDP and TCP."""

import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vitriflow.config import Config, LogsSection, load_config, start_logging
from vitriflow.errors import BadConfig

log = logging.getLogger("vitriflow.tests.logs")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The level is put back: handlers are taken away by ``stop``."""
    logger = logging.getLogger("vitriflow")
    level, handlers = logger.level, list(logger.handlers)
    yield
    logger.setLevel(level)
    assert logger.handlers == handlers


def _tcp_lines(server: socket.socket, count: int, found: list[bytes]) -> None:
    """Read messages with counted octets until there are enough."""
    connection, _ = server.accept()
    with connection, connection.makefile("rb") as stream:
        while len(found) < count:
            size = b""
            while (byte := stream.read(1)) not in (b" ", b""):
                size += byte
            found.append(stream.read(int(size)))


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_a_collector_gets_each_line_with_what_the_caller_added(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(60)
        reader = None
        if kind == "tcp":
            server.listen()
            reader = threading.Thread(target=_tcp_lines, args=(server, 2, found))
            reader.start()
        logs = start_logging(
            LogsSection(level="info", syslog=f"{kind}://127.0.0.1:{server.getsockname()[1]}"), "acquire"
        )
        log.info("taken in\nwith a second line", extra={"session": "s1", "exposures": 3})
        try:
            raise ValueError("what went wrong")
        except ValueError:
            log.exception("it failed")
        log.debug("nobody asked for this")
        logs.stop()
        if reader is None:
            found += [server.recv(65536) for _ in range(2)]
        else:
            reader.join(60)
    first, second = (line.decode() for line in found)
    assert first.startswith("<134>1 ")  # local0, information
    assert second.startswith("<131>1 ")  # local0, error
    assert " vitriflow-acquire " in first
    told = json.loads(first[first.index("{") :])
    assert (told["message"], told["level"]) == ("taken in\nwith a second line", "info")
    assert (told["service"], told["session"], told["exposures"]) == ("acquire", "s1", 3)
    assert told["logger"] == "vitriflow.tests.logs"
    assert "\n" not in first
    assert "what went wrong" in json.loads(second[second.index("{") :])["error"]
    assert "it failed" in capsys.readouterr().err


def test_a_collector_that_is_down_stops_nobody_and_is_told_what_it_missed() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    from vitriflow.config.logs import Collector, JsonLines

    collector = Collector(f"tcp://127.0.0.1:{port}", 16, "process")
    collector.setFormatter(JsonLines("process"))
    record = logging.makeLogRecord({"name": "vitriflow.x", "msg": "hello", "levelno": logging.INFO})
    collector.emit(record)
    collector.emit(record)  # at once: it isn't asked again for a while
    assert collector.dropped == 2
    found: list[bytes] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(60)
        collector._address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        collector._not_before = 0.0
        reader = threading.Thread(target=_tcp_lines, args=(server, 2, found))
        reader.start()
        collector.emit(record)
        reader.join(60)
    collector.close()
    assert b"2 lines were lost" in found[0]
    assert b"hello" in found[1]


def test_a_file_keeps_json_lines_and_standard_error_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    section = LogsSection(level="warning", form="json", file=tmp_path / "logs" / "vitriflow.jsonl")
    logs = start_logging(section, "serve")
    log.warning("disk %s is full", "sda", extra={"free_bytes": 0, "path": Path("/x")})
    logs.stop()
    (line,) = (tmp_path / "logs" / "vitriflow.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert told["message"] == "disk sda is full"
    assert told["path"] == "/x"
    assert json.loads(capsys.readouterr().err) == told


def test_a_command_logs_as_its_configuration_says(tmp_path: Path) -> None:
    """The entry point itself, in a process of its own; the command ends at once for want of a session."""
    config = tmp_path / "facility.toml"
    config.write_text("[logs]\nform = 'json'\nlevel = 'info'\nfile = 'v.jsonl'\n")
    code = (
        "import logging, os, sys; from vitriflow.cli.starting import started\n"
        f"with started(['process', '--config', {str(config)!r}]):\n"
        "    logging.getLogger('vitriflow.x').info('here')\n"
        "print(os.environ['VITRIFLOW_CONFIG'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == str(config)
    assert json.loads((tmp_path / "v.jsonl").read_text())["service"] == "process"


@pytest.mark.parametrize(
    "line", ["syslog = 'collector:514'", "syslog = 'udp://h:99999'", "level = 'loud'", "form = 'xml'"]
)
def test_a_wrong_setting_names_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "facility.toml"
    path.write_text(f"[logs]\n{line}\n")
    with pytest.raises(BadConfig, match="line 2"):
        load_config(path)
    assert Config().logs == LogsSection()
