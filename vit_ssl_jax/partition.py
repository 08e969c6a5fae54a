"""Layout of arrays on devices: parameter name -> logical axes -> mesh axes."""

import functools
import math

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vit_ssl_jax.errors import UserError

MESH_AXES = ("data", "fsdp", "tensor")
SPREAD = 8  # devices that share the parameters, unless config.mesh says otherwise

# Last two names of a parameter's path -> its logical axes, last axes first to match:
# a scanned parameter has one more axis (layers) in front, which is never sharded. An
# axis `lanes` is the innermost in memory.
AXES = {
    "patch/kernel": (None, "embed"),
    "qkv/kernel": ("lanes", None, "heads", "head"),
    "qkv/bias": (None, "heads_bias", None),
    "out/kernel": ("heads", "head", "lanes"),
    "up/kernel": ("embed", "mlp"),
    "up/bias": ("mlp_bias",),
    "gated/kernel": ("embed", None, "mlp"),
    "gated/bias": (None, "mlp_bias"),
    "down/kernel": ("mlp", "lanes"),
    "embed/kernel": ("embed", None),
    "head/kernel": ("embed", None),
    "representation/kernel": ("embed", None),
    "positions/kernel": ("embed", None),
    "/prototypes": ("embed", None),
    "/query": (None, "embed", None),
    "/key": (None, "embed", None),
    "/posemb": (None, None, "embed"),
}

# Mesh axis -> the logical axes that it may split, the best first, each with what its
# shards must be a multiple of. At best they fill whole tiles of a TPU's memory: the
# compiler makes an all-reduce of what gathers or scatters others.
WHOLE_TILES = (("heads", 1), ("head", 8), ("embed", 8), ("mlp", 8), ("lanes", 128))
SHARDED = (*WHOLE_TILES, ("lanes", 1), ("embed", 1), ("mlp", 1))
RULES = {
    "tensor": (("heads", 1), ("heads_bias", 1), ("mlp", 1), ("mlp_bias", 1)),
    "fsdp": SHARDED,
}
# The optimiser's moments, and the gradients on their way to them: split over all the
# devices that share the batch, each of which updates its own part (ZeRO, stage 1).
MOMENTS = {**RULES, "data": SHARDED}

BATCH = PartitionSpec(("data", "fsdp"))


def make_mesh(shape, devices=None):
    """Builds the mesh from `{data, fsdp, tensor}`; one size may be -1 (the rest).

    Where both `data` and `fsdp` are, `fsdp` is what divides the rest of a GPU's host or of
    all, up to SPREAD; 1 where there are several TPU slices. Raises UserError where the
    sizes don't multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [int(shape[axis]) for axis in MESH_AXES]
    given = ", ".join(f"{a}={s}" for a, s in zip(MESH_AXES, sizes))
    if sizes[:2] == [-1, -1]:
        near = len(devices) // count_slices(devices)
        sizes[1] = math.gcd(SPREAD, max(near // max(sizes[2], 1), 1))
        sizes[1] = 1 if far_apart(devices) else sizes[1]
    known = int(np.prod([s for s in sizes if s != -1]))
    if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
        raise UserError(
            "config.mesh: sizes are positive; one may be -1, or data and fsdp: " + given
        )
    if -1 in sizes and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if int(np.prod(sizes)) != len(devices):
        raise UserError(
            f"config.mesh: {given} doesn't fill {len(devices)} {devices[0].platform} "
            f"device(s); the sizes must multiply to {len(devices)} (one may be -1)"
        )
    return Mesh(place_devices(sizes, devices), MESH_AXES, (AxisType.Auto,) * len(sizes))


def slices(devices):
    """The number of each device's TPU slice, or of its host where they are GPUs."""
    hosts = [getattr(device, "process_index", 0) for device in devices]
    if devices[0].platform == "gpu" and max(hosts) >= jax.process_count():
        return hosts  # only planned with: jax numbers the slices of those at hand
    return [getattr(device, "slice_index", 0) for device in devices]


def count_slices(devices):
    """How many TPU slices, or hosts with GPUs, the devices are of."""
    return len(set(slices(devices)))


def far_apart(devices):
    """Whether they are of several TPU slices, over which only `data` may reach."""
    return devices[0].platform == "tpu" and count_slices(devices) > 1


