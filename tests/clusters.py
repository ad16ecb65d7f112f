"""A real Slurm and a real Grid Engine that tests start and stop themselves, on the loopback interface."""

import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.servers import free_port

PATIENT_S = 60.0
_ASK_S = 20  # a scheduler's command that doesn't answer is a failure, never a hang


class Cluster:
    """What both have in common: a folder, daemons, and the environment in which their commands find them."""

    programs: tuple[str, ...] = ()
    kind = ""
    grace_s = 5.0  # to end by themselves

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vf-cluster-"))
        self.folder.chmod(0o755)
        self.shared = self.folder / "shared"  # what the nodes see, too
        self.shared.mkdir()
        self.environment: dict[str, str] = {}
        self._daemons: list[subprocess.Popen[bytes]] = []

    @classmethod
    def missing(cls) -> str:
        """Why it can't be started here; empty when it can."""
        if os.geteuid() != 0:
            return "a cluster is started by root only"
        absent = [name for name in cls.programs if _which(name) is None]
        return f"not installed: {', '.join(absent)}; run 'make services'" if absent else ""

    def say(self, *command: str, check: bool = True) -> str:
        """Run a command of the scheduler; what it prints."""
        done = subprocess.run(
            command,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=_ASK_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def daemon(self, *command: str, **more: Any) -> None:
        """Start a daemon in the foreground; it's ended with the cluster."""
        with (self.folder / "daemons.log").open("ab") as log:
            self._daemons.append(
                subprocess.Popen(
                    [_which(command[0]) or command[0], *command[1:]],
                    env=os.environ | self.environment,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    start_new_session=True,
                    **more,
                )
            )

    def until(self, what: Callable[[], Any]) -> Any:
        """Wait until something holds; what the daemons said stands in the failure."""
        deadline = time.monotonic() + PATIENT_S
        while not (found := _tried(what)):
            if time.monotonic() > deadline:
                logs = [path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log")]
                raise AssertionError("the cluster should be there by now:\n" + "\n".join(logs))
            time.sleep(0.1)
        return found

    def stop(self) -> None:
        """End everything that was started here, and what it started."""
        for daemon in reversed(self._daemons):
            with suppress(ProcessLookupError):
                daemon.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self.grace_s
        for daemon in self._daemons:
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(max(0.1, deadline - time.monotonic()))
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for daemon in self._daemons:
            daemon.kill()
            daemon.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self) -> list[psutil.Process]:
        """Processes that were started with this cluster's folder in their command."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if any(str(self.folder) in word for word in process.info["cmdline"] or ()):
                found.append(process)
        return found


class Slurm(Cluster):
    """One node of so many cores and two GPUs that are none. The partition ``closed`` starts nothing."""

    kind = "slurm"
    programs = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")

    def __init__(self, cores: int = 4) -> None:
        super().__init__()
        self.cores = cores
        socket_file = self.folder / "munge.sock"
        self._conf(socket_file)
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self.daemon(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={socket_file}",
            *(f"--{name}={self.folder}/munge.{end}" for name, end in
              (("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed"))),
        )  # fmt: skip
        self.until(socket_file.exists)
        self.daemon("slurmctld", "-D", "-i", "-f", self.environment["SLURM_CONF"])
        self.daemon("slurmd", "-D", "-f", self.environment["SLURM_CONF"])
        self.until(lambda: "idle" in self.say("sinfo", "--noheader", "--format=%T", "--partition=cpu"))

    def _conf(self, socket_file: Path) -> None:
        name = socket.gethostname().split(".")[0]
        for number in (0, 1):
            os.mknod(self.folder / f"gpu{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-1]\n")
        for part in ("state", "spool"):
            (self.folder / part).mkdir()
        (self.folder / "slurm.conf").write_text(f"""\
ClusterName=vitriflow
SlurmctldHost={name}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
AuthInfo=socket={socket_file}
SlurmUser=root
SlurmdUser=root
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
SlurmctldLogFile={self.folder}/slurmctld.log
SlurmdLogFile={self.folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
SlurmdParameters=config_overrides
GresTypes=gpu
MinJobAge=2
KillWait=1
NodeName={name} NodeAddr=127.0.0.1 CPUs={self.cores} RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes={name} Default=YES MaxTime=INFINITE State=UP
PartitionName=closed Nodes={name} MaxTime=INFINITE State=INACTIVE
""")

    def jobs(self) -> list[str]:
        """Numbers of the jobs that run or wait."""
        return self.say("squeue", "--noheader", "--format=%i").split()

    def cancel(self, job: str) -> None:
        """Take a job out, as an administrator would."""
        self.say("scancel", job)

    def close_queue(self) -> None:
        """Start nothing more."""
        self.say("scontrol", "update", "PartitionName=cpu", "State=DOWN")

    def open_queue(self) -> None:
        """Start jobs again."""
        self.say("scontrol", "update", "PartitionName=cpu", "State=UP")

    def clear(self) -> None:
        """No jobs."""
        self.say("scancel", "--user=root", "--state=PENDING", check=False)
        self.say("scancel", "--user=root", check=False)
        self.until(lambda: not self.jobs())

    def stop(self) -> None:
        """End it."""
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.clear()
        super().stop()


_PE = """\
pe_name            {name}
slots              99
user_lists         NONE
xuser_lists        NONE
start_proc_args    NONE
stop_proc_args     NONE
allocation_rule    $pe_slots
control_slaves     FALSE
job_is_first_task  TRUE
urgency_slots      min
accounting_summary FALSE
qsort_args         NONE
"""
_HOST = """\
hostname localhost
load_scaling NONE
complex_values NONE
user_lists NONE
xuser_lists NONE
projects NONE
xprojects NONE
usage_scaling NONE
report_variables NONE
"""
_QUEUE = """\
qname                 {name}
hostlist              localhost
seq_no                0
load_thresholds       NONE
suspend_thresholds    NONE
nsuspend              1
suspend_interval      00:05:00
priority              0
min_cpu_interval      00:05:00
processors            UNDEFINED
qtype                 BATCH INTERACTIVE
ckpt_list             NONE
pe_list               smp
rerun                 FALSE
slots                 {slots}
tmpdir                /tmp
shell                 /bin/bash
prolog                NONE
epilog                NONE
shell_start_mode      posix_compliant
starter_method        NONE
suspend_method        NONE
resume_method         NONE
terminate_method      NONE
notify                00:00:60
owner_list            NONE
user_lists            NONE
xuser_lists           NONE
subordinate_list      NONE
complex_values        NONE
projects              NONE
xprojects             NONE
calendar              NONE
initial_state         default
"""
_LIMITS = ("rt", "cpu", "fsize", "data", "stack", "core", "rss", "vmem")


class GridEngine(Cluster):
    """One host with a queue ``cpu.q`` and a parallel environment ``smp``."""

    kind = "gridengine"
    grace_s = 0.5  # they take their time
    programs = ("sge_qmaster", "sge_execd", "qsub", "qstat", "qdel", "qconf")
    _ROOT, _SPOOL = Path("/var/lib/gridengine"), Path("/var/spool/gridengine")

    def __init__(self, slots: int = 4) -> None:
        super().__init__()
        admin = pwd.getpwnam("sgeadmin")
        root, spool = self.folder / "root", self.folder / "spool"
        shutil.copytree(self._ROOT, root, symlinks=True)
        shutil.copytree(self._SPOOL / "spooldb", spool / "db")
        (spool / "qmaster" / "job_scripts").mkdir(parents=True)
        (spool / "execd").mkdir()
        common = root / "default" / "common"
        host = socket.gethostname()
        (common / "act_qmaster").write_text(f"{host}\n")
        (common / "host_aliases").write_text(f"localhost {host}\n")
        bootstrap = common / "bootstrap"
        text = bootstrap.read_text().replace(str(self._SPOOL / "spooldb"), str(spool / "db"))
        bootstrap.write_text(text.replace(str(self._SPOOL / "qmaster"), str(spool / "qmaster")))
        for path in (root, spool, *root.rglob("*"), *spool.rglob("*")):
            os.chown(path, admin.pw_uid, admin.pw_gid, follow_symlinks=False)
        self.environment = {
            "SGE_ROOT": str(root),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": str(free_port()),
            "SGE_EXECD_PORT": str(free_port()),
        }
        os.environ["SGE_ND"] = "1"  # stay in the foreground
        try:
            self.daemon("sge_qmaster", user=admin.pw_uid, group=admin.pw_gid, extra_groups=[])
            self.until(lambda: "global" in self.say("qconf", "-sconf"))
            self._settle(spool, slots)
            self.daemon("sge_execd")
        finally:
            del os.environ["SGE_ND"]
        self.until(lambda: "lx-" in self.say("qstat", "-f"))

    def _settle(self, spool: Path, slots: int) -> None:
        conf = self.say("qconf", "-sconf", "global")
        changes = {"execd_spool_dir": str(spool / "execd"), "min_uid": "0", "min_gid": "0"}
        changes["load_report_time"] = "00:00:02"
        self._load("-Mconf", "global", _changed(conf, changes))
        quick = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
        self._load(
            "-Msconf", "sched", _changed(self.say("qconf", "-ssconf"), quick | {"schedd_job_info": "true"})
        )
        self.say("qconf", "-as", "localhost", check=False)
        self._load("-Ae", "host", _HOST)
        self._load("-Ap", "pe", _PE.format(name="smp"))
        limits = "".join(f"{kind}_{name:20} INFINITY\n" for name in _LIMITS for kind in "sh")
        self._load("-Aq", "queue", _QUEUE.format(name="cpu.q", slots=slots) + limits)

    def _load(self, flag: str, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        self.say("qconf", flag, str(path))

    def jobs(self) -> list[str]:
        """Numbers of the jobs that run or wait."""
        lines = self.say("qstat", "-u", "*").splitlines()[2:]
        return [line.split()[0] for line in lines if line.strip()]

    def cancel(self, job: str) -> None:
        """Take a job out, as an administrator would."""
        self.say("qdel", job)

    def close_queue(self) -> None:
        """Start nothing more."""
        self.say("qmod", "-d", "cpu.q")

    def open_queue(self) -> None:
        """Start jobs again."""
        self.say("qmod", "-e", "cpu.q")

    def clear(self) -> None:
        """No jobs."""
        self.say("qdel", "-f", "-u", "*", check=False)
        self.until(lambda: not self.jobs())

    def stop(self) -> None:
        """End it."""
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.clear()
        super().stop()


def _changed(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text, number = re.subn(rf"(?m)^{name}\s.*$", f"{name} {value}", text)
        assert number == 1, name
    return text


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin")


def _tried(what: Callable[[], Any]) -> Any:
    try:
        return what()
    except (AssertionError, subprocess.TimeoutExpired):
        return None
