"""Self-attention over one short sequence at a time, its scores never in memory.

A grid step is one image. Heads narrower than 128 lanes are worked on in groups that
fill them: a head's queries are zeroed outside its own lanes, so that the product with
the whole group's keys is its own scores and nothing is moved between lanes. The
gradient computes the scores again with the keys along sublanes, which makes the sums
over keys plain additions and leaves one transposed product in five.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu

from vit_ssl_jax.kernels import calls
from vit_ssl_jax.kernels.parts import dot

LANES = 128
LOG2E = 1.4426950408889634
NEVER = -1e30  # added to the score of a key that isn't attended to


def attend(layer, qkv, keys, out, *, heads, vmem=calls.VMEM, interpret=False):
    """Multi-head attention of layer `layer`: `qkv [L R 3D] -> out [L R D]`, bfloat16.

    `keys [B 8 P]` float32 is added to the scores of image b's keys: 0, or `NEVER`
    for padding (its eight rows are equal). `out` is the buffer to write into.
    """
    images, _, tokens = keys.shape
    width = qkv.shape[-1] // 3
    return calls.call(
        functools.partial(_forward, heads=heads),
        name="attend",
        grid=images,
        layer=layer,
        inputs=[
            (qkv, calls.layer_rows(tokens, 3 * width)),
            (keys, calls.image(8, tokens)),
        ],
        buffers=[(out, calls.layer_rows(tokens, width))],
        vmem=vmem,
        interpret=interpret,
    )[0]


def attend_backward(layer, qkv, keys, grad, *, heads, vmem=calls.VMEM, interpret=False):
    """Gradient of `attend`: `grad [R D] -> [R 3D]` bfloat16."""
    images, _, tokens = keys.shape
    rows, width = grad.shape
    out = jax.ShapeDtypeStruct((rows, 3 * width), grad.dtype)
    return calls.call(
        functools.partial(_backward, heads=heads),
        name="attend_backward",
        grid=images,
        layer=layer,
        inputs=[
            (qkv, calls.layer_rows(tokens, 3 * width)),
            (keys, calls.image(8, tokens)),
            (grad, calls.rows(tokens, width)),
        ],
        outputs=[(out, calls.rows(tokens, 3 * width))],
        vmem=vmem,
        interpret=interpret,
    )[0]


def _groups(width, heads):
    """Lanes `[start, stop)` of every group of heads, and the heads in a group."""
    head = width // heads
    size = LANES // head if LANES % head == 0 else 1
    size = size if heads % size == 0 else 1
    step = head * size
    return [slice(i, i + step) for i in range(0, width, step)], size


def _members(size, lanes):
    """Masks `[1 lanes]` of a group's heads, True on a head's own; None if alone."""
    if size == 1:
        return [None]
    lane, head = jax.lax.broadcasted_iota(jnp.int32, (1, lanes), 1), lanes // size
    return [(lane >= i * head) & (lane < (i + 1) * head) for i in range(size)]


def _own(mine, x, other=0):
    """Keeps `x` on the head's own lanes (`mine`), has `other` elsewhere."""
    return x if mine is None else jnp.where(mine, x, jnp.full_like(x, other))


def _forward(qkv_ref, keys_ref, out_ref, *, heads):
    width = out_ref.shape[-1]
    groups, size = _groups(width, heads)
    scale, bias = (width // heads) ** -0.5 * LOG2E, keys_ref[0:1, :] * 1.0
    outs = []
    for lanes in groups:
        q, k, v = (_part(qkv_ref, i, lanes, width) for i in range(3))
        sums, members = [], _members(size, lanes.stop - lanes.start)
        for mine in members:
            scores = dot(_own(mine, q), k, 1, 1) * scale + bias
            p = jnp.exp2(scores - scores.max(axis=1, keepdims=True))
            low = p.astype(v.dtype)
            # Other heads' lanes of v are 1: there the product is the sum over keys.
            sums.append(dot(low, _own(mine, v, 1), 1, 0))
            if mine is None:
                sums[0] = sums[0] / p.sum(axis=1, keepdims=True)
        outs.append(_normalized(sums, members).astype(out_ref.dtype))
        if size > 1 or (lanes.stop - lanes.start) % LANES == 0:
            out_ref[:, lanes] = outs.pop()
    if outs:
        out_ref[...] = jnp.concatenate(outs, axis=1)


def _normalized(sums, members):
    """The heads' own lanes over their own sums: `[P lanes]`."""
    size = len(sums)
    if size == 1:
        return sums[0]
    top, below = sums[0], sums[1]
    for i in range(1, size):
        top = jnp.where(members[i], sums[i], top)
        below = jnp.where(members[i], sums[(i + 1) % size], below)
    # Head i's lanes of `below` hold the sum of head i + 1.
    return top / pltpu.roll(below, top.shape[1] // size, 1)


def _backward(qkv_ref, keys_ref, grad_ref, out_ref, *, heads):
    width = grad_ref.shape[-1]
    groups, size = _groups(width, heads)
    scale, bias = (width // heads) ** -0.5, keys_ref[...].T[:, 0:1]
    outs = [[], [], []]
    for lanes in groups:
        q, k, v = (_part(qkv_ref, i, lanes, width) for i in range(3))
        grad, dq, dk, dv = grad_ref[:, lanes], 0.0, 0.0, 0.0
        for mine in _members(size, lanes.stop - lanes.start):
            q1, k1, grad1 = (_own(mine, x) for x in (q, k, grad))
            scores = dot(k, q1, 1, 1) * (scale * LOG2E) + bias  # [keys queries]
            p = jnp.exp2(scores - scores.max(axis=0, keepdims=True))
            p = p * (1.0 / p.sum(axis=0, keepdims=True))
            t = p * dot(v, grad1, 1, 1)
            ds = (t - p * t.sum(axis=0, keepdims=True)).astype(k.dtype)
            dv += dot(p.astype(k.dtype), grad1, 1, 0)
            dk += dot(ds, q1, 1, 0)
            dq += dot(ds, k1, 0, 0)
        totals = dq * scale, dk * scale, dv
        for i, total in enumerate(totals):
            outs[i].append(total.astype(out_ref.dtype))
            if size > 1 or (lanes.stop - lanes.start) % LANES == 0:
                place = slice(i * width + lanes.start, i * width + lanes.stop)
                out_ref[:, place] = outs[i].pop()
    if outs[0]:
        out_ref[...] = jnp.concatenate([*outs[0], *outs[1], *outs[2]], axis=1)


def _part(ref, i, lanes, width):
    """A group's lanes of the queries (0), keys (1) or values (2)."""
    return ref[:, i * width + lanes.start : i * width + lanes.stop]
