"""Seconds of the probe's grid against its heads one by one, and of k-NN against
scikit-learn.

python -m tests.studies.bench_probe [grid] [images] [knn]

grid: DINOv2's 13 rates x 4 readouts on kept features of a ViT-S, 100 classes.
images: the same heads, each step with the encoder's forward pass on images of 32 px.
knn: 10,000 queries in a bank of 50,000 features of width 384, k = 20.

Steps are timed once compiled, except where the line says otherwise.
"""

import functools
import sys
import time

import jax
import numpy as np
from ml_collections import ConfigDict
from sklearn.neighbors import KNeighborsClassifier

from vit_ssl_jax import partition
from vit_ssl_jax.evaluators import features, knn
from vit_ssl_jax.evaluators.probe import heads, sweep
from vit_ssl_jax.models import vit

READOUTS = ((1, "cls"), (4, "cls"), (1, "cls+mean"), (4, "cls+mean"))
RATES = tuple(m * 10.0**-e for e in (5, 4, 3, 2) for m in (1, 2, 5)) + (0.1,)
CLASSES = 100


def make_config(readouts, rates, batch_size):
    """DINOv2's grid, or a part of it."""
    return sweep.Config(
        readouts=readouts,
        batch_norm=(False,),
        optimizer="sgd",
        momentum=0.9,
        rates=rates,
        rate_batch=256,
        decays=(0.0,),
        schedule="cosine",
        step_epochs=1.0,
        milestones=(),
        rate_end=0.0,
        norm_group=0,
        nesterov=False,
        decay_bias=False,
        warmup_epochs=0.0,
        epochs=1.0,
        epoch_steps=100,
        batch_size=batch_size,
        accum=1,
        augment=False,
        checkpoint_every=100,
        seed=0,
    )


def train(config, read, params, batches, widths):
    """Seconds of all steps, the same with compilation, and the last step's losses."""
    factor = heads.make_schedule(config, config.epoch_steps)

    def update(state, batch, labels):
        found = read(params, batch, config.readouts)
        return heads.learn(config, factor, state, found, labels)

    begun = time.perf_counter()
    update = jax.jit(update, donate_argnums=0)
    state, _ = update(heads.init(config, widths, CLASSES), *batches[0])
    jax.block_until_ready(state)
    start = time.perf_counter()
    for batch in batches:
        state, losses = update(state, *batch)
    jax.block_until_ready(state)
    end = time.perf_counter()
    return np.array([end - start, end - begun]), losses


def compare(title, read, params, batches, widths, batch_size):
    """Prints the seconds of the grid and of its heads one by one, and their ratio."""
    run = functools.partial(
        train, read=read, params=params, batches=batches, widths=widths
    )
    together, losses = run(make_config(READOUTS, RATES, batch_size))
    alone, error = 0.0, 0.0
    for readout in READOUTS:
        for i, rate in enumerate(RATES):
            config = make_config((readout,), (rate,), batch_size)
            seconds, loss = run(config)
            alone += seconds
            (group,) = config.groups
            error = max(error, float(abs(losses[group][i] - loss[group][0])))
    count = len(READOUTS) * len(RATES)
    for what, a, b in zip(("", ", with compilation"), together, alone):
        print(
            f"{title}{what}: {count} heads at once {a:.2f} s, one by one {b:.2f} s, "
            f"ratio {b / a:.1f}; losses differ by {error:.1e} at most"
        )


def grid():
    """Heads on kept features."""
    rng, batch_size, steps = np.random.default_rng(0), 256, 20
    widths = {(n, how): 384 * (n + (how != "cls")) for n, how in READOUTS}
    batches = [
        (
            {
                r: np.float32(rng.normal(size=(batch_size, f)))
                for r, f in widths.items()
            },
            rng.integers(0, CLASSES, batch_size),
        )
        for _ in range(steps)
    ]
    compare(
        f"kept features, {steps} steps of {batch_size}",
        lambda params, batch, readouts: {r: batch[r] for r in readouts},
        (),
        batches,
        widths,
        batch_size,
    )


def images():
    """Heads and encoder."""
    rng, batch_size, steps = np.random.default_rng(0), 64, 3
    style = dict(dtype="float32", norm_eps=1e-6, gelu="exact", init="timm")
    config = ConfigDict(
        dict(variant="4x192x3/4", posemb="sincos", cls=True, droppath=0.0, dropout=0.0)
        | style
        | dict(remat="none", unroll=1, kernels="auto")
    )
    encoder = vit.make_vit(config, (32, 32))
    shape = (batch_size, 32, 32, 3)
    batches = [
        (rng.integers(0, 256, shape, np.uint8), rng.integers(0, CLASSES, batch_size))
        for _ in range(steps)
    ]
    params = encoder.init(jax.random.key(0), np.zeros(shape, np.float32), False)

    def read(params, batch, readouts):
        return features.make_reader(encoder, lambda x: x, readouts)(params, batch)

    widths = {(n, how): 192 * (n + (how != "cls")) for n, how in READOUTS}
    title = f"images through 4 blocks of width 192, {steps} steps of {batch_size}"
    compare(title, read, params["params"], batches, widths, batch_size)


def neighbours():
    """k-NN and scikit-learn's, with the same weights."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, 384))
    (x, y), (q, labels) = (
        (np.float32(centres[c] + 4 * rng.normal(size=(len(c), 384))), c)
        for c in (rng.integers(0, CLASSES, n) for n in (50_000, 10_000))
    )
    mesh = partition.make_mesh(dict(data=-1, fsdp=1, tensor=1))
    numbers = dict(k=(20,), temperature=0.07, standardize=False, mesh=mesh)
    knn.evaluate((x[:20_000], y[:20_000]), (q, labels), **numbers)  # compiles
    start = time.perf_counter()
    ours = knn.evaluate((x, y), (q, labels), **numbers)["k20_T0.07/top1"]
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    theirs = KNeighborsClassifier(
        20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07)
    )
    theirs = theirs.fit(x, y).score(q, labels)
    other = time.perf_counter() - start
    print(
        f"k-NN, 10,000 queries, 50,000 x 384: {seconds:.2f} s, top-1 {ours:.4f}; "
        f"scikit-learn {other:.2f} s, top-1 {theirs:.4f}; ratio {other / seconds:.1f}"
    )


if __name__ == "__main__":
    chosen = {"grid": grid, "images": images, "knn": neighbours}
    print(jax.devices()[0].device_kind, len(jax.devices()), "device(s)")
    for name in sys.argv[1:] or chosen:
        chosen[name]()
