"""What runs beside the step, compiled: init, health, features, probes, k-NN, classifiers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import build, device_cache, memory, partition, step
from vit_ssl_jax.data import whole
from vit_ssl_jax.evaluators import classify, features, knn, pretext
from vit_ssl_jax.evaluators.probe import heads, sweep
from vit_ssl_jax.monitors import health, online

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_compiler")]
BATCH, CLASSES = 64, 10
HASTE = {"exec_time_optimization_effort": -1.0}  # of a TPU's compiler: half the time


@pytest.fixture(scope="module")
def run(target):
    """`(Run, config, compile)` of two layers of ViT-B for a target.

    On TPUs by a method with a teacher, on GPUs by one with classes.
    """
    name, devices, options = target
    method = "ijepa" if name.startswith("v5e") else "supervised"
    config = runs.load(f"{method}_vitb.py")
    with config.unlocked():
        config.vit.variant = "2x768x12/16"
        config.batch_size, config.steps, config.online.share = BATCH, 10, 0.02
        config.update_from_flattened_dict(
            {f"method.{k}": 2 for k in config.method if k.endswith("_depth")}
        )
        config.data.num_classes = CLASSES
    made = build.make_run(config, devices)

    def compile_for(function, *shapes):
        with jax.set_mesh(made.mesh):
            lowered = function.lower(*shapes)
        return lowered.compile(compiler_options=options or HASTE)

    return made, config, compile_for


def key_of(made):
    """The shape of a run's key."""
    return step.key_shape(made.program.replicated)


def on(made, shape, dtype, split=True):
    """A shape, split over the devices that share the batch, or whole on each."""
    place = (
        partition.batch_sharding(made.mesh)
        if split
        else partition.replicated(made.mesh)
    )
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def test_init(run):
    made, _, compile_for = run
    compiled = compile_for(made.program.init, key_of(made))
    assert jax.tree.structure(
        compiled.out_tree.unflatten([0] * compiled.out_tree.num_leaves)
    ) == jax.tree.structure(made.program.state)


def test_health(run):
    made, _, compile_for = run
    measure = health.make_measure(made.method, made.normalize, made.mesh, images=32)
    state = made.program.state.replace(opt_state=(), probe={})
    compiled = compile_for(measure, state, made.program.batch, key_of(made))
    assert "ssl/rankme" in compiled.out_tree.unflatten(
        range(compiled.out_tree.num_leaves)
    )


def test_features_of_all_layers(run):
    made, _, compile_for = run
    read = features.make_reader(made.encoder, made.normalize, ((2, "mean"),))
    params = made.encoder_params(made.program.state)
    compiled = compile_for(jax.jit(read), params, made.program.batch["image"])
    assert compiled.memory_analysis().output_size_in_bytes == BATCH // 4 * 2 * 768 * 4


def test_online_probe(run):
    made, config, compile_for = run
    ridden = online.Probe(config, made, functools.partial(build.step_flops, config))
    assert ridden.images
    state, batch = made.program.state, made.program.batch
    compile_for(ridden.init)
    compile_for(ridden._read, ridden.like)
    compiled = compile_for(ridden._see, ridden.like, state.params, state.ema, batch)
    # The probe's state, queue and all, is overwritten in place.
    assert compiled.memory_analysis().alias_size_in_bytes > 4096 * 768 * 4


def test_the_objective_on_held_out_images(run):
    made, _, compile_for = run
    state, batch = made.program.state.replace(opt_state=()), made.program.batch
    key = key_of(made)
    forward = jax.jit(pretext.make_forward(made.method))
    compiled = compile_for(forward, state, batch, key)
    assert "loss" in compiled.out_tree.unflatten(range(compiled.out_tree.num_leaves))


def test_classifier(run):
    made, _, compile_for = run
    if made.method.logits is None:
        pytest.skip("this method classifies nothing")
    best = jax.jit(classify.make_ranker(made.method, made.normalize))
    state, batch = made.program.state, made.program.batch
    compiled = compile_for(best, state.params, batch["image"])
    assert compiled.memory_analysis().output_size_in_bytes >= BATCH // 4 * 5 * 4


def test_grid_of_heads(run):
    made, _, compile_for = run
    settings = runs.load("probe_vitb.py", "mae").evals.probe
    config = sweep.Config(**{key: settings[key] for key in sweep.FIELDS})
    readout = config.readouts[0]
    state = jax.eval_shape(
        functools.partial(heads.init, config, {readout: 768}, CLASSES)
    )
    state = jax.tree.map(lambda x: on(made, x.shape, x.dtype, split=False), state)
    found = {readout: on(made, (BATCH, 768), jnp.float32)}
    labels = on(made, (BATCH,), jnp.int32)
    learn = functools.partial(heads.learn, config, heads.make_schedule(config, 10))
    compile_for(jax.jit(learn, donate_argnums=0), state, found, labels)
    rank = jax.jit(functools.partial(heads.rank, config), static_argnums=2)
    compiled = compile_for(rank, state, found, 5)
    assert compiled.memory_analysis().output_size_in_bytes > 0


def test_merge_of_nearest_neighbours(run):
    made, _, compile_for = run
    ways, k = partition.ways(made.mesh), 20
    queries = on(made, (ways, knn.BLOCK, 768), jnp.float32)
    best = on(made, (ways, knn.BLOCK, k), jnp.float32)
    best = best, on(made, (ways, knn.BLOCK, k), jnp.int32)
    chunk = on(made, (knn.ROWS, 768), jnp.float32, split=False)
    ids = on(made, (knn.ROWS,), jnp.int32, split=False)
    compiled = compile_for(knn._make_merge(made.mesh), best, queries, chunk, ids)
    assert compiled.memory_analysis().output_size_in_bytes >= knn.BLOCK * k * 8


def test_spans_of_steps_on_images_that_are_there(target):
    """The images take their bytes and no more; no example moves between devices."""
    _, devices, options = target
    config = runs.small(data__device_cache=True, data__crop=(0.3, 1.0))
    run, n = build.make_run(config, devices), 10_000
    loaded = whole.Whole(
        np.zeros((n, 32, 32, 3), np.uint8), np.zeros(n, np.int32), np.arange(n)
    )
    spans = device_cache.extend(run, config, loaded)
    lowered = step.lower(spans.program)
    compiled = lowered.compile(compiler_options=options or HASTE)
    need = memory.need_of(spans.program, compiled, None)
    plain = memory.argument_bytes(run.program)
    assert n * 3072 < need.arguments - plain < 1.01 * n * 3072 + 2**20
    assert "all-to-all" not in compiled.as_text()
