"""How many of the tokens that a method computes are real: I-JEPA's, whose masks vary."""

import functools

import jax
import jax.numpy as jnp

KEY = "mask/valid"  # the metric of a method that has it
IMAGES, DRAWS = 16, 32


def valid_share(run, size):
    """Mean of `mask/valid` over draws of the views, 0 to 1; None where there is none.

    Views of grey images are drawn as in training, on the CPU; nothing else is computed,
    for the metric depends on the masks alone. `size` is that of the images, in pixels.
    """
    batch = dict(
        image=jnp.full((IMAGES, *size, 3), 0.5, jnp.float32),
        label=jnp.zeros(IMAGES, jnp.int32),
        id=jnp.arange(IMAGES, dtype=jnp.int32),
    )
    method = run.method
    key = jax.random.key(0)
    shapes = jax.eval_shape(method.make_views, key, batch)
    if not any(name.endswith("_valid") for name in shapes):
        return None
    state = run.program.state
    outputs = jax.eval_shape(
        lambda p, v: method.model.apply(
            {"params": p}, v, True, rngs={"dropout": jax.random.key(0)}
        ),
        _bare(state.params),
        shapes,
    )
    targets = jax.eval_shape(method.make_targets, _bare(state.ema), shapes)

    @jax.jit
    def share(key):
        views = method.make_views(key, batch)
        filled = {
            name: views[name] if name in views else _zeros(shape)
            for name, shape in targets.items()
        }
        _, metrics = method.loss_fn(jax.tree.map(_zeros, outputs), filled)
        return metrics.get(KEY)

    draw = functools.partial(jax.random.fold_in, key)
    shares = [share(draw(i)) for i in range(DRAWS)]
    return None if shares[0] is None else sum(map(float, shares)) / DRAWS


def _bare(tree):
    """Shapes without the mesh that they are laid out on."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _zeros(shape):
    return jnp.zeros(shape.shape, shape.dtype)
