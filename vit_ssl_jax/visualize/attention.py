"""Attention of every head of a trained encoder, and what all blocks make of it together.

B batch, N patches, T all tokens (class token, registers, patches), D width, A heads,
E head width, L layers.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_ssl_jax import partition
from vit_ssl_jax.encoder import Encoder
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import stack, vit
from vit_ssl_jax.ops import images as pixels
from vit_ssl_jax.ops import rope

BATCH = 4  # images at a time: their weights are [B A T T]


def maps(
    encoder: Encoder, images: Any, *, layer: int = 0, query: str | int = ""
) -> np.ndarray:
    """What every head of a block attends to: the share of each patch, float32 `[n A N]`.

    images: as in `Encoder.encode`. layer: 1 to the ViT's depth; 0 is the last, -1 the one
    before it. query: whose attention, as in `find_query`. What is missing from a sum
    of 1 is on the class token and the registers.
    """
    layer = encoder.find_layer(layer, "mean")
    query = find_query(encoder.module, query)
    compute = make_maps(encoder.module, encoder.normalize, encoder.mesh, layer, query)
    return encoder.run(compute, images, batch_size=BATCH)


def rollout(encoder: Encoder, images: Any, *, query: str | int = "") -> np.ndarray:
    """Attention followed from the last block down to the patches: float32 `[n N]`.

    The product of `(W + I) / 2` over all blocks, W the mean of a block's heads and I the
    residual stream: attention rollout (Abnar & Zuidema, 2020, section 3, equation 1).
    images, query: as in `maps`.
    """
    query = find_query(encoder.module, query)
    compute = make_rollout(encoder.module, encoder.normalize, encoder.mesh, query)
    return encoder.run(compute, images, batch_size=BATCH)


def find_query(module: vit.ViT, query: str | int) -> str | int:
    """Whose attention is meant: "cls", "mean" (of all patches), or a patch, 0 to N - 1.

    "" is the class token where there is one, else the mean. Raises UserError for a class
    token or a patch that isn't there.
    """
    patches = module.grid[0] * module.grid[1]
    if query == "":
        return "cls" if module.cls else "mean"
    if query == "cls" and not module.cls:
        raise UserError("query 'cls': this ViT has no class token; use 'mean'")
    number = isinstance(query, int | np.integer)
    if query not in ("cls", "mean") and not (number and 0 <= query < patches):
        raise UserError(
            f"query {query!r} is neither cls nor mean, nor a patch, 0 to {patches - 1}"
        )
    return query


@functools.lru_cache(4)
def make_maps(module, normalize, mesh, layer: int, query: str | int):
    """Compiles `maps` of uint8 images: `(params, image) -> float32 [B A N]`."""

    def compute(params, image):
        image = normalize(pixels.to_float(image))
        start = jnp.zeros((len(image), module.heads, module.grid[0] * module.grid[1]))
        _, shares = walk(
            module,
            params,
            image,
            lambda shares, weights: to_patches(module, weights, query),
            start,
            layer=layer,
        )
        return shares

    return jax.jit(compute, out_shardings=partition.replicated(mesh))


@functools.lru_cache(4)
def make_rollout(module, normalize, mesh, query: str | int):
    """Compiles `rollout` of uint8 images: `(params, image) -> float32 [B N]`."""

    def compute(params, image):
        image = normalize(pixels.to_float(image))
        tokens = module.cls + module.registers + module.grid[0] * module.grid[1]
        eye = jnp.broadcast_to(jnp.eye(tokens), (len(image), tokens, tokens))

        def follow(rolled, weights):
            mixed = 0.5 * weights.mean(axis=1) + 0.5 * eye
            return jnp.einsum("bij,bjk->bik", mixed, rolled, precision="highest")

        _, rolled = walk(module, params, image, follow, eye, layer=module.depth)
        return to_patches(module, rolled, query)

    return jax.jit(compute, out_shardings=partition.replicated(mesh))


def to_patches(module: vit.ViT, weights, query: str | int):
    """What a query has of every patch: `[B ... T T] -> [B ... N]`."""
    first = module.cls + module.registers
    weights = weights[..., first:]
    if query == "mean":
        return weights[..., first:, :].mean(axis=-2)
    return weights[..., 0 if query == "cls" else first + query, :]


def walk(module: vit.ViT, params, image, fold, start, *, layer: int):
    """Runs the first `layer` blocks one by one, by the model's own code.

    `fold(state, weights [B A T T]) -> state` sees every block's attention, from `start`
    on. Takes standardised images; returns the residual stream `[B T D]` and the state.
    """
    x, rotations = module.apply({"params": params}, image, method=enter)
    block = stack.Block(
        module.heads,
        module.hidden,
        module.style,
        train=False,
        collect=None,
        form=module.form,
    )

    def step(carry, weights):
        x, state = carry
        (x, _), seen = block.apply(
            {"params": weights},
            x,
            None,
            None,
            rotations,
            capture_intermediates=lambda part, _: part.name == "qkv",
            mutable="intermediates",
        )
        (qkv,) = seen["intermediates"]["attn"]["qkv"]["__call__"]
        return (x, fold(state, attend(qkv, rotations))), None

    blocks = jax.tree.map(lambda leaf: leaf[:layer], params["blocks"]["block"])
    (x, state), _ = jax.lax.scan(step, (x, start), blocks)
    return x, state


def enter(module: vit.ViT, image):
    """What the first block takes: tokens `[B T D]`, their rotations; a method of ViT."""
    tokens = module.place(module.embed(image))
    rotations = module.rotations(tokens, None, None) if module.rope else None
    return jnp.concatenate([*module.prefix(len(image)), tokens], axis=1), rotations


def attend(qkv, rotations):
    """Attention weights of a block's projection: `[B T 3 A E] -> float32 [B A T T]`.

    A row sums to 1: the shares of all tokens in what a token receives.
    """
    q, k, _ = jnp.moveaxis(qkv, 2, 0)
    if rotations is not None:
        q, k = rope.rotate(q, rotations), rope.rotate(k, rotations)
    scores = jnp.einsum("bqae,bkae->baqk", q, k, preferred_element_type=jnp.float32)
    return jax.nn.softmax(scores * q.shape[-1] ** -0.5)
