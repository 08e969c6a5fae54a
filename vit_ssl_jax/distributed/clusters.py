"""Which processes make up a run, and which of them this is: by flags, SLURM, or a TPU pod."""

import dataclasses
import glob
import os
import re
import urllib.request

from vit_ssl_jax.errors import UserError

FLAGS = ("--coordinator", "--num_processes", "--process_id")
TPU_PORT = 8476  # jax's own for this
METADATA_SECONDS = 5


@dataclasses.dataclass(frozen=True)
class Group:
    """The processes of a run, at least two, and this one's place among them."""

    coordinator: str  # HOST:PORT; process 0 listens there
    count: int
    index: int
    hosts: tuple[str, ...] = ()  # of all processes, where they are known beforehand
    devices: tuple[int, ...] | None = None  # this process's of its host; None: all


def find_group(coordinator="", num_processes="", process_id=""):
    """The `Group` that this process belongs to; None: it is a run by itself.

    By the three flags; without them by the variables of SLURM's `srun`, or by what a TPU
    pod slice tells its hosts. Raises UserError for flags that make no sense.
    """
    flags = (coordinator, num_processes, process_id)
    if any(flags):
        return by_flags(*flags)
    return by_slurm(os.environ) or by_tpu(os.environ)


def by_flags(coordinator, num_processes, process_id):
    """The group that the flags describe; None for one process."""
    given = dict(zip(FLAGS, (coordinator, num_processes, process_id), strict=True))
    if missing := [flag for flag, value in given.items() if not value]:
        raise UserError(
            f"{', '.join(FLAGS)} go together, and {', '.join(missing)} is missing; give "
            "all three on every host, or none on a single one"
        )
    place = re.fullmatch(r"(?:\[[^\]]+\]|[^:/\[\]]+):(\d{1,5})", coordinator)
    if not place or not 1 <= int(place[1]) <= 65535:
        raise UserError(
            f"--coordinator={coordinator}: give HOST:PORT, the address of the host with "
            "--process_id=0 and a free port there (10.0.0.2:8476, [fd00::2]:8476)"
        )
    numbers = num_processes.isdecimal() and process_id.isdecimal()
    if not numbers or int(num_processes) < 1:
        raise UserError(
            f"--num_processes={num_processes} --process_id={process_id}: give numbers, "
            "how many processes there are and which of them this is, from 0"
        )
    count, index = int(num_processes), int(process_id)
    if index >= count:
        raise UserError(
            f"--process_id={index}: with --num_processes={count} they go from 0 to "
            f"{count - 1}, each given to one process"
        )
    return Group(coordinator, count, index) if count > 1 else None


def by_slurm(env):
    """The tasks of this `srun` step; None outside one, or where it has one task."""
    count = int(env.get("SLURM_STEP_NUM_TASKS", 1))
    if count == 1 or "SLURM_PROCID" not in env:
        return None
    needed = ("SLURM_STEP_NODELIST", "SLURM_JOB_ID", "SLURM_LOCALID")
    if missing := [name for name in needed if name not in env]:
        raise UserError(
            f"SLURM says that this is one of {count} tasks, but not {', '.join(missing)}; "
            f"start them by srun, or give each {', '.join(FLAGS)}"
        )
    hosts = tuple(expand(env["SLURM_STEP_NODELIST"]))
    # A port of the job's own, so that jobs that share a node don't meet.
    port = 61440 + int(env["SLURM_JOB_ID"]) % 4096
    # Where a task sees the GPUs of all tasks of its host, it takes the one of its number.
    seen = (env.get("CUDA_VISIBLE_DEVICES") or "," * count).count(",") + 1
    bound = "SLURM_GPUS_PER_TASK" in env or seen < -(-count // len(hosts))
    shared = count > len(hosts) and not bound
    devices = (int(env["SLURM_LOCALID"]),) if shared else None
    return Group(f"{hosts[0]}:{port}", count, int(env["SLURM_PROCID"]), hosts, devices)


def expand(nodes):
    """The names in SLURM's short form: "a[01-03,7],b" -> a01, a02, a03, a7, b."""
    out = []
    for text in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes):
        before, bracket, rest = text.partition("[")
        if not bracket:
            out.append(text)
            continue
        numbers, _, after = rest.partition("]")
        for piece in numbers.split(","):
            first, _, last = piece.partition("-")
            for number in range(int(first), int(last or first) + 1):
                out += expand(f"{before}{number:0{len(first)}d}{after}")
    return out


def by_tpu(env):
    """The hosts of a TPU slice, or of several slices; None on a single host."""
    if not has_chips():
        return None
    if workers := env.get("TPU_WORKER_HOSTNAMES"):  # GKE
        return of_slices(workers, env.get("TPU_WORKER_ID"), env)
    workers = (
        "" if "TPU_SKIP_MDS_QUERY" in env else ask("worker-network-endpoints", env)
    )
    if not workers:
        return None
    # Hosts, or in an older form name:number:address.
    workers = ",".join(worker.split(":")[-1] for worker in workers.split(","))
    pairs = re.findall(r"^(\w+): *'?([^'\n]*)'?$", ask("tpu-env", env), re.MULTILINE)
    return of_slices(workers, ask("agent-worker-number", env), {**dict(pairs), **env})


def has_chips():
    """Whether this host has TPU chips."""
    return bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))


def has_cards():
    """Whether this host has NVIDIA GPUs (`dxg`: under Windows)."""
    return bool(glob.glob("/dev/nvidia[0-9]*") or glob.glob("/dev/dxg"))


def of_slices(workers, number, env):
    """The group of a TPU host, by the hosts of its slice and its number."""
    hosts = tuple(workers.split(","))
    slices = int(env.get("MEGASCALE_NUM_SLICES") or 1)
    count = len(hosts) * slices
    if count < 2:
        return None
    first = (env.get("MEGASCALE_COORDINATOR_ADDRESS") or hosts[0]).split(":")[0]
    index = int(number) + len(hosts) * int(env.get("MEGASCALE_SLICE_ID") or 0)
    known = hosts if slices == 1 else ()
    return Group(f"{first}:{TPU_PORT}", count, index, known)


def ask(key, env):
    """What the cloud tells a VM about itself; "" where it says nothing."""
    host = env.get("GCE_METADATA_IP", "metadata.google.internal")
    url = f"http://{host}/computeMetadata/v1/instance/attributes/{key}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=METADATA_SECONDS) as answer:
            return answer.read().decode().strip()
    except OSError:  # no cloud, or no such key
        return ""
