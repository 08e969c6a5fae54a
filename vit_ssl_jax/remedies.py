"""Which flags would make a step fit into a device's memory, with the bytes it takes then."""

import dataclasses
import time

import jax

from vit_ssl_jax import build, memory, partition, step
from vit_ssl_jax.errors import UserError

TRIES, SLOW = 3, 60.0  # compilations for an advice; seconds after which none follows
HEAVY = 1 / 3  # of the memory: a state that is more of it is what to shard first


@dataclasses.dataclass(frozen=True)
class Advice:
    """Changes of a config, what a device would hold then, and how that is known."""

    changes: dict  # {dotted key: value}
    bytes: int
    how: str  # "compiled", or "by proportion"

    @property
    def flags(self):
        """The changes as flags, to be pasted behind a command."""
        return " ".join(f"--config.{key}={v}" for key, v in self.changes.items())


def describe(advice, times=1):
    """An `Advice`, or that there is none, in words; of `times` devices together."""
    if advice is None:
        return (
            "no config.accum, config.vit.remat, config.mesh.fsdp or config.batch_size "
            "is enough: it takes a smaller config.vit.variant, or devices with more memory"
        )
    return (
        f"{advice.flags} would take {memory.size(times * advice.bytes)}, {advice.how}"
    )


@dataclasses.dataclass(frozen=True)
class Parts:
    """Bytes of one device that a step is made of, as far as shapes tell."""

    state: int
    batch: int
    views: int  # of the whole batch, which is split into micro-batches afterwards
    grads: int

    def whole(self, accum, scale=1.0):
        """Bytes that accumulation adds: views, gradients so far, those of now."""
        return self.views * scale + 2 * self.grads if accum > 1 else 0


def parts_of(run, fsdp=None):
    """The `Parts` of a run, with another `config.mesh.fsdp` where one is given."""
    state, mesh, ways = run.program.state, run.mesh, partition.ways(run.mesh)
    if fsdp:
        shape = (ways // fsdp, fsdp, mesh.shape["tensor"])
        devices = mesh.devices.reshape(shape)
        mesh = jax.sharding.Mesh(devices, mesh.axis_names, mesh.axis_types)
    state = partition.laid_out(state, partition.state_shardings(state, mesh))
    return Parts(
        state=memory.shard_bytes(state),
        batch=memory.shard_bytes(run.program.batch),
        views=view_bytes(run) // ways,
        grads=memory.shard_bytes(state.params),
    )


def view_bytes(run):
    """Bytes, of all devices, of the views that a method makes of a batch."""
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), run.program.batch
    )
    with jax.set_mesh(run.mesh):
        views = jax.eval_shape(
            lambda key, batch: run.method.make_views(key, step.prepare(batch)),
            step.key_shape(),
            batch,
        )
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(views))


def estimate(config, parts, need, changes, changed):
    """Bytes of a step with `changes` of `config`, by proportion from its `need`.

    Temporaries are in proportion to the images of a micro-batch, but for what
    accumulation keeps whole (`Parts.whole`). `parts` are those of `config`, `changed`
    those of its mesh with the changes.
    """
    batch, accum = config.batch_size, config.accum
    new_batch = changes.get("batch_size", batch)
    new_accum = changes.get("accum", accum)
    scale = new_batch / batch
    activations = max(need.temporaries - parts.whole(accum), 0)
    activations *= scale * accum / new_accum
    arguments = need.arguments + changed.state - parts.state
    arguments += parts.batch * (scale - 1)
    kept = changed.whole(new_accum, scale)
    return int(arguments + activations + kept + need.outputs)


