"""Blocks by fused TPU kernels, where the chip, the shapes and the mesh allow it.

The parameters are those of `layers.Blocks`, and so is the result up to rounding; the
plain blocks are what it is tested against.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from vit_ssl_jax import partition
from vit_ssl_jax.kernels import stack
from vit_ssl_jax.kernels.attention import NEVER

LEAST = 0.5  # of a product's rows that must be of use
LONGEST = 640  # tokens: the scores of a head stay in VMEM
# By the name of the device: memory beside a core that kernels may use, in bytes; and
# whether its matrix units are so fast that loops in kernels hold them up.
CHIPS = {
    "TPU v5 lite": (124 << 20, False),
    "TPU v5": (60 << 20, False),
    "TPU v6 lite": (124 << 20, True),
    "TPU7x": (60 << 20, True),
}


def choose(blocks, shape):
    """How kernels would run `layers.Blocks` on `[B N D]`: a `stack.Style`, or None.

    None where they can't: another chip than a TPU with room in VMEM, float32, tensor
    parallelism, long sequences, shapes that don't fill lanes.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.abstract_device is None or blocks.style.dtype != "bfloat16":
        return None
    room, unroll = CHIPS.get(mesh.abstract_device.device_kind, (0, False))
    batch, tokens, width = shape
    lanes = all(size % 128 == 0 for size in (width, blocks.hidden))
    ways = partition.ways(mesh)
    if not lanes or tokens > LONGEST or mesh.shape["tensor"] > 1 or batch % ways:
        return None
    tile = choose_tile(batch // ways * padded(tokens), width, blocks.hidden, room)
    if tile is None:
        return None
    style = blocks.style
    return stack.Style(
        heads=blocks.heads,
        eps=style.norm_eps,
        exact=style.gelu == "exact",
        dropout=blocks.dropout,
        keep=style.remat != "full",
        tile=tile,
        unroll=unroll,
    )


def choose_tile(rows, width, hidden, room):
    """Rows at a time: of the divisors of `rows` that fit, the one that wastes least.

    None where none does, or all waste too much. The MLP's way back needs the most
    memory: its weights in bfloat16 and their gradients in float32, and tiles of rows.
    """
    weights = (width * width + 2 * width * hidden) * 6

    def fits(tile):
        return weights + tile * (52 * width + 6 * hidden) + (4 << 20) <= room

    def useful(tile):  # share of the rows that a product over them works on
        return tile / (-(-tile // 128) * 128)

    if rows < 128:
        return rows if fits(128) else None
    tiles = [t for t in range(512, 0, -8) if rows % t == 0 and fits(t)]
    tiles = [t for t in tiles if useful(t) >= LEAST]
    return max(tiles, key=useful, default=None)


def padded(tokens):
    """Rows of an image: what fills sublanes."""
    return -(-tokens // 8) * 8


def draw_noise(blocks, batch, train):
    """What the images of every layer draw: scales `[L B 2]`, seeds `[L B]`, or None."""
    scales = seeds = None
    if train and blocks.droppath:
        keep = 1.0 - jnp.linspace(0.0, blocks.droppath, blocks.depth)[:, None, None]
        shape = blocks.depth, batch, 2
        kept = jax.random.bernoulli(blocks.make_rng("dropout"), keep, shape)
        scales = kept / keep
    if train and blocks.dropout:
        key = blocks.make_rng("dropout")
        seeds = jax.random.bits(key, (blocks.depth, batch)).astype(jnp.int32)
    return scales, seeds


def run(blocks, x, valid, noise, style):
    """`[B N D]` float32 through all layers: `[B N D]`.

    `blocks` are the parameters with a layer axis in front; `valid [B N]` or None;
    `noise` as in `stack.forward`.
    """
    batch, tokens, width = x.shape
    rows = padded(tokens)
    if valid is None:
        valid = jnp.ones((batch, tokens), bool)
    valid = jnp.pad(valid, ((0, 0), (0, rows - tokens)))
    keys = jnp.where(valid, 0.0, NEVER)[:, None].repeat(8, axis=1)
    x = jnp.pad(x, ((0, 0), (0, rows - tokens), (0, 0))).reshape(-1, width)
    x = through(blocks, partition.pin_batch(x), keys, noise, style)
    return partition.pin_batch(x.reshape(batch, rows, width)[:, :tokens])


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def through(blocks, x, keys, noise, style):
    """All layers on rows: `[R D] -> [R D]`, each device on its share of the images."""
    layout = Layout(blocks, noise)

    def local(blocks, x, keys, noise):
        return stack.infer(blocks, layout.gather, x, keys, noise, style)

    return layout.map(local, "bxkn", "x")(blocks, x, keys, noise)


def through_forward(blocks, x, keys, noise, style):
    layout = Layout(blocks, noise)

    def local(blocks, x, keys, noise):
        return stack.forward(blocks, layout.gather, x, keys, noise, style)

    mapped = layout.map(local, "bxkn", "xbr")
    out, blocks, residuals = mapped(blocks, x, keys, noise)
    return out, (blocks, keys, noise, residuals)


def through_backward(style, saved, grad):
    blocks, keys, noise, residuals = saved
    layout = Layout(blocks, noise)

    def local(blocks, residuals, grad, keys, noise):
        return stack.backward(
            blocks,
            layout.gather,
            layout.reduce,
            residuals,
            grad,
            keys,
            noise,
            style,
        )

    mapped = layout.map(local, "brxkn", "gx")
    return *mapped(blocks, residuals, grad, keys, noise), None, None


through.defvjp(through_forward, through_backward)


class Layout:
    """Where the stack's arrays live, and how a layer's parameters come together."""

    def __init__(self, blocks, noise):
        self.mesh = jax.sharding.get_abstract_mesh()
        images = PartitionSpec(None, *partition.BATCH)
        self.blocks = self.grads = None
        split = not self.mesh.empty and self.mesh.shape["fsdp"] > 1
        self.gather = self.join if split else None
        if not self.mesh.empty:
            self.blocks = partition.specs(blocks, self.mesh)
            self.grads = partition.specs(blocks, self.mesh, partition.MOMENTS)
        self.specs = {
            "b": self.blocks,
            "g": self.grads,
            "x": partition.BATCH,
            "k": partition.BATCH,
            "n": jax.tree.map(lambda _: images, noise),
            "r": images,
        }

    def map(self, function, inputs, outputs):
        """`function` on every device's share; letters name the arrays' layouts."""
        if self.mesh.empty:
            return function
        outs = tuple(self.specs[name] for name in outputs)
        return jax.shard_map(
            function,
            in_specs=tuple(self.specs[name] for name in inputs),
            out_specs=outs if len(outs) > 1 else outs[0],
            check_vma=False,
        )

    def join(self, block):
        """A layer's parameters `[1 ...]` made whole."""

        def leaf(x, spec):
            if "fsdp" not in spec:
                return x
            return jax.lax.all_gather(x, "fsdp", axis=spec.index("fsdp"), tiled=True)

        return jax.tree.map(leaf, block, self.blocks)

    def reduce(self, grads):
        """A layer's gradients summed over devices, each left where its moments are."""

        def leaf(x, spec):
            for split, rest in ((("fsdp", "data"), ()), ("fsdp", "data")):
                if split in spec:
                    axis = spec.index(split) - 1  # there is no axis of layers here
                    x = jax.lax.psum_scatter(
                        x, split, scatter_dimension=axis, tiled=True
                    )
                    return jax.lax.psum(x, rest)
            return jax.lax.psum(x, ("data", "fsdp"))

        return grads if self.mesh.empty else jax.tree.map(leaf, grads, self.grads)
