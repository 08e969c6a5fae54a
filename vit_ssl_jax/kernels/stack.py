"""A whole stack of pre-norm transformer blocks by fused kernels, forward and back.

One scan over layers each way. What the way back needs is written in place into buffers
with a layer axis, so no array of activations is ever copied. What devices send each
other is under way while kernels run.
"""

import jax
import jax.numpy as jnp

from vit_ssl_jax.kernels import layer, placing


def forward(blocks, gather, stream, keys, noise, style):
    """Runs all layers: `[R D]` float32 to `[R D]`; also what `backward` needs.

    That is the weights of all layers, whole and rounded, and `residuals`.

    `blocks` are a block's parameters, each with a layer axis in front; `gather` is None
    where they are whole, else see `run_ahead`. `keys [B 8 P]`: see
    `attention.attend`. `noise` holds what each image of a layer draws, or None: scales
    `[L B 2]` float32 of the two branches (stochastic depth) and seeds `[L B]` int32
    (dropout).
    """
    depth = layer.count_layers(blocks)
    buffers = layer.make_buffers(
        blocks, stream.shape[0], depth if style.keep else 1, style
    )
    streams = jax.lax.empty((depth + 1, *stream.shape), stream.dtype)
    streams = streams.at[0].set(stream)

    def body(carry, noise, i, weights):
        at = jnp.stack([i if style.keep else 0 * i, i, i + 1, i])
        return layer.run_layer(
            at,
            *carry,
            weights,
            keys=keys,
            noise=layer.rows_of(noise, keys),
            style=style,
        )

    carry = streams, buffers
    (streams, buffers), weights = run_ahead(
        body, carry, noise, blocks, gather, style, keep=True
    )
    return streams[-1], weights, (streams, buffers if style.keep else None)


def infer(blocks, gather, stream, keys, noise, style):
    """Runs all layers as `forward`, but keeps nothing beyond a layer: no residuals."""
    buffers = layer.make_buffers(blocks, stream.shape[0], 1, style)

    def body(carry, noise, i, weights):
        at = jnp.stack([0 * i, 0 * i, 0 * i, i if gather is None else 0 * i])
        return layer.run_layer(
            at,
            *carry,
            weights,
            keys=keys,
            noise=layer.rows_of(noise, keys),
            style=style,
        )

    carry = stream[None], buffers
    (stream, _), _ = run_ahead(body, carry, noise, blocks, gather, style, keep=False)
    return stream[0]


def run_ahead(body, carry, noise, blocks, gather, style, *, keep):
    """Runs `body(carry, noise, i, weights)` of all layers: `carry`, and all weights.

    Where matrices are split over devices, `gather` is four functions: `pack` makes of
    all layers' shards what is to be sent, `[L ...]`; `send` takes that of a layer and
    gives what all sent; `join` makes the layer's parameters whole with it, and `moves`
    has the parts to copy (`placing.place`) of the matrices for which that is all. What
    is sent is under way while the layer before it runs. `body` gets the weights of all
    layers; where they are sent and not to be kept, one layer's.
    """
    blocks = layer.round_kernels(blocks, style)
    depth = layer.count_layers(blocks)
    whole = layer.split_weights(blocks)
    if gather is None:

        def run(carry, xs):
            return body(carry, *xs, whole), None

        return jax.lax.scan(run, carry, (noise, jnp.arange(depth)))[0], whole
    pack, send, join, moves = gather
    packed, structure = pack(blocks), jax.tree.structure(whole)

    def fetch(i):
        return send(jax.lax.dynamic_index_in_dim(packed, i, keepdims=False))

    def unpack(sent, block):
        return jax.tree.leaves(layer.split_weights(join(sent, block)))

    def run_one(carry, xs):
        carry, sent, kept = carry
        noise, i, block = xs
        block = jax.tree.map(lambda x: x[None], block)
        # Kernels read a copy of what came, and more is sent only once that is made: the
        # compiler runs those twice that read what a collective under way will replace.
        at = i if keep else 0 * i
        kept = put_weights(kept, sent, unpack(sent, block), moves(block), at, style)
        kept, after = jax.lax.optimization_barrier(
            (kept, jnp.minimum(i + 1, depth - 1))
        )
        following = fetch(after)
        weights = jax.tree.unflatten(structure, kept)
        return (body(carry, noise, i, weights), following, kept), None

    first = jax.tree.map(lambda x: x[:1], blocks)
    shapes = jax.eval_shape(unpack, jax.eval_shape(fetch, 0), first)
    kept = empty_weights(jax.tree.leaves(whole), shapes, depth if keep else 1)
    xs = noise, jnp.arange(depth), blocks
    (carry, _, kept), _ = jax.lax.scan(run_one, (carry, fetch(0), kept), xs)
    return carry, jax.tree.unflatten(structure, kept)


