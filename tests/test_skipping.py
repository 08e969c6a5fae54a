"""Steps left out: the law of spikes, and a state that stays as it was."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from vit_ssl_jax import methods, partition, skipping, step

KEY = jax.random.key(0)
ONE = {"data": 1, "fsdp": 1, "tensor": 1}
BATCH, SIZE = 4, (2, 2)
FIRE, OVERFLOW = 7, 9  # labels that plant a spike, and what isn't finite


def bound_by_numpy(norms, deviations):
    """The law in numpy, of the norms that are known."""
    logs = np.log(np.float64(norms))
    middle = np.median(logs)
    spread = 1.4826 * np.median(np.abs(logs - middle))
    return np.exp(middle + deviations * max(spread, 0.1))


@pytest.mark.parametrize("count", [32, 33, 100, 128])
def test_the_bound_is_median_and_mad_of_the_logarithms(count):
    rng = np.random.default_rng(count)
    known = np.float32(np.exp(rng.normal(1.0, 0.4, count)))
    norms = np.zeros(skipping.WINDOW, np.float32)
    norms[rng.permutation(skipping.WINDOW)[:count]] = known
    bound = skipping.spike_bound(jnp.asarray(norms), 6.0)
    np.testing.assert_allclose(bound, bound_by_numpy(known, 6.0), rtol=1e-5)


def test_steady_norms_have_a_bound_well_above_them():
    norms = jnp.full(skipping.WINDOW, 3.0)
    np.testing.assert_allclose(
        skipping.spike_bound(norms, 6.0), 3.0 * np.exp(0.6), rtol=1e-5
    )


def test_there_is_no_bound_before_enough_norms_nor_without_the_policy():
    norms = jnp.zeros(skipping.WINDOW).at[: skipping.ENOUGH - 1].set(1.0)
    assert np.isinf(skipping.spike_bound(norms, 6.0))
    assert np.isinf(skipping.spike_bound(jnp.zeros(skipping.WINDOW), 6.0))
    assert np.isinf(skipping.spike_bound(jnp.ones(skipping.WINDOW), 0.0))


def test_spikes_among_the_norms_hardly_move_the_bound():
    """A quarter of them a thousandfold; mean and deviation would move it far beyond."""
    rng = np.random.default_rng(0)
    norms = np.float32(np.exp(rng.normal(0.0, 0.3, skipping.WINDOW)))
    clean = skipping.spike_bound(jnp.asarray(norms), 6.0)
    norms[: skipping.WINDOW // 4] *= 1000
    assert clean < skipping.spike_bound(jnp.asarray(norms), 6.0) < 5 * clean
    assert np.exp(np.log(norms).mean() + 6 * np.log(norms).std()) > 1e6 * clean


@pytest.mark.parametrize(
    ("nonfinite", "spike", "rules"),
    [
        (("stop", 10), ("off", 6.0, 3), None),
        (("skip", 10), ("off", 6.0, 3), skipping.Rules(10, 1, 0.0)),
        (("stop", 10), ("stop", 6.0, 3), skipping.Rules(1, 1, 6.0)),
        (("skip", 4), ("skip", 5.0, 3), skipping.Rules(4, 3, 5.0)),
    ],
)
def test_rules_are_those_of_the_config(nonfinite, spike, rules):
    config = ConfigDict(
        {
            "nonfinite": dict(zip(("policy", "most"), nonfinite)),
            "spike": dict(zip(("policy", "deviations", "most"), spike)),
        }
    )
    assert skipping.read_rules(config) == rules
    assert skipping.read_rules(ConfigDict()) is None


class Weight(nn.Module):
    """One weight, whose gradient is 1 times what the label plants."""

    @nn.compact
    def __call__(self, views, train):
        w = self.param("w", nn.initializers.ones, (1,))
        label = views["label"][0]
        # exp(200) overflows; of 7 the gradient is a thousandfold.
        high = jnp.exp(jnp.where(label == OVERFLOW, 200.0, 0.0))
        return w * high * jnp.where(label == FIRE, 1000.0, 1.0)


def make(tiny, rules, **changes):
    """The program of a run on `Weight`, with an average."""
    method = methods.Method(
        model=Weight(),
        make_views=lambda key, batch: batch,
        make_targets=lambda ema, views, step: {},
        loss_fn=lambda outputs, targets: (outputs.sum(), {}),
        init_ema=lambda params: {"w": params["w"]},
        update_ema=lambda ema, params, targets, step: {
            "w": 0.5 * ema["w"] + 0.5 * params["w"]
        },
    )
    mesh = partition.make_mesh(ONE, jax.devices()[:1])
    numbers = {"batch_size": BATCH, "size": SIZE, "accum": 1}
    optimizer = tiny.optimizer(warmup_epochs=0, **changes)
    return step.make_program(method, optimizer, mesh, rules=rules, **numbers), mesh


def run(program, mesh, labels):
    """States and metrics of a run whose steps have these labels, as numpy."""
    state, out = program.init(KEY), []
    for label in labels:
        batch = dict(
            image=np.zeros((BATCH, *SIZE, 3), np.uint8),
            label=np.full(BATCH, label, np.int32),
            id=np.arange(BATCH, dtype=np.int32),
        )
        state, metrics = program.step(state, step.put_batch(batch, mesh), KEY)
        out.append(jax.device_get((state, metrics)))
    return out


def kept(state):
    """What a step that is left out doesn't touch."""
    return jax.tree.leaves((state.params, state.opt_state, state.ema))


