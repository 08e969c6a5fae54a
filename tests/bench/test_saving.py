"""What a checkpoint costs, as `bench save` measures it."""

import jax
import numpy as np

from tests import runs
from vit_ssl_jax import build
from vit_ssl_jax.bench import saving


def test_a_saves_figures_are_those_of_the_state_and_nothing_is_left(tmp_path):
    config = runs.small("mae")
    figures = saving.measure(config, str(tmp_path))
    assert not list(tmp_path.iterdir())
    run = build.make_run(config)
    sizes = [x.size * x.dtype.itemsize for x in jax.tree.leaves(run.encoder_shapes)]
    assert figures["encoder_bytes"] == sum(sizes)
    # Parameters and two moments in float32, and little else.
    params = sum(x.size * 4 for x in jax.tree.leaves(run.shapes[0]))
    assert 3 * params <= figures["state_bytes"] < 3.1 * params
    assert 0 < figures["held_seconds"] < figures["save_seconds"]
    assert figures["held_seconds"] < figures["first_held_seconds"]
    lines = saving.describe(figures).splitlines()
    assert f"{figures['encoder_bytes'] / 2**20:,.1f} MiB" in lines[-1]


def test_bytes_that_are_read_are_counted(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(np.random.default_rng(0).bytes(10**6))
    before = saving.bytes_read()
    file.read_bytes()
    assert 10**6 <= saving.bytes_read() - before < 1.1 * 10**6
