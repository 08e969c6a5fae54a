"""A whole stack of pre-norm transformer blocks by fused kernels, forward and back.

One scan over layers each way. What the way back needs is written in place into buffers
with a layer axis, so no array of activations is ever copied.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from vit_ssl_jax.kernels import attention, mlp, parts, projection
from vit_ssl_jax.kernels.narrow import narrow


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """What all layers share."""

    heads: int
    eps: float  # of LayerNorm
    exact: bool  # GELU by erf, else by tanh
    dropout: float
    keep: bool  # all that the way back needs, else only each layer's input
    tile: int  # rows at a time, a divisor of R
    unroll: bool = False  # the MLP's loop over its hidden layer
    dtype: str = "bfloat16"  # of products; float32 only where interpreted
    interpret: bool = False


def forward(blocks, gather, stream, keys, noise, style):
    """Runs all layers: `[R D]` float32 to `[R D]`; also what `backward` needs.

    That is the parameters, their kernels rounded, and `residuals`.

    `blocks` are a block's parameters, each with a layer axis in front; `gather` makes
    those of one layer whole where they are sharded, and is None where they aren't.
    `keys [B 8 P]`: see `attention.attend`. `noise` holds what each image of a layer
    draws, or None: scales `[L B 2]` float32 of the two branches (stochastic depth) and
    seeds `[L B]` int32 (dropout).
    """
    depth = count_layers(blocks)
    buffers = make_buffers(blocks, stream.shape[0], depth if style.keep else 1, style)
    streams = jax.lax.empty((depth + 1, *stream.shape), stream.dtype)
    streams = streams.at[0].set(stream)
    blocks = round_kernels(blocks, style)
    weights_of = choose_weights(blocks, gather)

    def body(carry, xs):
        noise, i = xs
        weights, place = weights_of(i)
        at = jnp.stack([i if style.keep else 0 * i, i, i + 1, place])
        return run_layer(at, *carry, weights, keys, rows_of(noise, keys), style), None

    xs = noise, jnp.arange(depth)
    (streams, buffers), _ = jax.lax.scan(body, (streams, buffers), xs)
    return streams[-1], blocks, (streams, buffers if style.keep else None)


def infer(blocks, gather, stream, keys, noise, style):
    """`forward` without residuals: nothing is kept beyond a layer."""
    buffers = make_buffers(blocks, stream.shape[0], 1, style)
    weights_of = choose_weights(round_kernels(blocks, style), gather)

    def body(carry, xs):
        noise, i = xs
        weights, place = weights_of(i)
        at = jnp.stack([0 * i, 0 * i, 0 * i, place])
        return run_layer(at, *carry, weights, keys, rows_of(noise, keys), style), None

    xs = noise, jnp.arange(count_layers(blocks))
    (stream, _), _ = jax.lax.scan(body, (stream[None], buffers), xs)
    return stream[0]


def backward(blocks, gather, reduce, residuals, grad, keys, noise, style):
    """Gradients of the parameters and of the input `[R D]` from that of the output.

    `blocks` and `residuals` are from `forward`. `reduce` sums a layer's gradients over devices, as the parameters are laid out.
    """
    depth, (streams, buffers) = count_layers(blocks), residuals
    if not style.keep:
        buffers = make_buffers(blocks, grad.shape[0], 1, style)
    weights_of = choose_weights(blocks, gather)

    def body(carry, xs):
        noise, i = xs
        grad, streams, buffers = carry
        weights, place = weights_of(i)
        noise = rows_of(noise, keys)
        at = jnp.stack([i if style.keep else 0 * i, i, i + 1, place])
        if not style.keep:
            streams, buffers = run_layer(
                at, streams, buffers, weights, keys, noise, style
            )
        grad, own = run_back(at, grad, streams, buffers, weights, keys, noise, style)
        own = reduce(join_gradients(*own, style.heads))
        return (grad, streams, buffers), own

    xs = noise, jnp.arange(depth)
    carry = grad, streams, buffers
    (grad, *_), grads = jax.lax.scan(body, carry, xs, reverse=True)
    return grads, grad


def choose_weights(blocks, gather):
    """`layer -> weights, their index`: of all layers as they are, or of one gathered."""
    if gather is None:
        weights = split_weights(blocks)
        return lambda i: (weights, i)

    def weights_of(i):
        one = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i, 1), blocks)
        return split_weights(gather(one)), 0 * i

    return weights_of


def run_layer(at, streams, buffers, weights, keys, noise, style):
    """One layer: `streams` with its output, `buffers` with what it kept."""
    qkv, heads, middle, hidden = buffers
    first, second = weights
    common = dict(tile=style.tile, interpret=style.interpret)
    qkv = projection.project(at, streams, first, qkv, eps=style.eps, **common)
    heads = attention.attend(
        at, qkv, keys, heads, heads=style.heads, interpret=style.interpret
    )
    streams, middle, hidden = mlp.mix(
        at, streams, heads, noise, second, middle, hidden, style=style, **common
    )
    return streams, (qkv, heads, middle, hidden)


def run_back(at, grad, streams, buffers, weights, keys, noise, style):
    """One layer back: the gradient of its input, and those of its weights."""
    qkv, heads, middle, hidden = buffers
    first, second = weights
    common = dict(tile=style.tile, interpret=style.interpret)
    skip, heads_grad, *second_grads = mlp.mix_backward(
        at, grad, heads, noise, second, middle, hidden, style=style, **common
    )
    qkv_grad = attention.attend_backward(
        at, qkv, keys, heads_grad, heads=style.heads, interpret=style.interpret
    )
    grad, *first_grads = projection.project_backward(
        at, streams, first, qkv_grad, skip, eps=style.eps, **common
    )
    return grad, (first_grads, second_grads)


def count_layers(blocks):
    """L, the leading axis of every parameter."""
    return len(jax.tree.leaves(blocks)[0])


def make_buffers(blocks, rows, layers, style):
    """Room for what `layers` layers keep: queries to values, heads, middle, hidden."""
    width = blocks["norm1"]["scale"].shape[-1]
    wide = blocks["mlp"]["up"]["bias"].shape[-1]
    low = style.dtype
    room = ((3 * width, low), (width, low), (width, jnp.float32), (wide, low))
    return tuple(jax.lax.empty((layers, rows, size), dtype) for size, dtype in room)


def rows_of(noise, keys):
    """What images draw as their rows take it: `[R 2]` float32, `[R 1]` int32."""
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


def join_gradients(first, second, heads):
    """The kernels' gradients in the shapes of a block's parameters."""
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
