"""Check of one sum over all devices: is it right, and how fast do they talk."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vit_ssl_jax.doctor import findings

VALUES, CPU_VALUES = 1 << 24, 1 << 18  # float32, of every device
CALLS = 5
PERIOD = 7  # of what is summed, small whole numbers: every order gives the same
CURE = (
    "devices give wrong sums to each other, so nothing that they train is right: run it "
    "again on other devices or hosts, and report these to who runs the machine"
)


def add_up(x):
    """The devices' `[1 M]` summed, on each of them."""
    return jax.lax.psum(x, "all")


def check(devices):
    """A finding: whether every device has the sum of all, and bytes a second.

    The bandwidth is what a device sends if sums go around a ring, 2 (n - 1) / n of its
    values, as others count it, too.
    """
    count = len(devices)
    if count == 1:
        return findings.left_out("collective", "there is one device")
    mesh = Mesh(np.array(devices), ("all",))
    values = CPU_VALUES if devices[0].platform == "cpu" else VALUES
    rows, whole = NamedSharding(mesh, P("all")), NamedSharding(mesh, P())
    pattern = jnp.arange(values) % PERIOD + 1.0

    def make():
        return jnp.arange(1.0, count + 1)[:, None] * pattern[None]

    def compare(sums):
        return jnp.abs(sums - pattern[None] * (count * (count + 1) / 2)).max(axis=1)

    x = jax.jit(make, out_shardings=rows)()
    spread = dict(mesh=mesh, in_specs=P("all"), out_specs=P("all"), check_vma=False)
    add = jax.jit(jax.shard_map(add_up, **spread))
    sums = jax.block_until_ready(add(x))
    wrong = np.flatnonzero(np.asarray(jax.jit(compare, out_shardings=whole)(sums)))
    seconds = min(call(add, x) for _ in range(CALLS))
    rate = 2 * (count - 1) / count * values * 4 / seconds
    numbers = dict(devices=count, seconds=seconds, bytes_per_second=rate)
    text = f"{values * 4 / 2**20:.3g} MiB of each of {count} devices summed"
    if len(wrong):
        names = ", ".join(str(devices[i]) for i in wrong[:4])
        text += f": {len(wrong)} have a wrong sum ({names})"
        return findings.make("collective", False, text, CURE, **numbers)
    text += f" in {1000 * seconds:.3g} ms, {rate / 1e9:.3g} GB/s"
    return findings.make("collective", True, text, **numbers)


def call(function, x):
    """Seconds of one `function(x)`."""
    begun = time.perf_counter()
    jax.block_until_ready(function(x))
    return time.perf_counter() - begun
