"""Slurm on one machine, for as long as a test: munge, the controller and a node, which listen on loopback alone."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CORES = 4
"""That the node says it has: jobs are to run beside each other, also on two cores."""

_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
_SOON_S = 30.0
_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why Slurm cannot be started here; None if it can."""
    missing = [name for name in DAEMONS if shutil.which(name, path=_PATH) is None]
    if os.name != "posix" or os.getuid() != 0:
        return "Slurm's daemons start jobs as their users, which takes root"
    return f"no {', '.join(missing)}: tests/slurm/install.sh installs them" if missing else None


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """What the environment of whoever submits jobs must have; the jobs and the daemons end with the block."""
    conf = folder / "slurm.conf"
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf.write_text(_text(folder))
    environment = {"SLURM_CONF": str(conf), "PATH": _PATH}
    with ExitStack() as daemons:
        for line in _lines(folder):
            daemons.enter_context(_daemon(line, folder, environment))
        _wait_until(lambda: "idle" in asked(["sinfo", "-h", "-o", "%t"], environment), folder)
        try:
            yield environment
        finally:
            asked(["scancel", "--user=root"], environment)
            _wait_until(lambda: not jobs(environment), folder)


def jobs(environment: dict[str, str]) -> list[str]:
    """Numbers of the jobs that wait, run or end."""
    return asked(["squeue", "-h", "-o", "%i"], environment).split()


def asked(line: Sequence[str], environment: dict[str, str]) -> str:
    """What a command of Slurm prints; nothing while the controller does not answer."""
    found = subprocess.run(line, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return found.stdout.decode()


def _text(folder: Path) -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    ports = {"controller": _free_port(), "node": _free_port()}
    return _CONF.format(folder=folder, host=socket.gethostname(), cores=CORES, memory=memory, **ports)


def _lines(folder: Path) -> list[list[str]]:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    files = {
        "key-file": key,
        "socket": "munge.socket",
        "pid-file": "munge.pid",
        "log-file": "munge.log",
        "seed-file": "seed",
    }
    munge = [f"--{name}={folder / path}" for name, path in files.items()]
    # `--force`: it minds that others may write to the folders above, such as /tmp.
    return [["munged", "--foreground", "--force", *munge], ["slurmctld", "-D"], ["slurmd", "-D"]]


@contextmanager
def _daemon(line: Sequence[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with open(folder / f"{line[0]}.out", "wb") as out:
        options = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(line, env=os.environ | environment, cwd=folder, **options)
    try:
        if line[0] == "munged":  # the others end where it does not answer yet
            _wait_until((folder / "munge.socket").exists, folder)
        yield
    finally:
        process.terminate()
        process.wait(_SOON_S)


def _wait_until(condition, folder: Path) -> None:
    end = time.monotonic() + _SOON_S
    while not condition():
        if time.monotonic() > end:
            logs = [f"{path.name}: {path.read_text(errors='replace')[-1000:]}" for path in folder.glob("*.out")]
            raise TimeoutError("\n".join(["Slurm does not do what it should", *logs]))
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