def test_a_step_that_is_not_finite_leaves_all_but_the_count(tiny):
    program, mesh = make(tiny, skipping.Rules(3, 1, 0.0))
    labels = [0, OVERFLOW, 0, OVERFLOW, OVERFLOW, OVERFLOW, 0]
    states, metrics = zip(*run(program, mesh, labels))
    for i, label in enumerate(labels[1:], 1):
        same = [np.array_equal(a, b) for a, b in zip(*map(kept, states[i - 1 : i + 1]))]
        assert all(same) if label == OVERFLOW else not any(same), i
        assert bool(metrics[i]["skips/taken"]) == (label != OVERFLOW)
    assert [int(s.step) for s in states] == list(range(1, 8))
    assert [int(s.skips["count"]) for s in states] == [0, 1, 1, 2, 3, 4, 4]
    assert [int(s.skips["row"]) for s in states] == [0, 1, 0, 1, 2, 3, 0]
    assert [int(s.skips["last"]) for s in states] == [0, 2, 2, 4, 5, 6, 6]
    assert [int(s.skips["ended"]) for s in states] == [0, 0, 0, 0, 0, 6, 6]
    assert [float(m["train/skipped"]) for m in metrics] == [0, 1, 1, 2, 3, 4, 4]
    # What is not finite is no norm to remember.
    np.testing.assert_allclose(states[-1].skips["norms"][:7], [1, 0, 1, 0, 0, 0, 1])


def test_steps_around_one_that_is_left_out_are_those_of_a_run_without_it(tiny):
    """But for the schedule, which counts it: here the rate and decay are constant."""
    program, mesh = make(tiny, skipping.Rules(3, 1, 0.0), ipe_scale=1e6)
    with_it = run(program, mesh, [0, OVERFLOW, 0, 0])[-1][0]
    without = run(program, mesh, [0, 0, 0])[-1][0]
    for ours, theirs in zip(kept(with_it), kept(without)):
        np.testing.assert_array_equal(ours, theirs)


def test_a_rate_that_overflows_is_left_out_by_its_parameters(tiny):
    """Loss and gradient are finite; what they would be updated to isn't."""
    program, mesh = make(tiny, skipping.Rules(2, 1, 0.0), lr=1e39)
    states, metrics = zip(*run(program, mesh, [0, 0]))
    assert np.isfinite(metrics[-1]["train/grad_norm"])
    np.testing.assert_array_equal(states[-1].params["w"], [1.0])
    assert int(states[-1].skips["ended"]) == 2


def test_a_spike_is_left_out_and_remembered(tiny):
    rules = skipping.Rules(1, 2, 6.0)
    program, mesh = make(tiny, rules)
    labels = [0] * skipping.ENOUGH + [FIRE, 0, FIRE, FIRE]
    states, metrics = zip(*run(program, mesh, labels))
    assert int(states[skipping.ENOUGH - 1].skips["count"]) == 0
    assert [int(s.skips["count"]) for s in states[skipping.ENOUGH :]] == [1, 1, 2, 3]
    assert [int(s.skips["ended"]) for s in states][-2:] == [0, len(labels)]
    np.testing.assert_allclose(metrics[-1]["skips/bound"], np.exp(0.6), rtol=1e-5)
    assert states[-1].skips["norms"][skipping.ENOUGH] == 1000.0


def test_with_the_policies_off_the_program_is_the_one_without_them(tiny):
    """Not one operation more, and no state."""
    program, _ = make(tiny, skipping.read_rules(ConfigDict()))
    assert program.state.skips == {}
    text = step.lower(program).as_text()
    assert "is_finite" not in text and "sort" not in text
    judged, _ = make(tiny, skipping.Rules(1, 1, 6.0))
    text = step.lower(judged).as_text()
    assert "is_finite" in text and "sort" in text
