"""What devices that share a stack of fused blocks send each other, and in what form."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from vit_ssl_jax import partition
from vit_ssl_jax.kernels import packing

FEW = 16  # stretches of rows that are read one by one


class Layout:
    """How a stack's arrays lie on the devices, and how a layer's come together.

    `gather` and `reduce` are what `kernels.stack` asks for, None where there is nothing
    to do.
    """

    def __init__(self, blocks, noise):
        self.mesh = jax.sharding.get_abstract_mesh()
        images = PartitionSpec(None, *partition.BATCH)
        self.blocks = self.grads = self.gather = self.reduce = None
        self.layer = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), blocks
        )
        if not self.mesh.empty:
            self.blocks = partition.specs(blocks, self.mesh)
            self.grads = partition.specs(blocks, self.mesh, partition.MOMENTS)
            if self.mesh.shape["fsdp"] > 1:
                self.gather = self.pack, self.send, self.join, self.moves
            if partition.ways(self.mesh) > 1:
                self.reduce = self.pack_gradients, self.sum_up, self.keep_own
        self.specs = {
            "b": self.blocks,
            "w": PartitionSpec(),
            "g": self.grads,
            "x": partition.BATCH,
            "k": partition.BATCH,
            "n": jax.tree.map(lambda _: images, noise),
            "r": images,
        }

    def map(self, function, inputs, outputs):
        """Makes `function` run on each device's share; letters name `specs`."""
        if self.mesh.empty:
            return function
        outs = tuple(self.specs[name] for name in outputs)
        return jax.shard_map(
            function,
            in_specs=tuple(self.specs[name] for name in inputs),
            out_specs=outs if len(outs) > 1 else outs[0],
            check_vma=False,
        )

    def pack(self, blocks):
        """The shards of all layers' parameters, to be sent: `[L rows columns]`."""

        def one(block):
            return packing.pack([matrix(x) for x, *_ in self.shards(block)])

        return jax.vmap(one)(blocks)

    def shards(self, block):
        """Split parameters of a layer: `[(shard, split axis, order, name)]`.

        A shard's axes are in `memory_order`, but the last one isn't split: where it
        would be, the name is "", else it is the matrix's.
        """
        shards = []
        leaves = jax.tree_util.tree_leaves_with_path(block)
        for (path, x), spec in zip(leaves, jax.tree.leaves(self.blocks), strict=True):
            if "fsdp" in spec:
                order, split = memory_order(path, x.ndim), spec.index("fsdp") - 1
                name = path[-2].key
                if order[-1] == split:
                    order, name = order[-1:] + order[:-1], ""
                axis = order.index(split)
                shards.append((jnp.transpose(x, order), axis, order, name))
        return shards

    def send(self, shard):
        """Sends a layer of `pack`: all devices' parts of it, `[ways rows columns]`."""
        return jax.lax.all_gather(shard, "fsdp")

    def join(self, received, block):
        """Makes a layer's parameters `[1 ...]` whole from what was received."""
        shards = self.shards(jax.tree.map(lambda x: x[0], block))
        pieces = packing.pieces(received, [matrix(x) for x, *_ in shards])
        pairs = iter(zip(pieces, shards, strict=True))

        def leaf(x, spec):
            if "fsdp" not in spec:
                return x
            piece, (shard, axis, order, _) = next(pairs)
            sizes = list(shard.shape)
            all_shards = packing.whole(piece).reshape(-1, *sizes)
            sizes[axis] *= len(all_shards)
            x = jnp.moveaxis(all_shards, 0, axis).reshape(sizes)
            return jnp.transpose(x, np.argsort(order))[None]

        return jax.tree.map(leaf, block, self.blocks)

    def moves(self, block):
        """Parts of what is received, `{matrix: parts}`, as `placing.place` takes them.

        Left out are matrices that aren't split, and those whose parts lie in another
        order in memory than in the whole.
        """
        ways, moves, start = self.mesh.shape["fsdp"], {}, 0
        shards = self.shards(jax.tree.map(lambda x: x[0], block))
        columns = packing.shape([matrix(x) for x, *_ in shards])[1]
        for shard, axis, _, name in shards:
            rows, width = matrix(shard).shape
            length = math.prod(shard.shape[axis:-1])
            if name:
                moves[name] = [
                    (
                        sender,
                        start + piece * rows + i * length,
                        length,
                        (i * ways + sender) * length,
                        piece * columns,
                    )
                    for sender in range(ways)
                    for piece in range(width // columns)
                    for i in range(rows // length)
                ]
            start += rows * width // columns
        return moves

    def pack_gradients(self, grads):
        """A layer's gradients on this device: `[rows columns]`, those of kernels first.

        So they begin at whole tiles.
        """
        leaves, parts = jax.tree.leaves(grads), self.parts()
        return packing.pack(
            [
                matrix(jnp.transpose(leaves[at].reshape(shape), order))
                for at, shape, _, order in parts
            ]
        )

    def sum_up(self, packed):
        """Packed gradients summed over devices.

        The barrier keeps the sum from becoming a scatter, which nothing can hide.
        """
        return jax.lax.optimization_barrier(jax.lax.psum(packed, ("data", "fsdp")))

    def keep_own(self, packed):
        """This device's part of a layer's summed gradients, shaped as parameters."""
        params, structure = jax.tree.flatten(self.layer)
        start = 0
        for at, shape, names, order in self.parts():
            size, split = [shape[i] for i in order], [names[i] for i in order]
            rows, columns = math.prod(size[:-1]), packed.shape[-1]
            count = size[-1] // columns
            x = own_rows(packed, start, count, size[:-1], split[:-1])
            own = *x.shape[1:-1], size[-1]
            x = packing.whole(x.reshape(count, -1, columns)).reshape(own)
            x = jnp.transpose(own_part(x, -1, split[-1]), np.argsort(order))
            params[at] = x if any(names) else x.reshape(params[at].shape)
            start += count * rows
        return jax.tree.unflatten(structure, params)

    def parts(self):
        """Lists a layer's parameters, kernels first: `[(leaf, shape, names, order)]`.

        `names` of the mesh split the axes of `shape`, `order` is their `memory_order`.
        Biases and scales, which are never split, are rows `[1 w]`.
        """
        kernels, others = [], []
        leaves = jax.tree_util.tree_leaves_with_path(self.layer)
        specs = jax.tree.leaves(self.grads)
        for at, ((path, x), spec) in enumerate(zip(leaves, specs, strict=True)):
            shape, names = x.shape, (*spec[1:], *[None] * (x.ndim - len(spec[1:])))
            if path[-1].key != "kernel":
                others.append((at, (1, math.prod(shape)), (None, None), [0, 1]))
            else:
                kernels.append((at, shape, names, memory_order(path, x.ndim)))
        return kernels + others


def memory_order(path, ndim):
    """The axes of a layer's parameter as they lie in memory."""
    order = list(range(ndim))
    if path[-2].key == "qkv" and path[-1].key == "kernel":
        order = order[1:] + order[:1]  # the width lies innermost
    return order


def own_rows(packed, start, count, size, split):
    """This device's rows of a packed parameter: `[rows columns] -> [count *own columns]`.

    It lies from row `start` on as `count` pieces of rows `size`, whose axes the names in
    `split` split. What of the first such axis is this device's is read alone, as few
    long stretches; where it is many short ones, all of it is.
    """
    columns, rows = packed.shape[-1], math.prod(size)
    first = next((k for k, name in enumerate(split) if name), None)
    stretches = count * math.prod(size[:first])
    if first is None or stretches > FEW:
        x = jax.lax.slice_in_dim(packed, start, start + count * rows)
        first = -1
    else:
        inner = math.prod(size[first + 1 :])
        step = size[first] * inner
        size = [*size]
        size[first] //= jax.lax.axis_size(split[first])
        length = size[first] * inner
        begin = start + jax.lax.axis_index(split[first]) * length
        x = jnp.concatenate(
            [
                jax.lax.dynamic_slice_in_dim(packed, begin + i * step, length)
                for i in range(stretches)
            ]
        )
    x = x.reshape(count, *size, columns)
    for axis, name in enumerate(split):
        x = own_part(x, axis + 1, name if axis > first else None)
    return x


def own_part(x, axis, name):
    """This device's part of an axis that the mesh's axes `name` split, if any do."""
    if not name:
        return x
    size = x.shape[axis] // jax.lax.axis_size(name)
    start = jax.lax.axis_index(name) * size
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis)


def matrix(x):
    """Flattens all axes but the last: `[... w] -> [r w]`."""
    return x.reshape(-1, x.shape[-1])
