"""The objective on held-out images: what the method says of every image, averaged."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax import partition, step
from vit_ssl_jax.evaluators import pretext


@pytest.fixture(scope="module")
def case(tiny):
    """MAE, a fresh state, and three batches of which the last is half empty."""
    method = tiny.method("mae")
    parts = {"method": method, "optimizer": tiny.optimizer()}
    init = functools.partial(step.init_state, batch=tiny.bytes(8), **parts)
    batches = [tiny.bytes(8, seed=i) | {"valid": np.arange(8) < n} for i, n in VALID]
    return method, jax.jit(init)(jax.random.key(0)), batches


VALID = [(0, 8), (1, 8), (2, 4)]


def copies(batches):
    return iter([dict(batch) for batch in batches])


def test_it_is_the_mean_over_images(case):
    method, state, batches = case
    mesh = partition.make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    evaluate = pretext.make_evaluator(method, mesh)
    found = evaluate(state, copies(batches))
    assert found == evaluate(state, copies(batches))  # fixed keys

    @jax.jit
    def losses(batch, key):
        views = method.make_views(key, step.prepare(batch))
        outputs = method.model.apply({"params": state.params}, views, False)
        targets = method.make_targets(state.ema, views)
        return jnp.square(outputs - targets).mean((1, 2))  # of every image

    each = []
    for i, batch in enumerate(copies(batches)):
        valid = batch.pop("valid")
        each += losses(batch, jax.random.key(i))[valid].tolist()
    assert len(each) == 20
    assert found["loss"] == pytest.approx(np.mean(each), rel=1e-5)
