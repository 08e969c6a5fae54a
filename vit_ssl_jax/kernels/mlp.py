"""What follows attention in a block: projection, residual, LayerNorm, MLP, residual."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vit_ssl_jax.kernels import calls, parts

# Order of the weights: the projection's kernel `[D D]` bfloat16 and bias `[1 D]`
# float32, LayerNorm's scale and offset `[1 D]`, then kernel and bias of the two dense
# layers, `[D F]`, `[1 F]`, `[F D]`, `[1 D]`.
CHUNKS = (512, 384, 256, 128)  # columns of the hidden layer at a time


def mix(
    layer,
    stream,
    heads,
    middle,
    hidden,
    *,
    noise,
    weights,
    tile,
    style,
    interpret=False,
):
    """The block's output from its input and its attention `heads`: the next layer's.

    All are buffers: `stream [L R D]` float32, read at layer[1] and written at layer[2],
    `heads [L R D]`, and what is kept: `middle [L R D]` float32 (the stream before
    LayerNorm) and `hidden [L R F]` bfloat16 (before GELU), at layer[0].
    Returns stream, middle, hidden. `noise` as `_noise` takes it, `[R ...]`.
    """
    _, count, width = stream.shape
    wide = hidden.shape[-1]
    return calls.call(
        functools.partial(_forward, style=style),
        name="mix",
        grid=count // tile,
        layer=layer,
        inputs=[
            (stream, calls.layer_rows(tile, width, 1)),
            (heads, calls.layer_rows(tile, width)),
            *((n, calls.rows(tile, n.shape[-1])) for n in noise),
            *((w, calls.weight(w)) for w in weights),
        ],
        rewritten=[(0, calls.layer_rows(tile, width, 2))],
        buffers=[
            (middle, calls.layer_rows(tile, width)),
            (hidden, calls.layer_rows(tile, wide)),
        ],
        vmem=style.vmem,
        interpret=interpret,
    )


def mix_backward(
    layer, grad, heads, middle, hidden, *, noise, weights, tile, style, interpret=False
):
    """Gradients of `mix` from that of its output, `grad [R D]` float32.

    Returns that of `x` as far as it skips attention `[R D]`, of `heads [R D]` bfloat16,
    then of the weights.
    """
    count, width = grad.shape
    wide = hidden.shape[-1]
    row = calls.rows(tile, width)
    return calls.call(
        functools.partial(_backward, style=style),
        name="mix_backward",
        grid=count // tile,
        layer=layer,
        inputs=[
            (grad, row),
            (heads, calls.layer_rows(tile, width)),
            (middle, calls.layer_rows(tile, width)),
            (hidden, calls.layer_rows(tile, wide)),
            *((n, calls.rows(tile, n.shape[-1])) for n in noise),
            *((w, calls.weight(w)) for w in weights),
        ],
        outputs=[
            (jax.ShapeDtypeStruct(grad.shape, grad.dtype), row),
            (jax.ShapeDtypeStruct(grad.shape, heads.dtype), row),
            calls.total((width, width)),
            calls.total((1, width)),
            calls.total((1, width)),
            calls.total((1, width)),
            calls.total((width, wide)),
            calls.total((1, wide)),
            calls.total((wide, width)),
            calls.total((1, width)),
        ],
        scratch=[
            pltpu.VMEM((width, tile), heads.dtype),
            pltpu.VMEM((tile, width), jnp.float32),
        ],
        vmem=style.vmem,
        interpret=interpret,
    )


def _chunk(wide):
    """Columns of the hidden layer at a time."""
    return next((c for c in CHUNKS if wide % c == 0), wide)


def _noise(refs, style):
    """Makes a tile's `drop(site, shape, start)`, `scale(x, branch)`; and other refs."""
    refs, scales, seed = list(refs), None, None
    if refs[0].shape[-1] == 2:
        scales = refs.pop(0)[...]
    if refs[0].shape[-1] == 1:
        seed = refs.pop(0)[...]

    def drop(site, shape, start=0):
        """Factors that dropout multiplies values of this shape with."""
        if seed is None:
            return 1.0
        return parts.kept(seed, site, start, shape[1], style.dropout)

    def scale(x, branch):
        return x if scales is None else x * scales[:, branch : branch + 1]

    return drop, scale, refs


