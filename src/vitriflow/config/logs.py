"""Logs: as text for people, as JSON lines for programs, and to a central collector by syslog."""

import contextlib
import logging
import logging.handlers
import os
import queue
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import Field, field_validator

from vitriflow.config.sections import Section

_WAITING = 10_000  # lines kept while the collector is slow; more are dropped, and counted
_PATIENCE_S = 2.0
_AGAIN_S = 15.0  # after a collector couldn't be reached
_SEVERITY = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))
_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogsSection(Section):
    """What is logged, in which form, and where it goes."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="warning", description="least severity that is logged"
    )
    form: Literal["text", "json"] = Field(
        default="text", description="on standard error: text, or one JSON object a line"
    )
    file: Path | None = Field(
        default=None, description="also JSON lines into this file, which is only added to"
    )
    syslog: str | None = Field(
        default=None,
        description="also to a collector: udp://host:514, tcp://host:601, or a socket such as /dev/log",
    )
    syslog_facility: int = Field(default=16, ge=0, le=23, description="of syslog; 16 is local0")

    @field_validator("syslog")
    @classmethod
    def _an_address(cls, value: str | None) -> str | None:
        if value is None or value.startswith("/"):
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("udp", "tcp") or not parts.hostname:
            raise ValueError(f"udp://host:port, tcp://host:port or the path of a socket, not {value!r}")
        try:
            parts.port  # noqa: B018  (it's read to be checked)
        except ValueError as error:
            raise ValueError(f"a port from 1 to 65535 in {value!r}") from error
        return value


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, service, and what the caller added."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            "host": socket.gethostname(),
            "process": record.process,
        }
        line |= {name: value for name, value in vars(record).items() if name not in _KNOWN}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class Collector(logging.Handler):
    """Sends lines to a syslog collector (RFC 5424; over TCP with counted octets, RFC 6587).

    A collector that's down never stops nor slows the work: lines are dropped, and their number is sent
    when it's back.
    """

    def __init__(self, address: str, facility: int, service: str) -> None:
        super().__init__()
        self._address, self._facility, self._service = address, facility, service
        self._socket: socket.socket | None = None
        self._not_before = 0.0
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line, or count it as dropped."""
        if time.monotonic() < self._not_before:
            self.dropped += 1
            return
        try:
            if self.dropped:
                lost = logging.makeLogRecord(
                    {"name": "vitriflow", "levelno": logging.WARNING, "levelname": "WARNING"}
                )
                lost.msg = f"{self.dropped} lines were lost while the collector couldn't be reached"
                self._send(self._line(lost))
                self.dropped = 0
            self._send(self._line(record))
        except OSError:
            self._drop_socket()
            self.dropped += 1
            self._not_before = time.monotonic() + _AGAIN_S

    def _line(self, record: logging.LogRecord) -> bytes:
        severity = next(number for level, number in _SEVERITY if record.levelno >= level)
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        head = f"<{8 * self._facility + severity}>1 {stamp} {socket.gethostname()} vitriflow-{self._service}"
        return f"{head} {record.process or os.getpid()} - - {self.format(record)}".encode()

    def _send(self, line: bytes) -> None:
        stream = self._address.startswith("tcp:")
        data = b"%d %b" % (len(line), line) if stream else line[:65000]
        if self._socket is None:
            self._socket = self._connect()
        elif stream and self._is_closed(self._socket):
            self._drop_socket()
            self._socket = self._connect()
        self._socket.sendall(data)

    @staticmethod
    def _is_closed(connection: socket.socket) -> bool:
        """Whether the other side has gone: TCP would take one more line and lose it."""
        connection.setblocking(False)
        try:
            return connection.recv(1) == b""
        except BlockingIOError:
            return False
        finally:
            connection.settimeout(_PATIENCE_S)

    def _connect(self) -> socket.socket:
        if self._address.startswith("/"):
            local = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            local.connect(self._address)
            return local
        parts = urlsplit(self._address)
        tcp = parts.scheme == "tcp"
        place = (str(parts.hostname), parts.port or (601 if tcp else 514))
        if tcp:
            return socket.create_connection(place, timeout=_PATIENCE_S)
        family, kind, protocol, _, target = socket.getaddrinfo(*place, type=socket.SOCK_DGRAM)[0]
        datagrams = socket.socket(family, kind, protocol)
        datagrams.connect(target)
        return datagrams

    def _drop_socket(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def close(self) -> None:
        """Close the connection."""
        self._drop_socket()
        super().close()


class _Aside(logging.handlers.QueueHandler):
    """Hands records to another thread, and drops them when that can't keep up."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            self.queue.put_nowait(record)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record  # the same process: nothing has to be made into text


class Logs:
    """The handlers that :func:`start_logging` put in place."""

    def __init__(
        self, handlers: list[logging.Handler], listener: logging.handlers.QueueListener | None
    ) -> None:
        self._handlers = handlers
        self._listener = listener

    def stop(self) -> None:
        """Send what waits, and take the handlers away."""
        if self._listener is not None:
            self._listener.stop()
            for handler in self._listener.handlers:
                handler.close()
        logger = logging.getLogger("vitriflow")
        for handler in self._handlers:
            logger.removeHandler(handler)
            handler.close()


def start_logging(section: LogsSection, service: str) -> Logs:
    """Log as the facility wants it, for the loggers below ``vitriflow``.

    Parameters
    ----------
    section
        ``[logs]`` of facility.toml.
    service
        Which of the programs this is: acquire, process, serve ...

    Raises
    ------
    OSError
        When the log file can't be written.
    """
    logger = logging.getLogger("vitriflow")
    logger.setLevel(section.level.upper())
    lines = JsonLines(service)
    shown = logging.StreamHandler(sys.stderr)
    shown.setFormatter(
        lines
        if section.form == "json"
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    handlers: list[logging.Handler] = [shown]
    if section.file is not None:
        section.file.parent.mkdir(parents=True, exist_ok=True)
        kept = logging.handlers.WatchedFileHandler(section.file, encoding="utf-8")  # logrotate may move it
        kept.setFormatter(lines)
        handlers.append(kept)
    listener = None
    if section.syslog is not None:
        collector = Collector(section.syslog, section.syslog_facility, service)
        collector.setFormatter(lines)
        waiting: queue.Queue[logging.LogRecord] = queue.Queue(_WAITING)
        handlers.append(_Aside(waiting))
        listener = logging.handlers.QueueListener(waiting, collector)
        listener.start()
    for handler in handlers:
        logger.addHandler(handler)
    return Logs(handlers, listener)
