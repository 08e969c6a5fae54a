"""What `Method` promises: kept by made-up methods, and declared by those that are there."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax import methods, partition, step

KEY = jax.random.key(0)
SIZE, BATCH = (4, 4), 16
LAYOUTS = [(devices, accum) for devices in (1, 4) for accum in (1, 2, 4)]


class Scale(nn.Module):
    """One weight times the mean colour of an image."""

    @nn.compact
    def __call__(self, views, train):
        return self.param("w", nn.initializers.ones, ()) * views["colour"]


def make_views(key, batch):
    """`colour [B 3]` and `id [B]`."""
    return {"colour": batch["image"].mean((1, 2)), "id": batch["id"]}


def loss_fn(outputs, targets):
    """Squared error; the metric is the mean target."""
    return jnp.square(outputs - targets).mean(), {"target": targets.mean()}


PLAIN = methods.Method(
    model=Scale(),
    make_views=make_views,
    make_targets=lambda ema, views, step: views["colour"],
    loss_fn=loss_fn,
)
WARMED = dataclasses.replace(
    PLAIN, make_targets=lambda ema, views, step: views["colour"] * 0.0 + step
)
# Its queue holds the targets of the newest batch, in order; its centre is their mean.
QUEUED = dataclasses.replace(
    PLAIN,
    make_targets=lambda ema, views, step: {
        "colour": views["colour"],
        "id": views["id"],
    },
    loss_fn=lambda outputs, targets: loss_fn(outputs, targets["colour"]),
    init_ema=lambda params: {
        "queue": jnp.zeros((BATCH, 3)),
        "ids": jnp.zeros(BATCH, jnp.int32),
        "centre": jnp.zeros(3),
    },
    update_ema=lambda ema, params, targets, step: {
        "queue": targets["colour"],
        "ids": targets["id"],
        "centre": 0.5 * ema["centre"] + 0.5 * targets["colour"].mean(0),
    },
)


def make_program(method, tiny, devices, accum):
    """A program over so many devices, and their mesh."""
    sizes = {"data": devices, "fsdp": 1, "tensor": 1}
    mesh = partition.make_mesh(sizes, jax.devices()[:devices])
    optimizer = tiny.optimizer(warmup_epochs=0)
    numbers = dict(batch_size=BATCH, size=SIZE, accum=accum)
    return step.make_program(method, optimizer, mesh, **numbers), mesh


def train(method, tiny, devices, accum, steps=3):
    """The state after a few steps, and their metrics."""
    program, mesh = make_program(method, tiny, devices, accum)
    state, history = program.init(KEY), []
    for i in range(steps):
        batch = step.put_batch(tiny.bytes(BATCH, SIZE, seed=i), mesh)
        state, metrics = program.step(state, batch, KEY)
        history.append(jax.device_get(metrics))
    return jax.device_get(state), history


@pytest.mark.parametrize("accum", [1, 2])
def test_targets_know_the_step(tiny, accum):
    _, history = train(WARMED, tiny, 1, accum)
    assert [metrics["train/target"] for metrics in history] == [0, 1, 2]


@pytest.mark.parametrize(("devices", "accum"), LAYOUTS)
def test_an_average_is_made_of_all_targets_in_order(tiny, devices, accum):
    ema = train(QUEUED, tiny, devices, accum)[0].ema
    colours = [tiny.batch(BATCH, SIZE, seed)["image"].mean((1, 2)) for seed in range(3)]
    np.testing.assert_array_equal(ema["ids"], np.arange(BATCH))
    np.testing.assert_allclose(ema["queue"], colours[-1], rtol=1e-5)
    centre = sum(x.mean(0) * 0.5 ** (3 - i) for i, x in enumerate(colours))
    np.testing.assert_allclose(ema["centre"], centre, rtol=1e-5)


def lowered(method, tiny, devices, accum):
    """The step, lowered."""
    return step.lower(make_program(method, tiny, devices, accum)[0])


def test_targets_stay_where_their_examples_are(tiny):
    """A mean over all targets sums over devices, and gathers nothing."""

    def update_ema(ema, params, targets, step):
        return {"centre": targets["colour"].mean(0)}

    centred = dataclasses.replace(
        QUEUED, init_ema=lambda params: {"centre": jnp.zeros(3)}, update_ema=update_ema
    )
    found = [
        lowered(method, tiny, 4, 2).compile().as_text() for method in (centred, QUEUED)
    ]
    assert "all-reduce" in found[0]
    assert ["all-gather" in text for text in found] == [False, True]


def test_targets_that_no_average_looks_at_are_not_kept(tiny):
    """Else those of all micro-batches are stacked."""
    watching, blind = (
        dataclasses.replace(
            PLAIN,
            make_targets=lambda ema, views, step: jnp.tile(views["colour"], (1, 7)),
            loss_fn=lambda outputs, targets: loss_fn(outputs, targets[:, :3]),
            init_ema=lambda params: {"centre": jnp.zeros(21)},
            update_ema=update_ema,
        )
        for update_ema in (
            lambda ema, params, targets, step: {"centre": targets.mean(0)},
            lambda ema, params, targets, step: {"centre": ema["centre"] + 1.0},
        )
    )
    stacked = "tensor<2x8x21xf32>"
    assert stacked in lowered(watching, tiny, 1, 2).as_text()
    assert stacked not in lowered(blind, tiny, 1, 2).as_text()


def test_who_needs_labels(tiny):
    needing = {n for n in methods.names() if tiny.method(n).needs_labels}
    assert needing == {"supervised"}
    with_cls = tiny.method("relvit", vit_changes={"cls": True}, labels=1.0)
    assert with_cls.needs_labels


def test_who_averages_what(tiny):
    """All parameters, an encoder, or a statistic of the data."""
    params = {"encoder": {"w": 1.0}, "head": {"w": 2.0}}
    averaged = tiny.method("supervised", ema=0.9)
    assert averaged.averages and averaged.init_ema(params) == params
    others = [tiny.method(name) for name in methods.names()]
    assert not any(method.averages for method in others)
    assert tiny.method("ijepa").init_ema(params) == {"encoder": params["encoder"]}


def test_logits_are_the_classifiers_outputs(tiny):
    method = tiny.method("supervised")
    image = jnp.asarray(tiny.batch(2)["image"])
    views = {"image": image}
    params = method.model.init(KEY, views, False)["params"]
    expected = method.model.apply({"params": params}, views, False)
    np.testing.assert_array_equal(method.logits(params, image), expected)
    others = [tiny.method(n) for n in methods.names() if n != "supervised"]
    assert all(other.logits is None for other in others)


def test_only_a_network_makes_features(tiny):
    made = {n for n in methods.names() if tiny.method(n).features}
    assert made == {"ijepa", "dino"}
    assert tiny.method("dino").features({"output": 5, "probability": 6}) == 5
    assert tiny.method("ijepa").features({"features": 3, "dropped": 4}) == 3