def _forward(x_ref, heads_ref, *refs, style):
    drop, scale, refs = _noise(refs, style)
    wo, bo, gain, offset, w1, b1, w2, b2, out_ref, middle_ref, hidden_ref = refs
    low = hidden_ref.dtype
    branch = (parts.dot(heads_ref[...], wo[...]) + bo[...]) * drop(0, out_ref.shape)
    x = x_ref[...] + scale(branch, 0)
    middle_ref[...] = x
    y = (parts.standardize(x, style.eps)[0] * gain[...] + offset[...]).astype(low)
    wide, size = hidden_ref.shape[-1], _chunk(hidden_ref.shape[-1])
    out_ref[...] = jnp.broadcast_to(b2[...], out_ref.shape)

    def step(i, carry):
        start = pl.multiple_of(i * size, size)
        at = pl.ds(start, size)
        u = (parts.dot(y, w1[:, at]) + b1[:, at]).astype(low)
        hidden_ref[:, at] = u
        g, _ = parts.gelu(u.astype(jnp.float32), style.exact)
        g = g * drop(1, u.shape, start)
        out_ref[...] += parts.dot(g.astype(low), w2[at, :])
        return carry

    jax.lax.fori_loop(0, wide // size, step, 0, unroll=style.unroll)
    branch = out_ref[...] * drop(2, out_ref.shape)
    out_ref[...] = middle_ref[...] + scale(branch, 1)


def _backward(grad_ref, heads_ref, middle_ref, hidden_ref, *refs, style):
    drop, scale, refs = _noise(refs, style)
    wo, _, gain, offset, w1, _, w2, _, skip_ref, heads_grad, *refs = refs
    *sums, y_turned, dy = refs
    dwo, dbo, dgain, doffset, dw1, db1, dw2, db2 = sums
    calls.zero_at_start(*sums)
    low = hidden_ref.dtype
    unit, rate = parts.standardize(middle_ref[...], style.eps)
    y_turned[...] = (unit * gain[...] + offset[...]).astype(low).T
    grad = scale(grad_ref[...], 1) * drop(2, grad_ref.shape)
    db2[...] += grad.sum(axis=0, keepdims=True)
    grad = grad.astype(low)
    dy[...] = jnp.zeros_like(dy)
    size = _chunk(hidden_ref.shape[-1])

    def step(i, carry):
        start = pl.multiple_of(i * size, size)
        at = pl.ds(start, size)
        g, slope = parts.gelu(hidden_ref[:, at].astype(jnp.float32), style.exact)
        kept = drop(1, g.shape, start)
        dw2[at, :] += parts.dot((g * kept).astype(low).T, grad)
        du = parts.dot(grad, w2[at, :], 1, 1) * (slope * kept)
        db1[:, at] += du.sum(axis=0, keepdims=True)
        du = du.astype(low)
        dw1[:, at] += parts.dot(y_turned[...], du)
        dy[...] += parts.dot(du, w1[:, at], 1, 1)
        return carry

    jax.lax.fori_loop(0, hidden_ref.shape[-1] // size, step, 0, unroll=style.unroll)
    dgain[...] += (dy[...] * unit).sum(axis=0, keepdims=True)
    doffset[...] += dy[...].sum(axis=0, keepdims=True)
    dx = parts.standardize_backward(unit, rate, dy[...] * gain[...])
    dx = grad_ref[...] + dx
    skip_ref[...] = dx
    branch = scale(dx, 0) * drop(0, dx.shape)
    dbo[...] += branch.sum(axis=0, keepdims=True)
    branch = branch.astype(low)
    dwo[...] += parts.dot(heads_ref[...].T, branch)
    heads_grad[...] = parts.dot(branch, wo[...], 1, 1).astype(low)
