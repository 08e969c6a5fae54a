"""Several processes that are one run: how it starts, and what they agree on."""

import collections
import contextlib
import importlib.metadata
import inspect
import json
import os
import platform
import secrets
import socket
import sys
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

import vit_ssl_jax
from vit_ssl_jax.distributed import rollcall
from vit_ssl_jax.errors import UserError

LEAVE_SECONDS = 600  # for the others to end, once one has
LAST_SECONDS = 2  # that process 0, by which the others live, goes after them
VISIBLE_SECONDS = 10  # for a file of another host to be seen


def start(group, facts, timeout):
    """Joins the processes of a `clusters.Group`: from here on jax sees all devices.

    To be called before anything has asked jax for devices. `facts` (dict, by process)
    must be the same on all, as must versions. `timeout`: seconds.

    Raises UserError on every process unless all are there in time and alike.
    """
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    versions |= {"vit_ssl_jax": vit_ssl_jax.__version__}
    versions |= {"python": ".".join(platform.python_version_tuple()[:2])}
    about = dict(index=group.index, count=group.count, host=socket.gethostname())
    about["facts"] = json.loads(json.dumps({**versions, **facts}))
    call = rollcall.take_roll if group.index == 0 else rollcall.answer_roll
    call(group, about, timeout)
    more = dict(shutdown_timeout_seconds=LEAVE_SECONDS)
    if more.keys() - inspect.signature(jax.distributed.initialize).parameters.keys():
        more = {}  # jax 0.7 waits as long as it likes
    try:
        jax.distributed.initialize(
            group.coordinator,
            group.count,
            group.index,
            local_device_ids=group.devices,
            cluster_detection_method="deactivate",
            initialization_timeout=timeout,
            **more,
        )
        owners = collections.Counter(d.process_index for d in jax.devices())
    except RuntimeError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"process {group.index} on {about['host']} met the others, but jax can't "
            f"start there ({lines[0]}). All need the same kind of device, and to reach "
            f"{group.coordinator} and each other at any port"
        ) from error
    if len(set(owners.values())) > 1:
        counts = ", ".join(f"process {i} has {n}" for i, n in sorted(owners.items()))
        raise UserError(
            f"all processes need equally many devices: {counts}. Give each as many "
            "(CUDA_VISIBLE_DEVICES; on CPU XLA_FLAGS)"
        )


def leave():
    """Ends this process, which has failed, without waiting for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.process_index() == 0:
        time.sleep(LAST_SECONDS)  # what all failed of, they shall be able to say
    os._exit(1)


@contextlib.contextmanager
def together():
    """Makes a UserError that one process raises inside one of all processes.

    Inside nothing may need the other processes.
    """
    if jax.process_count() == 1:
        yield
        return
    problem = None
    try:
        yield
    except UserError as error:
        problem = error
    text = f"on {socket.gethostname()}: {problem}" if problem else ""
    texts = tell_all(text)
    if problem:
        raise problem
    if text := next(filter(None, texts), ""):
        raise UserError(text)


def tell_all(value):
    """What each process says, a list by process: values as JSON has them.

    All have to be there.
    """
    if jax.process_count() == 1:
        return [value]
    raw = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(len(raw)))).ravel()
    row = np.zeros(sizes.max(), np.uint8)
    row[: len(raw)] = raw
    rows = np.asarray(multihost_utils.process_allgather(row))
    return [json.loads(bytes(row[:size])) for row, size in zip(rows, sizes)]


def any_process(true):
    """Whether something is true on any process."""
    if jax.process_count() == 1:
        return bool(true)
    return bool(np.any(multihost_utils.process_allgather(np.uint8(bool(true)))))


def wait_for_all(name):
    """Returns once every process is at this point, `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def check_shared(workdir):
    """Raises UserError unless all processes see what process 0 writes in `workdir`."""
    if jax.process_count() == 1:
        return
    number = multihost_utils.broadcast_one_to_all(np.uint32(secrets.randbits(32)))
    file = workdir / f".seen-by-all-{int(number):08x}"
    with together():
        if jax.process_index() == 0:
            file.write_text("")
    with together():
        last = time.monotonic() + VISIBLE_SECONDS
        while not file.exists():
            if time.monotonic() > last:
                raise UserError(
                    f"--workdir={workdir} isn't the same folder here as for process 0: "
                    "what it writes there isn't seen. Give a folder that all hosts "
                    "share (gs://BUCKET/..., a network file system)"
                )
            time.sleep(0.5)
    if jax.process_index() == 0:
        file.unlink()
