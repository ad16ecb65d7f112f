"""A real OpenLDAP server that tests start and stop themselves, on the loopback interface."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.servers import free_port

BASE = "dc=lab,dc=org"
ROOT_DN = f"cn=admin,{BASE}"
ROOT_PASSWORD = "root of the directory"
PASSWORD = "ldap pass word"

_CONFIG = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile {folder}/slapd.pid
TLSCACertificateFile {folder}/cert.pem
TLSCertificateFile {folder}/cert.pem
TLSCertificateKeyFile {folder}/key.pem
database mdb
maxsize 10485760
suffix "{base}"
rootdn "{root}"
rootpw "{password}"
directory {folder}/db
overlay memberof
access to attrs=userPassword by anonymous auth by self write by * none
access to * by users read by * none
"""


class Slapd:
    """One server in a folder of its own: ldap:// with StartTLS on a free port, certificate in cert.pem."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "db").mkdir(parents=True)
        _run(
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"),
        )  # fmt: skip
        (folder / "slapd.conf").write_text(
            _CONFIG.format(folder=folder, base=BASE, root=ROOT_DN, password=ROOT_PASSWORD)
        )

    @property
    def url(self) -> str:
        return f"ldap://localhost:{self.port}"

    @property
    def certificate(self) -> Path:
        return self.folder / "cert.pem"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    "slapd",
                    "-d",
                    "0",
                    "-f",
                    str(self.folder / "slapd.conf"),
                    "-h",
                    f"ldap://127.0.0.1:{self.port}/",
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "slapd doesn't answer"
                time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(120)
            self.process = None

    def load(self, ldif: str) -> None:
        _run("ldapadd", *self._as_root(), stdin=ldif)

    def values(self, dn: str, attribute: str) -> set[str]:
        """Values of an attribute, as OpenLDAP's own program reads them."""
        text = _run(
            "ldapsearch", *self._as_root(), "-LLL", "-o", "ldif-wrap=no", "-b", dn, "-s", "base", attribute
        )
        return {line.split(": ", 1)[1] for line in text.splitlines() if line.startswith(f"{attribute}: ")}

    def _as_root(self) -> tuple[str, ...]:
        return ("-x", "-H", f"ldap://127.0.0.1:{self.port}", "-D", ROOT_DN, "-w", ROOT_PASSWORD)


def programs_are_there() -> bool:
    return all(
        shutil.which(name) or Path(f"/usr/sbin/{name}").exists() for name in ("slapd", "ldapadd", "openssl")
    )


def _run(*command: str, stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout


def _slapd() -> str:
    return shutil.which("slapd") or "/usr/sbin/slapd"
