"""Blocks by fused TPU kernels, where the chip, the shapes and the mesh allow it.

The parameters are those of `stack.Blocks`, and so is the result up to rounding; the
plain blocks are what it is tested against.
"""

import functools

import jax
import jax.numpy as jnp

from vit_ssl_jax import partition
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.kernels import layer, stack
from vit_ssl_jax.kernels.attention import NEVER
from vit_ssl_jax.models import device
from vit_ssl_jax.models.fused import exchange

OLDEST_JAX = 0, 9, 2  # with which kernels were tried
# Bytes that kernels ask for at least: what the compiler fuses with them needs some, too,
# and with ViT-S it was more than what `needed` counts.
ASKED = 28 << 20
LEAST = 0.5  # of a product's rows that must be of use
LONGEST = 640  # tokens: the scores of a head stay in VMEM
UNROLLED = (
    12  # bytes a weight where loops are: the compiler took 8.5 for ViT-B, 10.5 for L
)
# Bytes beside a core that collectives under way may use: the first that leaves kernels
# enough (the second is for ViT-H on v6e).
UNDER_WAY = 20 << 20, 17 << 20
# By the name of the device: memory beside a core that kernels may use, in bytes; how much
# of it the compiler takes for itself; and whether its matrix units are so fast that loops
# in kernels hold them up.
CHIPS = {
    "TPU v5 lite": (124 << 20, 4 << 20, False),
    "TPU v5": (60 << 20, 4 << 20, False),
    "TPU v6 lite": (124 << 20, 14 << 20, True),
    "TPU7x": (60 << 20, 4 << 20, True),
}


def choose(blocks, shape):
    """Chooses how kernels run `stack.Blocks` on `[B N D]`: `layer.BlockStyle` or None.

    None where they can't (`find_style`) or `config.vit.kernels` is "plain". Raises
    UserError where they can't and it is "fused", but on GPUs, whose blocks are plain
    around a fused attention.
    """
    if blocks.style.kernels == "plain":
        return None
    style, reason = find_style(blocks, shape)
    if reason and blocks.style.kernels == "fused" and device.platform() != "gpu":
        raise UserError(
            f"config.vit.kernels: 'fused' can't be for tokens [B N D] = {list(shape)}: "
            f"{reason}; --config.vit.kernels=auto takes the plain blocks there"
        )
    return style


def find_style(blocks, shape):
    """Finds `(layer.BlockStyle, "")` for `[B N D]`, or `(None, why there is none)`."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.abstract_device is None:
        return None, "there is no device mesh"
    kind = mesh.abstract_device.device_kind
    if kind not in CHIPS:
        return None, f"{kind} has no kernels ({', '.join(CHIPS)} have)"
    if jax.__version_info__ < OLDEST_JAX:
        wanted = ".".join(map(str, OLDEST_JAX))
        return None, f"jax {jax.__version__} is older than {wanted}, which kernels need"
    if blocks.form != type(blocks.form)():
        return None, "they have no rope, layerscale, SwiGLU or qkv_bias (the variant)"
    if blocks.style.dtype != "bfloat16":
        return None, f"they need bfloat16, not {blocks.style.dtype} (config.vit.dtype)"
    room, own, fast = CHIPS[kind]
    batch, tokens, width = shape
    ways = partition.ways(mesh)
    if mesh.shape["tensor"] > 1:
        return None, "heads are split over devices (config.mesh.tensor)"
    if width % 128 or blocks.hidden % 128:
        return None, f"width {width} and MLP {blocks.hidden} must be multiples of 128"
    if tokens > LONGEST:
        return None, f"{tokens} tokens an image are more than {LONGEST}"
    if batch % ways:
        return None, f"{batch} images don't divide over {ways} devices"
    rows = batch // ways * padded(tokens)
    rooms = [room - own - under_way for under_way in (UNDER_WAY if ways > 1 else [0])]
    tiles = [choose_tile(rows, width, blocks.hidden, room) for room in rooms]
    tile, room = next((pair for pair in zip(tiles, rooms) if pair[0]), (None, 0))
    if tile is None:
        return None, f"a layer and a tile of its {rows} rows don't fit into VMEM"
    unroll = fast and needed(tile, width, blocks.hidden, UNROLLED) <= room
    style = blocks.style
    return layer.BlockStyle(
        heads=blocks.heads,
        eps=style.norm_eps,
        exact=style.gelu == "exact",
        dropout=blocks.dropout,
        keep=style.remat != "full",
        tile=tile,
        unroll=unroll,
        # What is unrolled holds more at once; there kernels ask for all there is.
        vmem=own + (room if fast else max(needed(tile, width, blocks.hidden), ASKED)),
    ), ""


def choose_tile(rows, width, hidden, room):
    """Rows at a time: of the divisors of `rows` that fit, the one that wastes least.

    None where none does, or all waste too much.
    """

    def fits(tile):
        return needed(tile, width, hidden) <= room

    def useful(tile):  # share of the rows that a product over them works on
        return tile / (-(-tile // 128) * 128)

    if rows < 128:
        return rows if fits(128) else None
    tiles = [t for t in range(512, 0, -8) if rows % t == 0 and fits(t)]
    tiles = [t for t in tiles if useful(t) >= LEAST]
    return max(tiles, key=useful, default=None)


def needed(tile, width, hidden, each=6):
    """Bytes of VMEM for the MLP's way back, the kernel that needs the most.

    `each` bytes a weight, for it in bfloat16 and its gradient in float32; and tiles of
    rows.
    """
    weights = (width * width + 2 * width * hidden) * each
    return weights + tile * (52 * width + 6 * hidden)


def padded(tokens):
    """Number of rows of an image: its tokens, filled up to whole sublanes."""
    return -(-tokens // 8) * 8


def draw_noise(blocks, batch, train):
    """Draws for every layer and image: scales `[L B 2]` and seeds `[L B]`, or Nones."""
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


def apply(blocks, x, valid, noise, style):
    """Sends `[B N D]` float32 through all layers: `[B N D]`.

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
    """Runs all layers on rows `[R D] -> [R D]`, each device on its share of images."""
    layout = exchange.Layout(blocks, noise)

    def local(blocks, x, keys, noise):
        return stack.infer(blocks, layout.gather, x, keys, noise, style)

    return layout.map(local, "bxkn", "x")(blocks, x, keys, noise)


def through_forward(blocks, x, keys, noise, style):
    layout = exchange.Layout(blocks, noise)

    def local(blocks, x, keys, noise):
        return stack.forward(blocks, layout.gather, x, keys, noise, style)

    out, weights, residuals = layout.map(local, "bxkn", "xwr")(blocks, x, keys, noise)
    return out, (blocks, weights, keys, noise, residuals)


def through_backward(style, saved, grad):
    blocks, weights, keys, noise, residuals = saved
    layout = exchange.Layout(blocks, noise)

    def local(weights, residuals, grad, keys, noise):
        return stack.backward(
            weights, layout.reduce, residuals, grad, keys=keys, noise=noise, style=style
        )

    mapped = layout.map(local, "wrxkn", "gx")
    return *mapped(weights, residuals, grad, keys, noise), None, None


through.defvjp(through_forward, through_backward)
