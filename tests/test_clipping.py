"""Gradients clipped one by one, and parameters that stay as they are for a while."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from tests.conftest import OPTIM
from vit_ssl_jax import clipping, optim


def test_every_tensor_is_clipped_by_its_own_norm_layer_by_layer():
    rng = np.random.default_rng(0)
    blocks = np.float32(
        rng.normal(size=(3, 4, 5)) * np.array([9, 1, 0.01])[:, None, None]
    )
    tree = {
        "encoder": {"blocks": {"block": {"kernel": blocks}}, "cls": np.ones((1, 1, 9))},
        "head": {"kernel": np.full((2, 2), 1e-3, np.float32)},
    }
    clipped = clipping.each(tree, 0.3)
    found = clipped["encoder"]["blocks"]["block"]["kernel"]
    for ours, theirs in zip(found, blocks):
        norm = np.linalg.norm(theirs)
        np.testing.assert_allclose(
            ours, theirs * min(1.0, 0.3 / (norm + 1e-6)), rtol=1e-6
        )
    np.testing.assert_allclose(
        np.linalg.norm(clipped["encoder"]["cls"]), 0.3, rtol=1e-5
    )
    np.testing.assert_array_equal(clipped["head"]["kernel"], tree["head"]["kernel"])


def test_a_recipe_that_asks_for_it_clips_each(tiny):
    params = {"a": jnp.ones(4), "b": jnp.ones(4)}
    grads = {"a": jnp.full(4, 100.0), "b": jnp.full(4, 1e-3)}

    def update(**changes):
        made = tiny.optimizer(name="sgd", lr=1.0, wd=0.0, warmup_epochs=0, **changes)
        return made.tx.update(grads, made.tx.init(params), params, step=0)[0]

    plain, each = update(), update(clip_each=2.0)
    np.testing.assert_array_equal(plain["b"], each["b"])
    rate = -float(plain["a"][0]) / 100.0
    np.testing.assert_allclose(np.linalg.norm(each["a"]), 2.0 * rate, rtol=1e-4)


def test_what_is_frozen_moves_after_its_steps():
    params = {"head": {"prototypes": jnp.ones(3), "other": jnp.ones(3)}}
    frozen = ((("head", "prototypes"), 2.5),)
    made = optim.make_optimizer(
        ConfigDict(OPTIM | {"warmup_epochs": 0}),
        steps=10,
        epochs=1.0,
        batch_size=4,
        frozen=frozen,
    )
    state, moved = made.tx.init(params), []
    for step in range(5):
        updates, state = made.tx.update(params, state, params, step=step)
        moved.append(bool(np.any(updates["head"]["prototypes"] != 0)))
        assert np.all(updates["head"]["other"] != 0)
    assert moved == [False, False, False, True, True]


def test_what_was_frozen_has_adam_begin_at_its_own_first_step():
    """As torch does with a parameter that had no gradient before."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    params = {"head": {"prototypes": jnp.float32(rng.normal(size=5))}}
    config = ConfigDict(OPTIM | {"warmup_epochs": 0, "schedule": "linear"})
    sizes = dict(steps=10, epochs=1.0, batch_size=4)
    frozen = ((("head", "prototypes"), 2.5),)
    made = optim.make_optimizer(config, **sizes, frozen=frozen)
    theirs = torch.nn.Parameter(torch.tensor(np.array(params["head"]["prototypes"])))
    numbers = dict(betas=(config.b1, config.b2), eps=config.eps)
    adam = torch.optim.AdamW([theirs], weight_decay=config.wd, **numbers)
    state = made.tx.init(params)
    for step in range(8):
        grads = {"head": {"prototypes": jnp.float32(rng.normal(size=5))}}
        updates, state = made.tx.update(grads, state, params, step=step)
        params = optax.apply_updates(params, updates)
        theirs.grad = torch.tensor(np.array(grads["head"]["prototypes"]))
        adam.param_groups[0]["lr"] = float(made.schedules["lr"](step))
        if step < 3:
            theirs.grad = None
        adam.step()
    got = np.array(params["head"]["prototypes"])
    np.testing.assert_allclose(got, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