def advise(config, run, need, limit, measure=None):
    """Finds changes of `config` with which a step takes at most `limit` bytes a device.

    run, need: the `build.Run` of the config, and the `memory.Need` of its step.
    measure: a `compiler`; without it values are by proportion.

    In this order: more micro-batches, `vit.remat=full`, both; parameters sharded, first
    where the state is much of the memory; a smaller batch. Returns an `Advice`, or None.
    """
    measure = measure or compiler(config, run, None)
    devices, known = list(run.mesh.devices.flat), {config.vit.remat: need}
    mine, by_mesh = parts_of(run), {}
    for base in bases(config, run, need, limit):
        remat = base.get("vit.remat", config.vit.remat)
        if remat not in known:
            # Its temporaries are known by compiling only.
            measured = measure({"vit.remat": remat})
            if measured is None:
                continue
            known[remat], compiled = measured
            if compiled and known[remat].total <= limit:
                changes = {"vit.remat": remat}
                return Advice(changes, known[remat].total, "compiled")
        fsdp = base.get("mesh.fsdp")
        if fsdp not in by_mesh:
            by_mesh[fsdp] = parts_of(run, fsdp) if fsdp else mine
        for changes in rungs(config, run, base):
            total = estimate(config, mine, known[remat], changes, by_mesh[fsdp])
            if total > limit:
                continue
            measured = measure(changes)
            if measured is None and is_valid(config, changes, devices):
                return Advice(changes, total, "by proportion")
            if measured and measured[1] and measured[0].total <= limit:
                return Advice(changes, measured[0].total, "compiled")
    return None


def bases(config, run, need, limit):
    """Yields changes of all but `accum`, in the order in which they are tried."""
    remat = [{}] if config.vit.remat == "full" else [{}, {"vit.remat": "full"}]
    shard = sharded(config, run)
    both = [shard | changes for changes in remat] if shard else []
    heavy = need.arguments > HEAVY * limit
    order = both + remat if heavy else remat + both
    yield from order
    size, ways = config.batch_size, partition.ways(run.mesh)
    while size > ways:
        size = max(size // 2 // ways, 1) * ways
        for changes in order:
            yield {"batch_size": size} | changes


def sharded(config, run):
    """Flags of the mesh on which a device holds least of the state; {}: this one."""
    ways, now = partition.ways(run.mesh), run.mesh.shape["fsdp"]
    if partition.far_apart(list(run.mesh.devices.flat)):
        return {}
    sizes = [n for n in range(now, ways + 1) if ways % n == 0 and n % now == 0]
    best = min(sizes, key=lambda n: parts_of(run, n).state)
    if best == now:
        return {}
    data = {} if config.mesh.data == -1 else {"mesh.data": ways // best}
    return {"mesh.fsdp": best} | data


def rungs(config, run, base):
    """Yields a base with more and more micro-batches, as far as the batch divides."""
    each = base.get("batch_size", config.batch_size) // partition.ways(run.mesh)
    if ("mesh.fsdp" in base or "batch_size" in base) and each % config.accum == 0:
        yield base
    for accum in range(config.accum + 1, each + 1):
        if each % accum == 0:
            yield base | {"accum": accum}


def change(config, changes):
    """A copy of a config with other values of dotted keys."""
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(changes)
    return config


def is_valid(config, changes, devices):
    """Whether `build.make_run` takes a config with the changes."""
    try:
        build.make_run(change(config, changes), devices)
    except UserError:
        return False
    return True


def compiler(config, run, seconds):
    """Makes `changes -> (memory.Need, whether it compiled)`, or None: no more.

    `seconds`: that the step of the run took to compile, None: compile nothing. No more
    than TRIES are compiled, none after one that took SLOW, and none where several
    processes would have to agree.
    """
    quick = seconds is not None and seconds < SLOW and jax.process_count() == 1
    left = TRIES if quick else 0

    def measure(changes):
        nonlocal left
        if not left:
            return None
        begun = time.perf_counter()
        changed = build.make_run(change(config, changes), list(run.mesh.devices.flat))
        compiled, refusal = memory.compile_step(changed.program)
        left = left - 1 if time.perf_counter() - begun < SLOW else 0
        return memory.need_of(changed.program, compiled, refusal), bool(compiled)

    return measure
