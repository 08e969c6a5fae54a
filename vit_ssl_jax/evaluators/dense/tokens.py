"""Patches of a frozen encoder as a grid of features, at any size of image."""

import jax.numpy as jnp

from vit_ssl_jax import partition
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import stack
from vit_ssl_jax.ops import images, posemb


def find_layers(layers, depth):
    """Numbers of blocks from 1 on of those that `layers` means; negative from the end.

    Raises UserError for one that the ViT doesn't have.
    """
    found = [layer if layer > 0 else depth + 1 + layer for layer in layers]
    wrong = [
        layer for layer, n in zip(layers, found) if not layer or not 1 <= n <= depth
    ]
    if wrong:
        raise UserError(
            f"layers: {wrong[0]} is no block of this ViT; say 1 to {depth}, or -1 (the "
            f"last) to -{depth}"
        )
    return found


def count(encoder, c):
    """Features of a patch, F."""
    return encoder.width * len(c.layers) * (1 + (c.cls and encoder.cls))


def make_reader(encoder, normalize, c):
    """Makes `read(params, image uint8 [B H W 3]) -> float32 [B rows cols F]`.

    To be jitted. `c` has `layers`, `norm` and `cls`: of every block its patches, beside
    them its class token, the same for all patches.
    """
    layers, last = find_layers(c.layers, encoder.depth), int(encoder.cls)

    def streams(vit, image):
        """Chosen blocks' tokens `[B N(+1) D]`; a method of ViT."""
        _, collected = vit(image, False, stack.whole)
        chosen = [collected[layer - 1] for layer in layers]
        return [vit.norm(x) for x in chosen] if c.norm and vit.final_norm else chosen

    def read(params, image):
        variables, x = {"params": params}, normalize(images.to_float(image))
        if layers == [encoder.depth]:  # nothing of the others need be kept
            final = encoder.final_norm and c.norm
            chosen = [encoder.clone(final_norm=final).apply(variables, x, False)]
        else:
            chosen = encoder.apply(variables, x, method=streams)
        parts = []
        for tokens in chosen:
            patches = tokens[:, last:]
            parts.append(patches)
            if c.cls and encoder.cls:
                parts.append(jnp.broadcast_to(tokens[:, :1], patches.shape))
        features = jnp.concatenate(parts, axis=-1).astype(jnp.float32)
        return features.reshape(len(features), *encoder.grid, -1)

    return read


def at_size(encoder, params, size):
    """The encoder and its parameters for images of another size (height, width).

    Learned positions are resampled once more, as MAE does for another grid. Raises
    UserError where the patch doesn't divide the size.
    """
    if any(side % encoder.patch for side in size):
        raise UserError(
            f"{tuple(size)} px is not divisible by the patch of {encoder.patch} px"
        )
    grid = tuple(side // encoder.patch for side in size)
    if encoder.posemb == "learned" and grid != tuple(encoder.grid):
        table = params["posemb"]
        new = posemb.resample(partition.fetch(table)[0], encoder.grid, grid)[None]
        params = {**params, "posemb": partition.put(new, table.sharding)}
    return encoder.clone(grid=grid), params
