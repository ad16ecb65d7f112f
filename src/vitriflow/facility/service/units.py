"""systemd units for a facility's services: printed for an administrator, who puts them in place."""

import sys
from pathlib import Path

_SERVICES = {
    "acquire": "takes in what the microscopes write",
    "process": "processes active sessions",
    "serve": "serves the pages",
}
# A stop lets calls end (5 s), children copy on (20 s) and the catalog be written.
_UNIT = """\
[Unit]
Description=vitriflow: {meaning}
Wants=network-online.target
After=network-online.target remote-fs.target postgresql.service mariadb.service
StartLimitIntervalSec=0

[Service]
Type=simple
User={user}
ExecStart={python} -m vitriflow.cli {service} --config {config}
WorkingDirectory={folder}
Restart=always
RestartSec=5
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec=60
{resources}
# Nothing is world-readable, and only what has to be is writable
UMask=0027
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={writable}
ProtectHome=read-only
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6

[Install]
WantedBy=multi-user.target
"""
_RESOURCES = {
    "acquire": "Environment=OMP_NUM_THREADS=1\nLimitNOFILE=65536\nIOSchedulingClass=best-effort\nOOMScoreAdjust=-500",
    "process": "Nice=5\nLimitNOFILE=65536\nOOMScoreAdjust=500",
    "serve": "LimitNOFILE=65536",
}


def systemd_units(config: Path, user: str, writable: tuple[Path, ...]) -> dict[str, str]:
    """The text of each unit by its file name.

    Parameters
    ----------
    config
        facility.toml.
    user
        Who runs the services.
    writable
        Folders that the services write to: storage, and microscopes' sources that are freed. A folder
        that isn't there when a service starts is passed over.
    """
    return {
        f"vitriflow-{service}.service": _UNIT.format(
            service=service,
            meaning=meaning,
            user=user,
            python=_quoted(Path(sys.executable)),
            config=_quoted(config.absolute()),
            folder=str(config.absolute().parent).replace("%", "%%"),
            writable=" ".join(_quoted(path, mark="-") for path in writable),
            resources=_RESOURCES[service],
        )
        for service, meaning in _SERVICES.items()
    }


def _quoted(path: Path, mark: str = "") -> str:
    """A path as systemd.syntax(7) wants it, with specifiers and spaces escaped."""
    text = mark + str(path).replace("\\", "\\\\").replace("%", "%%").replace('"', '\\"')
    return f'"{text}"' if " " in text else text