def place_devices(sizes, devices):
    """Devices `[data fsdp tensor]` by the links between them; slices along `data`.

    TPU slices are joined by a slow network, so only `data` may reach across it: raises
    UserError where it can't. Elsewhere devices keep their order.
    """
    slices = count_slices(devices)
    if not far_apart(devices):
        return mesh_utils.create_device_mesh(
            sizes, devices, allow_split_physical_axes=True
        )
    data, fsdp, tensor = sizes
    if data % slices:
        raise UserError(
            f"config.mesh.data: {data} doesn't divide over {slices} slices; only data "
            f"may reach across them, so make it a multiple of {slices}"
        )
    if fsdp > 1:
        raise UserError(
            f"config.mesh.fsdp: {fsdp} over {slices} slices makes today's TPU compiler "
            "abort; use fsdp=1 there: the optimiser's moments are split all the same"
        )
    return mesh_utils.create_hybrid_device_mesh(
        (data // slices, fsdp, tensor),
        (slices, 1, 1),
        devices,
        allow_split_physical_axes=True,
    )


def spec(path, shape, mesh, rules=None):
    """PartitionSpec of a parameter from its path of names and its shape.

    Axes of the mesh that have one device aren't in it.
    """
    names = [str(getattr(k, "key", getattr(k, "name", k))) for k in path]
    rows = [axes for row, axes in AXES.items() if "/".join(names[-2:]).endswith(row)]
    if not rows:
        return PartitionSpec()
    axes = rows[0]
    axes = (None,) * (len(shape) - len(axes)) + axes
    split = [() for _ in axes]
    for name, wanted in (rules or RULES).items():
        for axis, multiple in wanted:
            if mesh.shape[name] == 1 or axis not in axes:
                continue
            at = axes.index(axis)
            if split[at] not in ((), ("fsdp",)):
                continue
            ways = math.prod(mesh.shape[n] for n in (*split[at], name))
            if shape[at] % (ways * multiple) == 0:
                split[at] += (name,)
                break
    return PartitionSpec(*[s if len(s) > 1 else s[0] if s else None for s in split])


def specs(tree, mesh, rules=None):
    """PartitionSpecs for a tree of arrays or shapes; moments and EMA follow by name.

    An axis whose size the devices don't divide is left whole.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, x: spec(path, x.shape, mesh, rules), tree
    )


def shardings(tree, mesh, rules=None):
    """NamedShardings of a tree of arrays or shapes, by its `specs`."""
    place = functools.partial(NamedSharding, mesh)
    return jax.tree.map(place, specs(tree, mesh, rules))


def state_shardings(state, mesh):
    """`shardings` of a `step.TrainState`, whose moments are split by MOMENTS."""
    moments = shardings(state.opt_state, mesh, MOMENTS)
    return shardings(state, mesh).replace(opt_state=moments)


def laid_out(shapes, layout):
    """Shapes as ShapeDtypeStructs with shardings: a tree of those, or one for all."""
    if isinstance(layout, NamedSharding):
        layout = jax.tree.map(lambda x: layout, shapes)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, layout
    )


def check_batch(where, size, mesh, pieces=1, words=""):
    """Raises UserError unless a batch of `size` divides over the mesh and into pieces.

    `where` is the key of the size, `words` say what the pieces are.
    """
    parts = ways(mesh) * pieces
    if size % parts:
        least = max(size // parts, 1) * parts
        words = f" {words} = {parts}" if words else ""
        raise UserError(
            f"{where}: {size} doesn't divide over {ways(mesh)} devices{words}; "
            f"try {least} or {least + parts}"
        )


def batch_sharding(mesh: Mesh):
    """Sharding that splits examples over every device that isn't tensor-parallel."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh):
    """Sharding that has the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put(tree, sharding):
    """Sends numpy arrays that every process has whole to the devices."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, sharding, lambda i: x[i]), tree
    )


def fetch(tree):
    """Arrays as numpy, whole on every process, wherever their parts are."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def ways(mesh: Mesh):
    """Number of devices that examples are split over."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def fill_ways(count, mesh):
    """The next number of examples from `count` on that divides over the mesh."""
    return -(-count // ways(mesh)) * ways(mesh)


def pin_batch(x):
    """Pins activations `[B ...]` to the batch layout; no effect without a mesh.

    Without it, parameters sharded over `fsdp` make the partitioner replicate the batch
    inside a scanned block.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, BATCH)
