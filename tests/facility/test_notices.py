"""People are told of alarms: by a real mail server and a real webhook, once a change, again when it failed."""

import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from pydantic import ValidationError
from sqlalchemy import select

from tests.databases import new_sqlite
from vitriflow.catalog import Alarm, Catalog, Event, now
from vitriflow.config import Config, load_config
from vitriflow.facility.notices import Notifier, is_within, try_notices
from vitriflow.monitors import Level, Reading, open_alarms, settle_alarms

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


class Box:
    """A mail server's store. ``refuse`` is what it answers instead of taking a message."""

    def __init__(self) -> None:
        self.letters: list[Any] = []
        self.refuse = ""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refuse:
            return self.refuse
        self.letters.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


class Server(Controller):
    """One on a port that the system gives."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def mail_server(**options: Any) -> Iterator[tuple[Box, int]]:
    box = Box()
    server = Server(box, hostname="127.0.0.1", port=0, **options)
    server.start()
    try:
        yield box, server.port
    finally:
        server.stop()


@contextmanager
def webhook(status: int = 200) -> Iterator[tuple[list[Any], int]]:
    taken: list[Any] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield taken, server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    found = new_sqlite(tmp_path / "catalog.db")
    yield found
    found.close()


def config(to: dict[str, Any], **notices: Any) -> Config:
    return Config.model_validate(
        {"facility": {"name": "Test EM"}, "notices": {"to": to, "retry_s": 60, **notices}}
    )


def mail(port: int, **more: Any) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "sender": "em@example.org",
        "recipients": ["ops@example.org", "night@example.org"],
        **more,
    }


def settle(catalog: Catalog, rule: str, *readings: Reading, at: datetime = NOON) -> None:
    catalog.write(lambda orm: settle_alarms(orm, rule, readings, at))


def wrong(text: str = "The storage is full", **more: Any) -> Reading:
    return Reading("disk:storage", Level.WRONG, text, 1.0, **more)


OVER = Reading("disk:storage", Level.OVER)


def test_each_change_of_an_alarm_is_mailed_once_however_often_it_is_looked_at(catalog: Catalog) -> None:
    with mail_server() as (box, port):
        notifier = Notifier(
            config({"ops": {"mail": mail(port)}}, page="https://em.example.org/wall"), catalog
        )
        for _ in range(3):
            settle(catalog, "disk_full", wrong())
            notifier.look(NOON)
        settle(catalog, "disk_full", OVER)
        for _ in range(2):
            notifier.look(NOON + timedelta(minutes=9))
    first, second = box.letters
    assert first["subject"] == "Test EM: The storage is full"
    assert first["to"] == "ops@example.org, night@example.org"
    body = first.get_content()
    assert "Alarm: The storage is full" in body
    assert "https://em.example.org/wall" in body
    assert second["subject"].startswith("Test EM: over: ")
    told = catalog.read(lambda orm: orm.scalar(select(Alarm.told)))
    assert [(one["to"], one["change"], one["sent"]) for one in told] == [
        ("ops", "raised", True),
        ("ops", "over", True),
    ]


def test_what_cannot_be_delivered_is_tried_again_later_and_later_and_is_itself_an_alarm(
    catalog: Catalog,
) -> None:
    with mail_server() as (box, port), webhook() as (taken, hook_port):
        ways = {"ops": {"mail": mail(port)}, "chat": {"url": f"json://127.0.0.1:{hook_port}/hook"}}
        notifier = Notifier(config(ways), catalog)
        box.refuse = "452 the mailbox is full"
        settle(catalog, "disk_full", wrong(), at=NOON)
        minutes = []
        for minute in range(12):
            before = catalog.read(tries)
            notifier.look(NOON + timedelta(minutes=minute))
            minutes += [minute] if catalog.read(tries) > before else []
        assert minutes == [0, 1, 3, 7]
        (failed,) = [one for one in catalog.read(open_alarms) if one["rule"] == "notice_failed"]
        assert "by 'ops'" in failed["text"]
        assert "the mailbox is full" in failed["text"]
        assert any("the mailbox is full" in one["message"] for one in taken), "the other way is told"
        box.refuse = ""
        notifier.look(NOON + timedelta(hours=1))
        assert [letter["subject"] for letter in box.letters] == ["Test EM: The storage is full"]
        assert [one["rule"] for one in catalog.read(open_alarms)] == ["disk_full"]


def tries(orm: Any) -> int:
    told = orm.scalar(select(Alarm.told).where(Alarm.rule == "disk_full"))
    return max((one["tries"] for one in told if one["to"] == "ops"), default=0)


def test_quiet_hours_hold_back_warnings_until_morning_but_neither_alarms_nor_the_page(
    catalog: Catalog,
) -> None:
    sent: list[str] = []
    way = {"url": "json://127.0.0.1:9/", "quiet_hours": "22:00-07:00"}
    settled = config({"ops": way}, time_zone="Europe/Berlin")
    notifier = Notifier(settled, catalog, lambda _name, _route, message: sent.append(message.subject))
    night = datetime(2026, 7, 1, 20, 30, tzinfo=UTC)  # 22:30 in Berlin
    settle(catalog, "a", wrong("ice is thick", severity="warning"), at=night)
    settle(catalog, "b", wrong("the gun is off", severity="alarm"), at=night)
    notifier.look(night)
    assert sent == ["Test EM: the gun is off"]
    assert {one["rule"] for one in catalog.read(open_alarms)} == {"a", "b"}
    notifier.look(night + timedelta(hours=8))
    assert sent[1:] == []
    notifier.look(night + timedelta(hours=9))
    assert sent[1:] == ["Test EM: ice is thick"]


def test_a_rules_own_quiet_hours_hold_back_its_notices(catalog: Catalog) -> None:
    sent: list[str] = []
    rule = {"name": "own", "quantity": "defocus_A", "above": 1, "quiet_hours": "00:00-23:00"}
    settled = Config.model_validate(
        {"monitors": {"rules": [rule]}, "notices": {"to": {"ops": {"url": "json://127.0.0.1:9/"}}}}
    )
    notifier = Notifier(settled, catalog, lambda _name, _route, message: sent.append(message.subject))
    settle(catalog, "rule:own", wrong())
    notifier.look(NOON)
    assert sent == []
    notifier.look(NOON.replace(hour=23))
    assert len(sent) == 1


def test_several_alarms_at_once_come_in_one_message_and_only_what_a_way_wants(catalog: Catalog) -> None:
    sent: list[str] = []
    ways = {
        "tem2": {"url": "json://127.0.0.1:9/", "microscopes": ["tem2"]},
        "disks": {
            "url": "json://127.0.0.1:9/",
            "rules": ["disk_full"],
            "message": "{{ n }}:{{ alarms[0].rule }}",
        },
        "infos": {"url": "json://127.0.0.1:9/", "severities": ["info"]},
    }
    notifier = Notifier(
        config(ways), catalog, lambda name, _route, message: sent.append(f"{name}: {message.body}")
    )
    for number in range(3):
        settle(catalog, f"silence{number}", wrong(microscope="tem1"))
    settle(catalog, "disk_full", wrong())
    notifier.look(NOON)
    assert len(sent) == 2
    assert sent[0].count("The storage is full") == 1  # that of no microscope; those of tem1 aren't its own
    assert sent[1] == "disks: 1:disk_full\n"


def test_what_somebody_acknowledged_or_nobody_heard_of_is_not_told_any_more(catalog: Catalog) -> None:
    sent: list[str] = []
    notifier = Notifier(
        config({"ops": {"url": "json://127.0.0.1:9/"}}),
        catalog,
        lambda _n, _r, message: sent.append(message.subject),
    )
    settle(catalog, "a", wrong())
    settle(catalog, "b", wrong())

    def acknowledge(orm: Any) -> None:
        orm.scalar(select(Alarm).where(Alarm.rule == "a")).acknowledged_at = NOON

    catalog.write(acknowledge)
    settle(catalog, "b", OVER)
    notifier.look(NOON)
    assert sent == []


def test_only_one_process_tells(catalog: Catalog) -> None:
    sent: list[str] = []
    both = [
        Notifier(
            config({"ops": {"url": "json://127.0.0.1:9/"}}),
            catalog,
            lambda _n, _r, message: sent.append(message.subject),
        )
        for _ in range(2)
    ]
    settle(catalog, "a", wrong())
    assert [one.look(NOON) for one in both] == [1, 0]
    settle(catalog, "b", wrong())
    assert [one.look(NOON) for one in reversed(both)] == [0, 1]
    assert len(sent) == 2


def test_hostile_text_of_an_alarm_adds_no_header_and_no_template(catalog: Catalog) -> None:
    with mail_server() as (box, port):
        notifier = Notifier(config({"ops": {"mail": mail(port)}}), catalog)
        settle(catalog, "a", wrong("Session x\r\nBcc: spy@example.org\r\n\r\n{{ 7 * 7 }} <script>"))
        notifier.look(NOON)
    (letter,) = box.letters
    assert letter["bcc"] is None
    assert "{{ 7 * 7 }}" in letter["subject"]


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    key, chain = folder / "key.pem", folder / "chain.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-keyout", str(key), "-out", str(chain), "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    return context, chain


def test_mail_is_encrypted_its_server_known_and_its_password_right(tmp_path: Path) -> None:
    context, chain = certificate(tmp_path)
    secret = tmp_path / "password"
    secret.write_text("hunter2\n", encoding="utf-8")

    def check(_server: Any, _session: Any, _envelope: Any, _way: str, given: LoginPassword) -> AuthResult:
        return AuthResult(success=given.login == b"em" and given.password == b"hunter2", handled=False)

    safe = {"security": "starttls", "ca_file": chain, "user": "em", "password_file": secret}
    with mail_server(tls_context=context, require_starttls=True, authenticator=check, auth_required=True) as (
        box,
        port,
    ):

        def outcome(**changes: Any) -> str:
            return try_notices(config({"ops": {"mail": mail(port, **(safe | changes))}}))["ops"]

        assert outcome() == ""
        assert len(box.letters) == 1
        assert "certificate" in outcome(ca_file=None)
        assert "Must issue a STARTTLS" in outcome(security="none", user=None, password_file=None)
        secret.write_text("wrong", encoding="utf-8")
        said = outcome()
        assert "Authentication credentials invalid" in said
        assert "wrong" not in said.replace("went wrong", "")
        assert "readable for this user" in outcome(password_file=tmp_path / "none")
        assert len(box.letters) == 1
    with mail_server(ssl_context=context) as (box, port):
        whole = {"security": "tls", "ca_file": chain}
        assert try_notices(config({"ops": {"mail": mail(port, **whole)}}))["ops"] == ""
        assert len(box.letters) == 1


def test_a_webhook_that_refuses_is_told_of_without_its_secret(tmp_path: Path) -> None:
    with webhook(status=500) as (taken, port):
        secret = tmp_path / "url"
        secret.write_text(f"json://127.0.0.1:{port}/hook/s3cret", encoding="utf-8")
        said = try_notices(config({"chat": {"url_file": secret}}))["chat"]
        assert len(taken) == 1
        assert "500" in said
        assert "s3cret" not in said
    assert "that apprise knows" in try_notices(config({"chat": {"url": "carrier-pigeon://roof"}}))["chat"]


def test_slack_teams_and_matrix_are_known_ways() -> None:
    import apprise

    for url in (
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#em",
        "workflow://example.org/abcdef/0123456789",
        "matrixs://user:secret@matrix.example.org/#em:example.org",
        "jsons://hooks.example.org/vitriflow",
    ):
        assert apprise.Apprise().add(url), url


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ({}, "one of mail, url and url_file"),
        ({"url": "json://x", "quiet_hours": "25:00-07:00"}, "22:00-07:00"),
        ({"url": "json://x", "message": "{{ config }}"}, "names only"),
        ({"mail": mail(25, user="em")}, "both or neither"),
        ({"mail": mail(25, recipients=["a b"])}, "mail addresses"),
        ({"mail": mail(25, user="em", password_file="p")}, "in the clear"),
    ],
)
def test_a_way_that_cannot_be_is_refused_with_the_reason(way: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config({"ops": way})


def test_hours_may_go_over_midnight() -> None:
    def clock(hour: int) -> Any:
        return NOON.replace(hour=hour).time()

    assert [is_within("22:00-07:00", clock(hour)) for hour in (21, 22, 3, 7)] == [False, True, True, False]
    assert [is_within("07:00-22:00", clock(hour)) for hour in (6, 7, 21, 22)] == [False, True, True, False]
    assert not is_within("", clock(3))


def test_a_test_message_is_sent_by_command_and_says_what_is_wrong(tmp_path: Path) -> None:
    with mail_server() as (box, port):
        file = tmp_path / "facility.toml"
        file.write_text(
            f'[notices.to.ops]\nmail = {{ host = "127.0.0.1", port = {port}, security = "none", '
            'sender = "em@example.org", recipients = ["ops@example.org"] }\n',
            encoding="utf-8",
        )
        assert load_config(file).notices.to["ops"].mail is not None

        def command(*arguments: str) -> subprocess.CompletedProcess[str]:
            whole = [sys.executable, "-m", "vitriflow.cli", "notices", *arguments, "--config", str(file)]
            return subprocess.run(
                whole, capture_output=True, text=True, timeout=120, env={**os.environ}, check=False
            )

        done = command("test")
        assert (done.returncode, done.stdout) == (0, "ops: delivered\n")
        assert box.letters[0]["subject"] == "my facility: test of notices"
        box.refuse = "550 no such user here"
        refused = command("test", "ops")
        assert refused.returncode == 1
        assert "no such user here" in refused.stdout


def test_a_rule_an_alarm_and_a_mail_in_one_go_as_the_service_does_it(tmp_path: Path) -> None:
    from tests.monitors.day import day
    from vitriflow.facility.service import AlarmWatch

    with day(tmp_path, {"n_frames": 40}) as session, mail_server() as (box, port):
        session.add(40, fit_resolution_A=15.0, details={"n_fractions": 50})
        values = {
            "storage": {"root": tmp_path},
            "monitors": {"look_every_s": 0.05},
            "notices": {"to": {"ops": {"mail": mail(port)}}},
        }
        watch = AlarmWatch(Config.model_validate(values), session.catalog)
        watch.start()
        try:
            end = now() + timedelta(seconds=60)
            while not box.letters and now() < end:
                threading.Event().wait(0.05)
        finally:
            watch.stop()
        body = "".join(letter.get_content() for letter in box.letters)
        assert "CTF fits of s1 reach only 15.00 Å" in body
        assert "40 was expected, but the newest exposures say 50" in body
        events = session.catalog.read(lambda orm: list(orm.scalars(select(Event.text))))
        assert sum("reach only" in text for text in events) == 1
