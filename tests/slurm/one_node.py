"""A real Slurm of one node on the loopback interface: its own key, its own daemons, everything in one folder."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
_PATIENCE_S = 60.0

_CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,requeue_delay=0
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
MinJobAge=600
KillWait=60
GresTypes=gpu
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=10 PreemptMode=off
PartitionName=spare Nodes=ALL MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
"""


def missing_programs() -> list[str]:
    """The programs of Slurm and munge that this machine does not have."""
    return [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]


@contextmanager
def one_node(folder: Path) -> Iterator[None]:
    """Run Slurm as long as the context lasts; `$SLURM_CONF` and `$PATH` of this process lead to it.

    Args:
        folder: an empty one with a short path: the names of sockets are at most 107 bytes long.
    """
    _configure(folder)
    before = {name: os.environ.get(name) for name in ("SLURM_CONF", "PATH")}
    os.environ |= {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _PATH}
    try:
        with ExitStack() as daemons:
            _start(daemons, folder, "munged", "--foreground", "--force", *_munge_files(folder))
            _wait_until((folder / "munge.socket").exists, folder, "munged")
            _start(daemons, folder, "slurmctld", "-D", "-c")
            _start(daemons, folder, "slurmd", "-D", "-c", "-N", "localhost")
            _wait_until(lambda: _said("sinfo", "--noheader", "--format=%T") == "idle", folder, "the node")
            daemons.callback(_empty_queue)
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _configure(folder: Path) -> None:
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    names = {"folder": folder, "host": socket.gethostname().partition(".")[0], "user": _user()}
    ports = dict(zip(("controller_port", "node_port"), _free_ports(2), strict=True))
    (folder / "slurm.conf").write_text(_CONFIGURATION.format(**names, **ports))
    for number in range(2):
        (folder / f"gpu{number}").touch()  # a GPU to Slurm is a file that can be counted
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1]\n")


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def _munge_files(folder: Path) -> list[str]:
    names = {"key": "key", "socket": "socket", "pid": "pid", "log": "log", "seed": "seed"}
    return [f"--{name}{'' if name == 'socket' else '-file'}={folder}/munge.{end}" for name, end in names.items()]


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _start(daemons: ExitStack, folder: Path, name: str, *options: str) -> None:
    """Start a daemon that is ended with the context."""
    log = daemons.enter_context((folder / f"{name}.out").open("w"))
    program = shutil.which(name, path=_PATH)
    assert program is not None
    tied = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []  # none outlives killed tests
    daemon = subprocess.Popen([*tied, program, *options], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    daemons.callback(_end, daemon)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _empty_queue() -> None:
    """End every job, so that none outlives its daemons."""
    subprocess.run(["scancel", "--full", "--signal=KILL", "--user", _user()], check=False)
    subprocess.run(["scancel", "--user", _user()], check=False)
    patience = time.monotonic() + _PATIENCE_S
    while _said("squeue", "--noheader") and time.monotonic() < patience:
        time.sleep(0.2)


def _said(*command: str) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


def _wait_until(true: Callable[[], bool], folder: Path, what: str) -> None:
    patience = time.monotonic() + _PATIENCE_S
    while not true():
        if time.monotonic() > patience:
            logs = "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in sorted(folder.glob("*.out")))
            raise RuntimeError(f"{what} did not come up:\n{logs}")
        time.sleep(0.1)
