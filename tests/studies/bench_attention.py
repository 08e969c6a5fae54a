"""python -m tests.studies.bench_attention [--card=h100]

The forms that attention can take on a GPU, compiled for a card that needn't be there:
calls of cuDNN's and temporaries of a gradient, ViT-B's heads, 64 images.
"""

import argparse
import functools

import jax
import jax.numpy as jnp

from vit_ssl_jax import partition
from vit_ssl_jax.models import attention
from vit_ssl_jax.plan import cards

BATCH, HEADS, HEAD = 64, 12, 64


def arranged(x, valid, heads):
    """As the blocks do it: `[B N D]`, valid tokens first, an even number."""
    x, lengths, restore = attention.arrange(x, valid)
    return restore(attention.by_cudnn(*heads(x), lengths).reshape(x.shape))


def by_full_mask(x, valid, heads):
    """cuDNN's with a mask `[B 1 N N]`, which needs an even number of tokens."""
    extra = x.shape[1] % 2
    x = jnp.pad(x, ((0, 0), (0, extra), (0, 0)))
    mask = jnp.pad(valid, ((0, 0), (0, extra)))[:, None, None, :]
    mask = jnp.broadcast_to(mask, (len(x), 1, x.shape[1], x.shape[1]))
    out = jax.nn.dot_product_attention(*heads(x), mask=mask, implementation="cudnn")
    return out[:, : valid.shape[1]]


def plain(x, valid, heads):
    """The scores in memory."""
    mask = attention.as_mask(valid, x.shape[1])
    mask = None if mask is None else mask[:, None, None, :]
    return jax.nn.dot_product_attention(*heads(x), mask=mask)


def row(mesh, form, tokens, valid):
    """`(calls of cuDNN's, bytes of temporaries)` of the gradient by one form."""
    width = HEADS * HEAD

    def heads(x):
        return (x.astype(jnp.bfloat16).reshape(*x.shape[:2], HEADS, HEAD),) * 3

    def loss(x, valid):
        return jnp.sum(form(x, valid, heads).astype(jnp.float32) ** 2)

    x = jax.ShapeDtypeStruct((BATCH, tokens, width), jnp.float32)
    with jax.set_mesh(mesh):
        lowered = jax.jit(jax.grad(loss)).lower(x, valid)
    compiled = lowered.compile(compiler_options=cards.OPTIONS)
    calls = compiled.as_text().count('custom_call_target="__cudnn$fmha')
    return calls, compiled.memory_analysis().temp_size_in_bytes


def main(card):
    """The table."""
    devices = cards.get_devices(cards.CARDS[card], 1, 1)
    mesh = partition.make_mesh(dict(data=1, fsdp=1, tensor=1), devices)
    lengths = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    mask = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.bool_)
    rows = (
        ("even, all valid", arranged, 196, None),
        ("odd, all valid: filled up to 200", arranged, 197, None),
        ("the first so many valid", arranged, 96, lengths),
        ("any valid: moved to the front", arranged, 136, mask((BATCH, 136))),
        ("any valid: a full mask [B 1 N N]", by_full_mask, 136, mask((BATCH, 136))),
        ("any valid: plain", plain, 136, mask((BATCH, 136))),
        ("even, all valid: plain", plain, 196, None),
        ("odd, all valid: plain", plain, 197, None),
    )
    print(f"| {card} | tokens | cuDNN calls | temporaries |\n|---|---|---|---|")
    for name, form, tokens, valid in rows:
        calls, size = row(mesh, form, tokens, valid)
        print(f"| {name} | {tokens} | {calls} | {size / 2**20:.1f} MiB |", flush=True)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--card", default="h100", choices=cards.CARDS)
    main(parser.parse_args().card)
