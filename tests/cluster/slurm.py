"""A throw-away Slurm of two nodes on this machine, which needs neither root nor systemd.

    apt-get install -y --no-install-recommends slurmctld slurmd slurm-client
    python -m tests.cluster.slurm             # a shell on the cluster; it's gone when you leave

The daemons listen on loopback only and trust whoever reaches them: it's for tests. Each node has
two processors, 16 GB that nobody checks, and a GPU whose device is /dev/null. Partitions: `cpu`,
`gpu`, and `short`, where a job may take one minute and no more.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from getpass import getuser
from pathlib import Path

CALL = 30  # seconds that a command of Slurm may take
START = 30  # seconds until all nodes are idle
NODES = ("n1", "n2")
CPUS = 2
MEMORY = 16_000  # MB
SBIN = "/usr/sbin"  # where Debian has the daemons, and a user's PATH may not

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
# Ranks meet at a port that follows from the job's id. Two clusters on this machine need two ports.
FirstJobId={ports[0]}
AuthType=auth/none
CredType=cred/none
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool-%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd-%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd-%n.log
# No control groups: a job's processes are those of its process groups.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# No database, as on many a small cluster, so `squeue` alone knows how a job ended.
AccountingStorageType=accounting_storage/none
MinJobAge=300
MpiDefault=none
# A node that was lost is used again as soon as it's back.
ReturnToService=2
SlurmdTimeout=15
KillWait=5
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=2
SlurmdParameters=config_overrides
GresTypes=gpu
{nodes}
PartitionName=cpu Nodes=ALL Default=YES MaxTime=120
PartitionName=gpu Nodes=ALL MaxTime=120
PartitionName=short Nodes=ALL MaxTime=1
"""
NODE = "NodeName={name} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory} Gres=gpu:1"


@dataclass
class Cluster:
    """A running Slurm. environment: what a process needs to find it."""

    directory: Path
    environment: dict[str, str]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def call(self, *command: str, check: bool = True) -> str:
        """Run a command of Slurm; what it printed, errors included."""
        run = subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=CALL,
            check=False,
        )
        if check and run.returncode:
            raise RuntimeError(f"{' '.join(command)}: {run.stdout}")
        return run.stdout

    def jobs(self, state: str = "RUNNING") -> list[str]:
        """The ids of jobs in a state, or of those in any state with `all`."""
        return self.call("squeue", "-h", "-t", state, "-o", "%i").split()

    def show(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        words = self.call("scontrol", "-o", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def start_node(self, name: str) -> None:
        """Start a node's daemon, or start it again after it was lost."""
        self._start(name, "slurmd", "-D", "-N", name)

    def lose_node(self, name: str) -> None:
        """Kill a node's daemon, so that it doesn't answer. Its jobs' processes live on."""
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def start(self) -> None:
        """Start all daemons, and wait until each node takes jobs."""
        self._start("slurmctld", "slurmctld", "-D", "-i")
        for name in NODES:
            self.start_node(name)
        self._wait_for_nodes()

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + START
        while self.call("sinfo", "-h", "-p", "cpu", "-t", "idle", "-o", "%D", check=False) != (
            f"{len(NODES)}\n"
        ):
            if time.monotonic() > deadline or self.daemons["slurmctld"].poll() is not None:
                raise RuntimeError("Slurm's nodes take no jobs:\n" + self.logs())
            time.sleep(0.2)

    def end_jobs(self) -> None:
        """Cancel all jobs, and wait until their processes are gone."""
        self.call("scancel", "--user", getuser(), check=False)
        deadline = time.monotonic() + 2 * CALL
        while self.jobs("PENDING,RUNNING,COMPLETING") and time.monotonic() < deadline:
            time.sleep(0.2)

    def restore(self) -> None:
        """End all jobs, and let all nodes take jobs again."""
        for name in NODES:
            if name not in self.daemons:
                self.start_node(name)
            self.call("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        self.end_jobs()
        self._wait_for_nodes()

    def stop(self) -> None:
        """End all jobs and daemons."""
        self.end_jobs()
        for daemon in self.daemons.values():
            daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons.values():
            try:
                daemon.wait(CALL)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def logs(self) -> str:
        """The last lines of the daemons' logs."""
        texts = {path.name: path.read_text() for path in self.directory.glob("*.log")}
        return "\n".join(f"--- {name}\n{text[-2000:]}" for name, text in texts.items())

    def _start(self, name: str, *command: str) -> None:
        # In a session of its own, so that Ctrl-C in a terminal isn't for the daemons.
        with open(self.directory / f"{name}.out", "ab") as output:
            self.daemons[name] = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


def is_installed() -> bool:
    """Whether this machine has Slurm's daemons and commands."""
    return all(shutil.which(name, path=_path()) for name in ("slurmctld", "slurmd", "squeue"))


@contextmanager
def running(directory: Path) -> Iterator[Cluster]:
    """A cluster that lives as long as the block. directory: for its files; short, as Slurm's
    sockets have long names."""
    ports = _free_ports(1 + len(NODES))
    nodes = [
        NODE.format(name=name, port=port, cpus=CPUS, memory=MEMORY)
        for name, port in zip(NODES, ports[1:], strict=True)
    ]
    values = {"host": socket.gethostname().partition(".")[0], "user": getuser()}
    text = CONFIGURATION.format(directory=directory, ports=ports, nodes="\n".join(nodes), **values)
    (directory / "state").mkdir()
    (directory / "bin").mkdir()
    (directory / "slurm.conf").write_text(text)
    (directory / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    _write_srun(directory)
    environment = {
        **os.environ,
        "PATH": f"{directory}/bin:{_path()}",
        "SLURM_CONF": f"{directory}/slurm.conf",
    }
    cluster = Cluster(directory, environment)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _write_srun(directory: Path) -> None:
    """Put an `srun` first that finds the cluster.

    Snakemake's plugin takes SLURM_CONF from the environment of its steps. A cluster that is
    installed has its configuration where `srun` looks.
    """
    srun = directory / "bin/srun"
    real = shutil.which("srun", path=_path())
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={directory}/slurm.conf exec {real} "$@"\n')
    srun.chmod(0o755)


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:{SBIN}"


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def main() -> None:
    """Start a cluster, and a shell on it."""
    if not is_installed():
        sys.exit(
            "error: Slurm isn't installed; run `apt-get install -y --no-install-recommends "
            "slurmctld slurmd slurm-client`"
        )
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, running(Path(name)) as cluster:
        print(f"Two nodes are up; their files are in {name}. `exit` ends them.")
        # A start-up file of the user might put another Slurm or Python first on PATH.
        subprocess.run(["bash", "--norc"], env=cluster.environment, check=False)


if __name__ == "__main__":
    main()
