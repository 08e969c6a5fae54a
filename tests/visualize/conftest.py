"""Encoders of given parameters, and a transformer in NumPy that knows its attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import special

from vit_ssl_jax import encoder, finished, partition
from vit_ssl_jax.ops import rope


@pytest.fixture(scope="session")
def make_encoder(tiny):
    """Makes an encoder that takes pixels in [0, 1] of a tiny ViT: (params) -> params."""

    def make(change=lambda module, params: params, **changes):
        module = tiny.vit(**changes)

        def init(key):
            return module.init(key, jnp.zeros((1, *module.size, 3)), False)["params"]

        shapes = jax.eval_shape(init, jax.random.key(0))
        params = change(module, tiny.random(shapes))
        data = dict(size=module.size, resize=32, interpolation="bicubic", squash=False)
        config = ConfigDict(dict(data=data))
        mesh = partition.make_mesh(finished.MESH)
        return encoder.Encoder(config, params, module, keep, "none", mesh)

    return make


def keep(image):
    """No normalisation."""
    return image


class Plain:
    """The ViT's blocks in NumPy, float64, one image and one block after the other."""

    def weights(self, module, params, x, layer):
        """Attention weights of block `layer` (from 0) of tokens `[T D]`: `[A T T]`."""
        q, k, _ = self.projected(module, params, x, layer)
        scores = np.einsum("qae,kae->aqk", q, k) / np.sqrt(q.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        return shares / shares.sum(-1, keepdims=True)

    def block(self, module, params, x, layer, weights):
        """The block's output with given attention weights: `[T D] -> [T D]`."""
        p = jax.tree.map(
            lambda leaf: np.float64(leaf[layer]), params["blocks"]["block"]
        )
        _, _, v = self.projected(module, params, x, layer)
        received = np.einsum("aqk,kae->qae", weights, v)
        out = p["attn"]["out"]
        y = np.einsum("qae,aed->qd", received, out["kernel"]) + out["bias"]
        x = x + y * p.get("ls1", {"scale": 1.0})["scale"]
        y = self.norm(module, p["norm2"], x)
        if module.form.mlp == "swiglu":
            gated = p["mlp"]["gated"]
            both = np.einsum("td,dgf->tgf", y, gated["kernel"]) + gated["bias"]
            y = both[:, 0] * special.expit(both[:, 0]) * both[:, 1]
        else:
            y = y @ p["mlp"]["up"]["kernel"] + p["mlp"]["up"]["bias"]
            y = 0.5 * y * (1 + special.erf(y / np.sqrt(2)))
        y = y @ p["mlp"]["down"]["kernel"] + p["mlp"]["down"]["bias"]
        return x + y * p.get("ls2", {"scale": 1.0})["scale"]

    def projected(self, module, params, x, layer):
        """Queries, keys and values of a block, turned: three `[T A E]`."""
        p = jax.tree.map(
            lambda leaf: np.float64(leaf[layer]), params["blocks"]["block"]
        )
        y, qkv = self.norm(module, p["norm1"], x), p["attn"]["qkv"]
        q, k, v = np.einsum("td,dsae->stae", y, qkv["kernel"])
        for part, letter, bias in zip((q, k, v), "qkv", qkv["bias"], strict=True):
            part += bias * (letter in module.form.qkv_bias)
        if module.rope:
            table = rope.table(module.grid, q.shape[-1], module.rope)
            for row, (cos, sin) in enumerate(np.float64(table), len(q) - len(table)):
                q[row], k[row] = (self.turn(z[row], cos, sin) for z in (q, k))
        return q, k, v

    def turn(self, x, cos, sin):
        """Rotates pairs (e, e + E/2) of `[A E]` by angles."""
        half = x.shape[-1] // 2
        return x * cos + np.concatenate([-x[:, half:], x[:, :half]], 1) * sin

    def norm(self, module, p, x):
        """LayerNorm."""
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + module.style.norm_eps)
        return x * p["scale"] + p["bias"]


@pytest.fixture(scope="session")
def plain():
    """The blocks in NumPy."""
    return Plain()
