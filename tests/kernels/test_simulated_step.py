"""Whole train steps whose kernels run in the TPU simulator, against plain blocks."""

import types

import jax
import numpy as np
import pytest

from tests import runs
from tests.kernels import simulator
from tests.test_step import without_key_bias
from vit_ssl_jax import build, step
from vit_ssl_jax.kernels import layer
from vit_ssl_jax.models.fused import blocks as fused

BATCH = 4
SMALL = {
    "mae": {},
    "ijepa": {"method__max_context": 0},
    # As wide as lanes: there kernels round the matrices, too.
    "wide": {
        "vit__variant": "2x128x2/8",
        "method__decoder_width": 128,
        "vit__dtype": "bfloat16",
    },
}
# What, on how many devices, and its kernels: three a layer forward, three back. Encoders
# have two layers, MAE's decoder and I-JEPA's predictor one; a teacher isn't run back. On
# two devices one more a layer forward puts what was sent in its place, and `wide` has four
# matrices to round in encoder and decoder.
CASES = [
    ("mae", 1, 3 * 6),
    ("ijepa", 2, 3 * 6 + 2 * 3 + 5),
    ("wide", 2, 3 * 6 + 3 + 2 * 4),
]
# How far loss, moments and parameters' ways may be off, relatively, in float32 and in
# bfloat16. Adam's first step is the gradient's sign: of small ones rounding turns it.
FULL, LOW = (1e-6, 5e-6, 1e-3), (1e-3, 2e-2, 0.3)


def choose(blocks, shape):
    """A style for blocks of any shape, in the simulator."""
    del shape
    return layer.BlockStyle(
        heads=blocks.heads,
        eps=blocks.style.norm_eps,
        exact=blocks.style.gelu == "exact",
        dropout=blocks.dropout,
        keep=blocks.style.remat != "full",
        tile=8,
        dtype=blocks.style.dtype,
        interpret=simulator.SIMULATOR,
    )


def take_step(tiny, name, devices):
    """Loss, moments and the way that parameters went, matrices split over `devices`.

    Adam's first moment is then the gradient times 1 - b1.
    """
    method = "mae" if name == "wide" else name
    mesh = dict(mesh__data=1, mesh__fsdp=devices)
    changes = SMALL[name] | dict(batch_size=BATCH, optim__warmup_epochs=0.0, **mesh)
    config = runs.small(method, **changes)
    run = build.make_run(config, jax.devices()[:devices])
    batch = step.put_batch(tiny.bytes(BATCH, config.data.size), run.mesh)
    key = jax.random.key(config.seed)
    state = run.program.init(key)
    before = jax.device_get(state.params)
    state, metrics = jax.device_get(run.program.step(state, batch, key))
    return types.SimpleNamespace(
        loss=metrics["train/loss"],
        moments=state.opt_state.mu,
        moved=jax.tree.map(np.subtract, state.params, before),
    )


def distances(ours, theirs):
    """Of every two leaves the norm of the difference, relative to the second's."""
    norm = np.linalg.norm
    return [
        norm(x - y) / norm(y)
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name, devices, kernels", CASES)
def test_a_step_is_the_plain_one(tiny, monkeypatch, name, devices, kernels):
    plain = take_step(tiny, name, devices)
    monkeypatch.setattr(fused, "choose", choose)
    ours = take_step(tiny, name, devices)
    assert simulator.count() == (kernels, 0)
    assert all(np.any(x) for x in jax.tree.leaves(plain.moments))
    loss, moments, moved = LOW if name == "wide" else FULL
    np.testing.assert_allclose(ours.loss, plain.loss, rtol=loss)
    assert max(distances(ours.moments, plain.moments)) < moments
    both = (without_key_bias(x.moved) for x in (ours, plain))
    assert max(distances(*both)) < moved