def empty_weights(whole, shapes, layers):
    """Room for the weights of so many layers, each as `shapes [1 . .]`.

    Biases and scales, which are never split, are there already where all layers are.
    """
    return [
        rows
        if len(rows) == layers and one.shape[1] == 1
        else jax.lax.empty((layers, *one.shape[1:]), one.dtype)
        for rows, one in zip(whole, shapes, strict=True)
    ]


def put_weights(kept, sent, new, moves, i, style):
    """The weights `kept [L . .]` with those of layer `i` in place: `new [1 . .]`."""
    kept = list(kept)
    parts = {
        layer.MATRICES[name]: parts
        for name, parts in moves.items()
        if style.interpret or placing.fits(parts)
    }
    for at, one in enumerate(new):
        if at not in parts and (one.shape[1] > 1 or len(kept[at]) == 1):
            put = jax.lax.dynamic_update_slice_in_dim
            kept[at] = put(kept[at], one, i, 0)
    if parts:
        arrays = [kept[at] for at in parts]
        placed = placing.place(
            i, sent, arrays, list(parts.values()), interpret=style.interpret
        )
        for at, array in zip(parts, placed, strict=True):
            kept[at] = array
    return kept


def backward(weights, reduce, residuals, grad, *, keys, noise, style):
    """Gradients of the parameters and of the input `[R D]` from that of the output.

    `weights` and `residuals` are from `forward`; `reduce` is None on one device, else
    see `sum_behind`.
    """
    streams, buffers = residuals
    if not style.keep:
        rows, width = grad.shape
        buffers = layer.room(rows, width, weights[1][4].shape[-1], 1, style)

    def body(carry, noise, i):
        grad, streams, buffers = carry
        noise = layer.rows_of(noise, keys)
        at = jnp.stack([i if style.keep else 0 * i, i, i + 1, i])
        if not style.keep:
            streams, buffers = layer.run_layer(
                at, streams, buffers, weights, keys=keys, noise=noise, style=style
            )
        grad, own = layer.run_back(
            at,
            grad,
            streams,
            buffers,
            weights,
            keys=keys,
            noise=noise,
            style=style,
        )
        return (grad, streams, buffers), own

    carry = grad, streams, buffers
    xs = noise, jnp.arange(layer.count_layers(weights))
    if reduce is not None:
        (grad, *_), grads = sum_behind(body, carry, xs, reduce, style.heads)
        return grads, grad

    def run(carry, xs):
        carry, own = body(carry, *xs)
        return carry, layer.join_gradients(own, style.heads)

    (grad, *_), grads = jax.lax.scan(run, carry, xs, reverse=True)
    return grads, grad


def sum_behind(body, carry, xs, reduce, heads):
    """Runs `body(carry, noise, i)` of all layers, last to first: `carry`, gradients.

    `body` also gives a layer's gradients on this device. `reduce` is three functions:
    `pack` makes one array of a layer's gradients, `sum_up` adds it up over devices, and
    is under way while the next layer runs; `keep_own` takes of the sums what this device
    updates.
    """
    pack, sum_up, keep_own = reduce
    noise, layers = xs
    depth = len(layers)

    def run(carry, noise, i, sums=()):
        carry, own = body(carry, noise, i)
        # Only once the sums are there: the new array then takes the old one's place.
        own, sums = jax.lax.optimization_barrier((own, sums))
        return carry, pack(layer.join_gradients(own, heads)), sums

    def store(sums, packed, i):
        put = jax.lax.dynamic_update_index_in_dim
        own = keep_own(sum_up(packed))
        return jax.tree.map(lambda x, new: put(x, new, i, 0), sums, own)

    def step(carry, xs):
        carry, packed, sums = carry
        noise, i = xs
        sums = store(sums, packed, jnp.minimum(i + 1, depth - 1))  # at first of nothing
        return run(carry, noise, i, sums), None

    first = jax.tree.map(lambda x: x[0], noise)
    _, packed, _ = jax.eval_shape(run, carry, first, 0)
    own = jax.eval_shape(lambda x: keep_own(sum_up(x)), packed)
    sums = jax.tree.map(lambda x: jax.lax.empty((depth, *x.shape), x.dtype), own)
    carry = carry, jnp.zeros(packed.shape, packed.dtype), sums
    (carry, packed, sums), _ = jax.lax.scan(step, carry, xs, reverse=True)
    return carry, store(sums, packed, 0)
