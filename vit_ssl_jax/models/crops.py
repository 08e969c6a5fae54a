"""A ViT over several crops of an image, of its own size or smaller."""

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.ops import posemb


def encode(encoder, crops, train, excess=0.0):
    """Tokens of crops `[B V h w C]`: `[B*V N(+1) D]`, those of an image side by side.

    Smaller crops get the positions of a whole image, resampled as torch's bicubic does;
    `excess` as in `posemb.bicubic_matrix`.
    """
    image = crops.reshape(-1, *crops.shape[2:])
    grid = tuple(side // encoder.patch for side in image.shape[1:3])
    weights = [
        posemb.bicubic_matrix(old, new, excess)
        for old, new in zip(encoder.grid, grid, strict=True)
    ]
    tokens = encoder.place(encoder.embed(image), grid, weights)
    return encoder.encode(tokens, train, grid=grid)


def check_local(size, encoder):
    """Raises UserError for a side of local crops, in pixels, that patches don't fill."""
    patch, most = encoder.patch, min(encoder.size)
    if size < patch or size % patch or size > most:
        raise UserError(
            f"config.method.local_size: {size} px is not a multiple of the patch of {patch} "
            f"px, from one patch to the {most} px of a whole image (config.data.size)"
        )
