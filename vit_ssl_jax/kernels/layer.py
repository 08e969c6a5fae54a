"""One transformer block by its six kernels, forward and back; the arrays around them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu

from vit_ssl_jax.kernels import attention, calls, mlp, parts, projection
from vit_ssl_jax.kernels.narrow import narrow


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockStyle:
    """Settings that all layers of a stack share."""

    heads: int
    eps: float  # of LayerNorm
    exact: bool  # GELU by erf, else by tanh
    dropout: float
    keep: bool  # all that the way back needs, else only each layer's input
    tile: int  # rows at a time, a divisor of R
    unroll: bool = False  # the MLP's loop over its hidden layer
    vmem: int = calls.VMEM  # bytes that a kernel may use
    dtype: str = "bfloat16"  # of products; float32 only where interpreted
    # Off the chip: by Pallas' interpreter (True) or its simulator of a TPU, which finds
    # races and unwritten memory (a pltpu.InterpretParams).
    interpret: bool | pltpu.InterpretParams = False


def run_layer(at, streams, buffers, weights, *, keys, noise, style):
    """One layer: `streams` with its output, `buffers` with what it kept."""
    qkv, heads, middle, hidden = buffers
    first, second = weights
    common = dict(tile=style.tile, interpret=style.interpret)
    qkv = projection.project(
        at, streams, first, qkv, eps=style.eps, vmem=style.vmem, **common
    )
    heads = attention.attend(
        at,
        qkv,
        keys,
        heads,
        heads=style.heads,
        vmem=style.vmem,
        interpret=style.interpret,
    )
    streams, middle, hidden = mlp.mix(
        at,
        streams,
        heads,
        middle,
        hidden,
        noise=noise,
        weights=second,
        style=style,
        **common,
    )
    return streams, (qkv, heads, middle, hidden)


def run_back(at, grad, streams, buffers, weights, *, keys, noise, style):
    """One layer back: the gradient of its input, and those of its weights."""
    qkv, heads, middle, hidden = buffers
    first, second = weights
    common = dict(tile=style.tile, interpret=style.interpret)
    skip, heads_grad, *second_grads = mlp.mix_backward(
        at,
        grad,
        heads,
        middle,
        hidden,
        noise=noise,
        weights=second,
        style=style,
        **common,
    )
    qkv_grad = attention.attend_backward(
        at,
        qkv,
        keys,
        heads_grad,
        heads=style.heads,
        vmem=style.vmem,
        interpret=style.interpret,
    )
    grad, *first_grads = projection.project_backward(
        at, streams, first, qkv_grad, skip, eps=style.eps, vmem=style.vmem, **common
    )
    return grad, (first_grads, second_grads)


def count_layers(blocks):
    """The number of layers L, the leading axis of every parameter."""
    return len(jax.tree.leaves(blocks)[0])


def make_buffers(blocks, rows, layers, style):
    """Room for what `layers` layers keep: queries to values, heads, middle, hidden."""
    width = blocks["norm1"]["scale"].shape[-1]
    return room(rows, width, blocks["mlp"]["up"]["bias"].shape[-1], layers, style)


def room(rows, width, wide, layers, style):
    """Room as of `make_buffers`, from sizes: a tuple of arrays `[layers rows .]`."""
    low = style.dtype
    sizes = ((3 * width, low), (width, low), (width, jnp.float32), (wide, low))
    return tuple(jax.lax.empty((layers, rows, size), dtype) for size, dtype in sizes)


def rows_of(noise, keys):
    """The noise of images repeated for their rows: `[R 2]` float32, `[R 1]` int32."""
    scales, seeds = noise
    tokens, rows = keys.shape[-1], []
    if scales is not None:
        rows.append(jnp.repeat(scales, tokens, axis=0))
    if seeds is not None:
        rows.append(parts.row_seeds(seeds, tokens).reshape(-1, 1))
    return rows


def round_kernels(blocks, style):
    """Kernels in the products' dtype, everything else as it is."""
    rounded = functools.partial(narrow, dtype=style.dtype, interpret=style.interpret)

    def leaf(path, x):
        if path[-1].key != "kernel":
            return x
        if path[-2].key == "qkv":  # `[L D 3 A E]` lies in memory with D innermost
            return jnp.moveaxis(rounded(jnp.moveaxis(x, 1, -1)), -1, 1)
        return rounded(x)

    return jax.tree_util.tree_map_with_path(leaf, blocks)


# Where the matrices are among the leaves of `split_weights`.
MATRICES = {"qkv": 2, "out": 4, "up": 8, "down": 10}


def split_weights(blocks):
    """Parameters `[L ...]` as `project` and `mix` take them, matrices `[L . .]`."""
    attn, dense = blocks["attn"], blocks["mlp"]
    layers, width = attn["out"]["bias"].shape

    def row(x):
        return x.reshape(layers, 1, -1)

    first = (
        row(blocks["norm1"]["scale"]),
        row(blocks["norm1"]["bias"]),
        jnp.moveaxis(attn["qkv"]["kernel"], 1, -1).reshape(layers, -1, width),
        row(attn["qkv"]["bias"]),
    )
    second = (
        attn["out"]["kernel"].reshape(layers, -1, width),
        row(attn["out"]["bias"]),
        row(blocks["norm2"]["scale"]),
        row(blocks["norm2"]["bias"]),
        dense["up"]["kernel"],
        row(dense["up"]["bias"]),
        dense["down"]["kernel"],
        row(dense["down"]["bias"]),
    )
    return first, second


def join_gradients(gradients, heads):
    """The kernels' gradients in the shapes of a block's parameters."""
    first, second = gradients
    scale1, offset1, qkv, qkv_bias = first
    out, out_bias, scale2, offset2, up, up_bias, down, down_bias = second
    width = qkv.shape[-1]
    return {
        "norm1": {"scale": scale1[0], "bias": offset1[0]},
        "attn": {
            "qkv": {
                "kernel": jnp.moveaxis(qkv.reshape(3, heads, -1, width), -1, 0),
                "bias": qkv_bias.reshape(3, heads, -1),
            },
            "out": {"kernel": out.reshape(heads, -1, width), "bias": out_bias[0]},
        },
        "norm2": {"scale": scale2[0], "bias": offset2[0]},
        "mlp": {
            "up": {"kernel": up, "bias": up_bias[0]},
            "down": {"kernel": down, "bias": down_bias[0]},
        },
    }
