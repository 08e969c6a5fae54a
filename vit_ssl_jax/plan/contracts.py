"""Contracts that every compiled train step must keep, read from its optimised HLO."""

import collections
import math
import re

from vit_ssl_jax.plan.program import buffers, hlo
from vit_ssl_jax.plan.program.parts import CUBLAS, MATMULS

GATHERS = {"all-gather", "all-to-all", "ragged-all-to-all"}
HOST_OPCODES = {"infeed", "outfeed"}
HOST_TARGETS = re.compile(r"callback|MoveToHost|MoveToDevice|PinToHost", re.IGNORECASE)
BETWEEN_SLICES = "_xla_megascale_"  # collectives of slices, by way of their hosts
HOST_SPACE = 5  # S(5) in a layout
KERNEL_MATMUL = re.compile(
    r"tpu\.matmul.* : \((vector<[\dx]+xf32>, vector<[\dx]+xf32>),"
)
# Scopes whose matmuls are float32 by design: crops, filters and colours of images, and
# the resampling of position embeddings.
FLOAT32_SCOPES = re.compile(r"(?:^|[/(])(?:views|resample|jit\(_resize\))(?:[/)]|$)")


def violations(hlo_text, *, dtype, slices=1):
    """All breaches of the contracts by a train step: sentences, empty if there's none.

    `hlo_text` is the optimised program's, for so many `slices`; `dtype` is the model's
    (`config.vit.dtype`).
    """
    module = hlo.parse(hlo_text)
    breaches = gathered_activations(module, slices) + host_transfers(module)
    if dtype == "bfloat16":
        breaches += float32_matmuls(module)
    return breaches + copied_state(module)


def gathered_activations(module, slices=1):
    """All-gathers and all-to-alls of what is neither a parameter's shard nor small.

    Under FSDP a chip gathers parameters, one layer of them at a time; whatever else it
    gathers is an activation, which other chips hold for other images. Shards are known
    by their sizes in any order, for layouts and casts come in between, and those of a
    layer that are sent together by how many values they have; so is what ends the sum
    of a layer's gradients between slices, which is a scatter, a sum and a gather. Small
    is one vector an image, as pooled features and logits are: for the gradient of a
    head, gathering these moves less than reducing it.
    """
    shards, small = parameter_shards(module), vector_elements(module)
    packed, gradients = layer_elements(module)
    if slices > 1:  # gathered between slices first, as another or a longer axis
        longer = (
            sizes_of((*shard[:i], slices * shard[i], *shard[i + 1 :]))
            for shard in shards
            for i in range(len(shard))
        )
        shards |= {sizes_of((*shard, slices)) for shard in shards} | {*longer}
    breaches = []
    for items in module.computations.values():
        types = {item.name: item.arrays for item in items}
        for item in items:
            kind = item.opcode.removesuffix("-start")
            if kind not in GATHERS:
                continue
            gathered = {math.prod(array.shape) for array in item.arrays}
            if slices > 1 and gathered & gradients:
                continue
            operands = [array for name in item.inputs for array in types[name]]
            others = [
                array
                for array in operands
                if sizes_of(array.shape) not in shards
                and math.prod(array.shape) not in packed
                and math.prod(array.shape) > small
            ]
            if others:
                arrays = ", ".join(map(str, others))
                breaches.append(f"{kind} of {arrays}, no parameter: {place(item)}")
    return breaches


def parameter_shards(module):
    """Sizes of a chip's shards of the state's arrays, and of a layer of each: a set."""
    shards = set()
    for item in module.computations[module.entry]:
        replicated = "sharding={replicated}" in item.attributes
        if not item.source.startswith("state") or not is_input(item) or replicated:
            continue
        (array,) = item.arrays
        shards |= {sizes_of(array.shape), sizes_of(array.shape[1:])}
        if (
            "posemb" in item.source
        ):  # [1 N D], used without its first row, the cls token's
            shards.add(sizes_of((array.shape[1] - 1, array.shape[2])))
    return shards


def layer_elements(module):
    """Numbers of values of a layer of each stack: sets, of a chip and of all chips."""
    shards, wholes = collections.Counter(), collections.Counter()
    for item in module.computations[module.entry]:
        stack, block, _ = item.source.rpartition("block")
        if is_input(item) and block and "params" in stack:
            ways, values = ways_split(item), math.prod(item.arrays[0].shape[1:])
            shards[stack] += values if ways > 1 else 0
            wholes[stack] += values * ways
    return set((+shards).values()), set(wholes.values())


def ways_split(item):
    """Number of chips that an input is split over; 1 where every chip has it whole."""
    tiles = re.search(r"sharding=\{devices=\[([\d,]+)\]([^}]*)", item.attributes)
    if not tiles:
        return 1
    sizes = [int(size) for size in tiles[1].split(",")]
    return math.prod(sizes[:-1] if "last_tile_dim_replicate" in tiles[2] else sizes)


def vector_elements(module):
    """Elements of one vector an image of a chip, as long as any axis of the state."""
    entry = [item for item in module.computations[module.entry] if is_input(item)]
    images = [i.arrays[0].shape[0] for i in entry if i.source.startswith("batch")]
    axes = [
        size
        for item in entry
        if item.source.startswith("state")
        for size in item.arrays[0].shape
    ]
    return max(images, default=0) * max(axes, default=0)


def is_input(item):
    """Whether an instruction of the entry is an argument of the program."""
    return item.opcode == "parameter"


def sizes_of(shape):
    """Sizes of axes in any order, without ones: `(1, 32, 3, 2) -> (2, 3, 32)`."""
    return tuple(sorted(size for size in shape if size != 1))


def float32_matmuls(module):
    """Matmuls of float32 with float32 outside FLOAT32_SCOPES, those in kernels too.

    One of float32 with bfloat16 is none: the compiler folds casts into matmuls.
    """
    breaches = []
    for items in module.computations.values():
        types = {item.name: item.arrays for item in items}
        for item in items:
            if item.target == hlo.KERNEL:
                from vit_ssl_jax.plan.kernel_cost import (
                    cost,  # parses with the TPU's dialect
                )

                for arrays in KERNEL_MATMUL.findall(cost.module_text(item)):
                    breaches.append(f"float32 matmul of {arrays}: {place(item)}")
            multiplies = item.opcode in MATMULS or CUBLAS.search(item.target)
            if not multiplies or FLOAT32_SCOPES.search(item.source):
                continue
            operands = [array for name in item.inputs[:2] for array in types[name]]
            if all(array.dtype == "f32" for array in operands):
                arrays = " x ".join(map(str, operands))
                breaches.append(f"float32 matmul of {arrays}: {place(item)}")
    return breaches


def host_transfers(module):
    """Whatever moves data between a chip and its host within the step.

    What slices exchange over their hosts' network is a collective, not a transfer.
    """
    breaches = []
    for items in module.computations.values():
        for item in items:
            sends = item.opcode in ("send", "recv")
            sends = sends and "is_host_transfer=true" in item.attributes
            sends = sends and BETWEEN_SLICES not in item.attributes
            on_host = any(array.space == HOST_SPACE for array in item.arrays)
            calls = HOST_TARGETS.search(item.target)
            if item.opcode in HOST_OPCODES or sends or on_host or calls:
                name = item.target or item.opcode
                breaches.append(f"host transfer by {name}: {place(item)}")
    return breaches


def copied_state(module):
    """Arrays of the state that the step doesn't overwrite in place."""
    return [f"not donated: {path}" for path in buffers.not_donated(module)]


def place(item):
    """Says which instruction it is, and what it came from."""
    return f"{item.name} ({item.source})" if item.source else item.name
