"""launch/slurm.sh on a real SLURM of one node: Debian's slurm-wlm and munge, two GPUs of no use."""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests import runs

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = ("slurmctld", "slurmd", "munged")
CONF = """
ClusterName=tests
SlurmctldHost={host}
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthInfo=socket={here}/munge.sock,cred_expire=5
StateSaveLocation={here}/state
SlurmdSpoolDir={here}/spool
SlurmctldPidFile={here}/slurmctld.pid
SlurmdPidFile={here}/slurmd.pid
SlurmctldLogFile={here}/slurmctld.log
SlurmdLogFile={here}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
NodeName={host} CPUs={cpus} RealMemory=1000 Gres=gpu:2
PartitionName=all Nodes=ALL Default=YES
"""
LONG = runs.SMALL | {"steps": 1_000_000, "log_every": 10, "checkpoint_every": 1_000_000}


class Cluster:
    """A SLURM of this machine alone, its files in one folder."""

    def __init__(self, here):
        self.here = here
        self.environment = runs.environment(1) | {"SLURM_CONF": f"{here}/slurm.conf"}
        for name in ("state", "spool", "gpu0", "gpu1"):
            (here / name).mkdir() if name.startswith("s") else (here / name).touch()
        (here / "munge.key").write_bytes(os.urandom(1024))
        (here / "munge.key").chmod(0o400)
        values = dict(host=socket.gethostname(), cpus=os.cpu_count(), here=here)
        values["ports"] = [runs.free_port() for _ in range(2)]
        (here / "slurm.conf").write_text(CONF.format(**values))
        (here / "gres.conf").write_text(f"Name=gpu File={here}/gpu[0-1]\n")

    def start(self):
        """Starts its three daemons; skips the test where they don't come up."""
        files = {"socket": "sock", "key-file": "key", "pid-file": "pid"}
        files |= {"log-file": "log", "seed-file": "seed"}
        flags = [f"--{flag}={self.here}/munge.{end}" for flag, end in files.items()]
        for command in (["munged", "--force", *flags], ["slurmctld", "-c"], ["slurmd"]):
            self.run(*command)
        try:
            wait(lambda: "idle" in self.run("sinfo", "-h", "-o", "%T"), 30)
        except AssertionError:
            log = (self.here / "slurmctld.log").read_text()[-2000:]
            pytest.skip(f"left out: SLURM doesn't start here: {log}")

    def stop(self):
        """Ends all jobs and daemons."""
        self.run("scancel", "--signal=KILL", "--full", "--user=root")
        self.run("scontrol", "shutdown")
        pid = int((self.here / "munge.pid").read_text())
        os.kill(pid, signal.SIGTERM)

    def run(self, *command):
        """What a command prints; its errors too."""
        done = subprocess.run(
            command,
            cwd=self.here,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout

    def submit(self, tasks, minutes, workdir):
        """Submits a training by launch/slurm.sh and returns the job's number."""
        said = self.run(
            str(ROOT / "launch" / "slurm.sh"),
            *(f"--gpus={tasks}", "--cpus=1", f"--time={minutes}", "--name=run"),
            f"--python={sys.executable}",
            f"--config={ROOT / 'configs' / 'quickstart.py'}:mae",
            f"--workdir={workdir}",
            "--",
            *(f"--config.{key}={value}" for key, value in LONG.items()),
        )
        return int(re.fullmatch(r"Submitted batch job (\d+)\n", said)[1])

    def state(self, job):
        """PENDING, RUNNING, COMPLETED, FAILED, CANCELLED."""
        return re.search(r"JobState=(\w+)", self.run("scontrol", "show", f"job={job}"))[
            1
        ]

    def said(self, job):
        """What the job has written in all its goes."""
        path = self.here / f"run-{job}.out"
        return path.read_text() if path.exists() else ""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A running SLURM."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing or os.geteuid():
        pytest.skip("left out: needs slurm-wlm and munge, and to be root")
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    cluster.start()
    yield cluster
    cluster.stop()


def wait(condition, seconds):
    """Waits until `condition()` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.5)


@pytest.mark.slow  # five starts of jax, and a time limit in minutes
def test_a_job_goes_on_where_its_time_limit_or_a_kill_ended_it(cluster, tmp_path):
    """Stopped and requeued at the limit; a task killed; cancelled; behind one that lingers."""
    workdir = tmp_path / "run"
    job = cluster.submit(2, 3, workdir)
    stopped = r"stopped at step (\d+), saved"
    wait(lambda: re.search(stopped, cluster.said(job)), 200)
    step = int(re.search(stopped, cluster.said(job))[1])
    assert "mesh data=2" in cluster.said(job)

    wait(lambda: f"starting at step {step}" in cluster.said(job), 120)
    wait(lambda: runs.metrics(workdir)[-1]["step"] >= step + 20, 60)
    os.kill(tasks(workdir)[1], signal.SIGKILL)
    wait(lambda: cluster.state(job) == "FAILED", 60)

    job += 1  # the number that the next submission will get
    lingering = linger(cluster, job, workdir)
    assert cluster.submit(1, 10, workdir) == job
    wait(lambda: "waiting up to" in cluster.said(job), 60)
    lingering.send_signal(signal.SIGTERM)
    assert lingering.wait(60) == 0
    wait(lambda: "starting at step" in cluster.said(job), 60)
    cluster.run("scancel", str(job))
    wait(lambda: "same command continues" in cluster.said(job), 60)
    wait(lambda: cluster.state(job) == "CANCELLED", 60)
    steps = [row["step"] for row in runs.metrics(workdir)]
    assert steps == sorted(set(steps)) and steps[0] == 10


def tasks(workdir):
    """Process numbers of the run's tasks, which SLURM started."""
    found = subprocess.run(
        ["pgrep", "-f", f"^{sys.executable} .*main .*--workdir={workdir}"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [int(number) for number in found.stdout.split()]


def linger(cluster, job, workdir):
    """The run as a process of a job's earlier go, which SLURM has lost sight of."""
    flags = [f"--config.{key}={value}" for key, value in LONG.items()]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "vit_ssl_jax.main"),
            f"--config={ROOT / 'configs' / 'quickstart.py'}:mae",
            f"--workdir={workdir}",
            *flags,
        ],
        cwd=ROOT,
        env=cluster.environment | {"SLURM_JOB_ID": str(job)},
        stdout=subprocess.DEVNULL,
    )
    held = workdir / "running.json"  # which the killed one has left behind
    wait(lambda: held.exists() and f'"pid": {process.pid},' in held.read_text(), 60)
    return process
