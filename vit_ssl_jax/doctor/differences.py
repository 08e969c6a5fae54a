"""How far a fused form may be from the truth: what plain bfloat16 is, and little more.

L layers.
"""

import jax
import jax.numpy as jnp
import numpy as np

# How much farther than the plain form the fused one may be from the truth, beside what
# one rounding does: to the root mean square, and to the largest difference. What is right
# has been found up to 1.3 times as far; 2 % on the scale of attention is 3 times as far.
FACTOR = 2.5
ROUNDING = np.array([0.25, 2.0])  # in epsilons
NORMS = ("rms", "max")


def judge(ours, plain, truth, dtype):
    """Finds where the fused form is farthest from the truth, as a share of the allowed.

    All three are `(output, gradients of parameters, of the input)`, `dtype` that of the
    products of the first two.
    """
    measure = jax.jit(distances)
    far, near = (jax.device_get(measure(form, truth)) for form in (ours, plain))
    floor = ROUNDING * float(jnp.finfo(dtype).eps)
    worst = dict(share=-1.0)
    for name, differences in far.items():
        allowed = FACTOR * near[name] + floor
        shares = np.nan_to_num(differences / allowed, nan=np.inf, posinf=np.inf)
        at = np.unravel_index(np.argmax(shares), shares.shape)
        if shares[at] > worst["share"]:
            worst = dict(share=float(shares[at]), array=name, norm=NORMS[at[-1]])
            worst |= dict(difference=float(differences[at]), allowed=float(allowed[at]))
    return worst


def distances(form, truth):
    """Distances of a form from the truth: `{array: [groups 2]}`.

    The two are rms and largest difference, over the truth's rms.

    Groups are layers, and of the kernel of queries, keys and values these three.
    """

    def split(results):
        y, params, x = results
        out = {"output": y[None], "gradient of the input": x[None]}
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
            name = "/".join(key.key for key in path[1:])
            if name == "attn/qkv/kernel":
                leaf = jnp.moveaxis(leaf, 2, 1).reshape(len(leaf) * 3, -1)
            out[f"gradient of {name}"] = leaf
        return {k: v.astype(jnp.float32).reshape(len(v), -1) for k, v in out.items()}

    def apart(a, b):
        size = jnp.sqrt((b**2).mean(-1, keepdims=True))
        rms = jnp.sqrt(((a - b) ** 2).mean(-1))
        return jnp.stack([rms, jnp.abs(a - b).max(-1)], -1) / size

    return jax.tree.map(apart, split(form), split(truth))
