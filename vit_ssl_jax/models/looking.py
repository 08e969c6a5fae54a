"""Where a ViT looks: the attention of its last block, and patches like the whole image.

B batch, S tokens with class token and registers, N patches, D width, A heads.
"""

import jax
import jax.numpy as jnp

from vit_ssl_jax.models import stack
from vit_ssl_jax.ops import heatmap, rope

ATTENTION = "self-attention of the class token in the last block, mean of heads"
SIMILARITY = "similarity of the patches to their mean feature"


def look(encoder, params, image, pool, what):
    """A row of maps, named as what they are: `{name: [B H W 3]}` in [0, 1].

    image: standardised `[B H W 3]`, which is called `what`. Where the class token is what is trained
    (`pool` "cls") its attention, else how like the mean of all patches each patch is.
    """
    name = ATTENTION if pool == "cls" else SIMILARITY
    method = class_attention if pool == "cls" else similarity
    values = encoder.apply({"params": params}, image, method=method)
    picture = heatmap.of_patches(heatmap.stretch(values), encoder.grid, encoder.patch)
    return {f"{what}: {name} (dark: least, yellow: most)": picture}


def class_attention(encoder, image):
    """Attention of the class token to the patches, mean of heads: `[B N]`.

    To be applied as a method of the ViT, as all here that begins with `encoder`.
    """
    shares = last_attention(encoder, image)[:, :, 0, 1 + encoder.registers :]
    return shares.mean(1)


def similarity(encoder, image):
    """Cosine of every patch's output to the mean of all patches': `[B N]`."""
    x = encoder(image, False)[:, int(encoder.cls) :]
    x, mean = unit(x), unit(x.mean(1, keepdims=True))
    return jnp.einsum("bnd,bkd->bn", x, mean, precision="highest")


def unit(x):
    """Vectors of length 1: `[... D] -> [... D]`."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def last_attention(encoder, image):
    """Softmax of queries and keys in the last block: `[B H W 3] -> [B A S S]` float32.

    Tokens are class token, registers and patches, in that order; a row sums to 1.
    """
    patches = encoder.place(encoder.embed(image))
    table = encoder.rotations(patches, None, None) if encoder.rope else None
    tokens = jnp.concatenate([*encoder.prefix(len(patches)), patches], axis=1)
    _, streams = encoder.blocks(tokens, False, None, stack.whole, table)
    x = streams[-2] if encoder.depth > 1 else tokens  # what the last block gets
    block = jax.tree.map(lambda leaf: leaf[-1], block_params(encoder))
    norm, qkv = block["norm1"], block["attn"]["qkv"]
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    x = (x - mean) * jax.lax.rsqrt(var + encoder.style.norm_eps)
    x = x * norm["scale"][None, None] + norm["bias"][None, None]
    queries, keys = (
        project(x, qkv, i, letter in encoder.form.qkv_bias)
        for i, letter in enumerate("qk")
    )
    if table is not None:
        queries, keys = (rope.rotate(y, table) for y in (queries, keys))
    scores = jnp.einsum("bsae,btae->bast", queries, keys)
    return jax.nn.softmax(scores * queries.shape[-1] ** -0.5, axis=-1)


def project(x, qkv, i, biased):
    """Queries (i = 0) or keys (1): `[B S D] -> [B S A E]` float32."""
    y = jnp.einsum("bsd,dae->bsae", x, qkv["kernel"][:, i])
    return y + qkv["bias"][None, None, i] if biased else y


def block_params(encoder):
    """Parameters of all blocks, layers in front."""
    return encoder.variables["params"]["blocks"]["block"]
