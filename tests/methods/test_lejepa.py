"""LeJEPA: its statistic by another way, what it rewards, its numbers over devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from tests import parity
from tests.parity import ledger
from tests.test_goldens import FOLDER
from vit_ssl_jax import partition
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import lejepa

statistic = jax.jit(lejepa.epps_pulley, static_argnums=(1, 2))


def by_quadrature(x, furthest):
    """The integral itself, float64: `[B] -> scalar`."""

    def integrand(t):
        gaussian = np.exp(-t * t / 2)
        return np.abs(np.exp(1j * t * x).mean() - gaussian) ** 2 * gaussian

    return len(x) * integrate.quad(integrand, -furthest, furthest)[0]


def test_the_statistic_is_an_integral():
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(size=50), rng.exponential(size=50) - 3.0], 1)[:, None]
    expected = [[by_quadrature(x[:, 0, i], 3.0) for i in range(2)]]
    found = statistic(jnp.float32(x), 201, 3.0)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    np.testing.assert_allclose(statistic(jnp.float32(x), 17, 3.0), expected, rtol=0.05)


def test_a_gaussian_is_near_and_all_else_is_far():
    rng, n = np.random.default_rng(1), 2000
    samples = {
        "gaussian": rng.normal(size=n),
        "collapsed": np.zeros(n),
        "wide": 2.0 * rng.normal(size=n),
        "two points": rng.choice([-1.0, 1.0], n),
    }
    x = jnp.float32(np.stack(list(samples.values()), 1))[:, None]
    found = dict(zip(samples, statistic(x, 17, 3.0)[0]))
    assert found.pop("gaussian") < 3.0
    assert min(found.values()) > 30.0


def test_what_it_rewards():
    """Of views that agree, spread ones; of spread ones, those that agree."""
    rng = np.random.default_rng(2)
    spread = jnp.float32(rng.normal(size=(64, 1, 8))).repeat(4, 1)
    seed = jnp.full(64, 7, jnp.uint32)
    numbers = dict(slices=32, points=17, furthest=3.0, dtype="float32")
    loss = jax.jit(functools.partial(lejepa.loss_fn, weight=0.1, **numbers))
    best, metrics = loss(spread, seed)
    assert metrics["invariance"] < 1e-12
    np.testing.assert_allclose(best, 0.1 * metrics["sigreg"], rtol=1e-5)
    collapsed, _ = loss(0.0 * spread, seed)
    apart = spread + jnp.float32(rng.normal(size=(64, 4, 8)))
    torn, metrics = loss(apart, seed)
    assert best < 0.2 * collapsed and best < 0.5 * torn
    mean = np.asarray(apart).mean(1, keepdims=True)
    np.testing.assert_allclose(
        metrics["invariance"], np.square(apart - mean).mean(), rtol=1e-5
    )


def test_slices_are_unit_columns_drawn_by_the_seed():
    one, again, other = (lejepa.draw_slices(jnp.uint32(s), 8, 20) for s in (1, 1, 2))
    np.testing.assert_allclose(np.linalg.norm(one, axis=0), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1


@pytest.fixture(scope="module")
def case(tiny):
    """A method, its views of 8 images by two keys, and parameters."""
    method = tiny.method("lejepa")
    make = jax.jit(method.make_views)
    views = [make(jax.random.key(i), tiny.batch(8)) for i in range(2)]
    init = jax.jit(method.model.init, static_argnums=2)
    return method, views, init(jax.random.key(2), views[0], False)


def test_all_images_of_a_step_have_one_seed(case):
    _, (one, other), _ = case
    assert len(set(map(int, one["seed"]))) == 1 and one["seed"].shape == (8,)
    assert int(one["seed"][0]) != int(other["seed"][0])


def test_norms_and_statistics_are_those_of_all_devices(case):
    """Loss and gradients of four devices are one device's."""
    method, (views, _), params = case
    assert method.batch_loss

    def loss_fn(params, views):
        outputs = method.model.apply(params, views, True)
        return method.loss_fn(outputs, method.make_targets({}, views, 0))[0]

    run = jax.jit(jax.value_and_grad(loss_fn))
    alone = run(params, views)
    mesh = partition.make_mesh({"data": 4, "fsdp": 1, "tensor": 1}, jax.devices()[:4])
    with jax.set_mesh(mesh):
        split = jax.device_put(views, partition.batch_sharding(mesh))
        whole = jax.device_put(params, partition.replicated(mesh))
        spread = run(whole, split)
    assert len(split["global"].sharding.device_set) == 4

    def close(a, b):
        np.testing.assert_allclose(a, b, atol=2e-5 * max(np.abs(a).max(), 0.01))

    jax.tree.map(close, *map(jax.device_get, (alone, spread)))


@pytest.mark.parametrize(("whole", "local"), [(1, 0), (3, 5)])
def test_any_number_of_views(tiny, whole, local):
    method = tiny.method("lejepa", global_crops=whole, local_crops=local)
    views = jax.eval_shape(method.make_views, jax.random.key(0), tiny.batch(4))
    assert ("local" in views) == bool(local)

    def run():
        empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), views)
        return method.model.init_with_output(jax.random.key(0), empty, False)[0]

    assert jax.eval_shape(run).shape == (4, whole + local, 8)


def test_running_statistics_are_none(case):
    _, _, params = case
    norm = params["params"]["projector"]["first_norm"]
    assert set(norm) == {"scale", "bias"}


def test_a_wrong_weight_of_the_trapezoid_fails_the_ledger(monkeypatch):
    plain = lejepa.epps_pulley
    monkeypatch.setattr(
        lejepa,
        "epps_pulley",
        lambda x, points, furthest: plain(x, points + 1, furthest),
    )
    rows = parity.check(ledger.load(FOLDER, "lejepa"))
    failed = {row.quantity for row in rows if row.verdict == ledger.FAIL}
    assert {"out/statistic", "out/loss"} <= failed and "out/proj" not in failed


def test_what_cannot_be_is_refused(tiny):
    with pytest.raises(UserError, match="config.method.local_size: 18 px"):
        tiny.method("lejepa", local_size=18)
    with pytest.raises(UserError, match="config.method.points: 1 "):
        tiny.method("lejepa", points=1)
