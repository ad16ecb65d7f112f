"""Sends one message one way: by mail, or by whatever apprise knows (Slack, Teams, Matrix, webhooks ...)."""

import logging
import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any

from vitriflow.config import MailSection, RouteSection
from vitriflow.errors import VitriflowError

_LIMIT_S = 20.0
_PORTS = {"starttls": 587, "tls": 465, "none": 25}


class NotDelivered(VitriflowError):
    """A message didn't reach whom it's for."""


@dataclass(frozen=True)
class Message:
    """What is sent. The subject has no line breaks."""

    subject: str
    body: str
    bad: bool = True  # something is wrong, rather than over


def send(name: str, route: RouteSection, message: Message) -> None:
    """Send a message, or say why it couldn't be.

    Parameters
    ----------
    name
        The way's name in facility.toml.

    Raises
    ------
    NotDelivered
        With what the other side said. Secrets aren't in it.
    """
    if route.mail is not None:
        _mail(name, route.mail, message)
    else:
        _apprise(name, _address(name, route), message)


def _secret(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotDelivered(
            f"notice by '{name}'",
            f"a secret in {path}",
            str(error),
            "Make the file, readable for this user only.",
        ) from error


def _address(name: str, route: RouteSection) -> str:
    return route.url if route.url is not None else _secret(name, route.url_file or Path("url"))


def _mail(name: str, mail: MailSection, message: Message) -> None:
    letter = EmailMessage()
    letter["Subject"] = message.subject
    letter["From"] = mail.sender
    letter["To"] = ", ".join(mail.recipients)
    letter["Date"] = formatdate()
    letter["Message-ID"] = make_msgid(domain=mail.sender.rpartition("@")[2])
    letter["Auto-Submitted"] = "auto-generated"  # RFC 3834: so that no holiday notice answers it
    letter.set_content(message.body)
    port = mail.port or _PORTS[mail.security]
    try:
        secret = None if mail.password_file is None else _secret(name, mail.password_file)
        with _server(mail, port) as server:
            if mail.user is not None and secret is not None:
                server.login(mail.user, secret)
            refused = server.send_message(letter)
    except (OSError, smtplib.SMTPException) as error:
        said = error.smtp_error if isinstance(error, smtplib.SMTPResponseException) else str(error)
        text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise NotDelivered(
            f"notice by '{name}'",
            f"the mail server {mail.host}:{port} to take it",
            text or type(error).__name__,
            f"Correct [notices.to.{name}] mail; try it with: vitriflow notices test {name}",
        ) from error
    if refused:
        who = ", ".join(sorted(refused))
        raise NotDelivered(
            f"notice by '{name}'", "all readers to be taken", f"refused: {who}", "Check their addresses."
        )


def _server(mail: MailSection, port: int) -> smtplib.SMTP:
    if mail.security == "none":
        return smtplib.SMTP(mail.host, port, timeout=_LIMIT_S)
    context = ssl.create_default_context(cafile=None if mail.ca_file is None else str(mail.ca_file))
    if mail.security == "tls":
        return smtplib.SMTP_SSL(mail.host, port, timeout=_LIMIT_S, context=context)
    server = smtplib.SMTP(mail.host, port, timeout=_LIMIT_S)
    try:
        server.starttls(context=context)
    except BaseException:
        server.close()
        raise
    return server


def _apprise(name: str, address: str, message: Message) -> None:
    import apprise  # slow to import

    ways = apprise.Apprise()
    remedy = f"Correct [notices.to.{name}]; try it with: vitriflow notices test {name}"
    if not ways.add(address):
        raise NotDelivered(
            f"notice by '{name}'",
            "an address that apprise knows",
            f"one of '{address.partition(':')[0]}:'",
            remedy,
        )
    kind = apprise.NotifyType.WARNING if message.bad else apprise.NotifyType.SUCCESS
    capture: Any = apprise.LogCapture
    with capture(level=logging.WARNING, fmt="%(message)s") as said:
        done = ways.notify(title=message.subject, body=message.body, notify_type=kind)
        text = " ".join(said.getvalue().split())
    if not done:
        found = (text or "no reason was given").replace(address, "its address")[:500]
        raise NotDelivered(f"notice by '{name}'", "it to be taken", found, remedy)
