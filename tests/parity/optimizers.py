"""Schedules and AdamW against MAE, I-JEPA, SlowFast (MaskFeat) and RelViT."""

import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity import build, ledger
from vit_ssl_jax import methods, optim


def ijepa_optimizer(c, adam):
    """`optim.make_optimizer` with the numbers of a case."""
    config = types.SimpleNamespace(
        name="adamw",
        schedule="cosine",
        layer_decay=1.0,
        lr=c["ref_lr"] if "ref_lr" in c else c["lr"],
        lr_batch=0,
        lr_start=c["start_lr"],
        lr_end=c["final_lr"],
        warmup_epochs=c["warmup"],
        first_step=1,
        ipe_scale=c["ipe_scale"],
        b1=adam["betas"][0],
        b2=adam["betas"][1],
        eps=adam["eps"],
        wd=c["wd"],
        wd_end=c["final_wd"],
        no_decay=("bias", "scale"),
        clip=0.0,
        clip_each=0.0,
    )
    steps, epochs = run_length(c)
    return optim.make_optimizer(config, steps=steps, epochs=epochs, batch_size=1)


def run_length(c):
    """Steps and epochs of a run."""
    epochs = c["num_epochs"] if "num_epochs" in c else c["epochs"]
    per_epoch = "iterations_per_epoch" if "iterations_per_epoch" in c else "ipe"
    return c[per_epoch] * epochs, epochs


def ema_weights(c, ema):
    """The momentum that `methods.ijepa.make` closes over; its masks don't matter."""
    encoder = build.encoder(
        side=14,
        patch=1,
        width=4,
        hidden=4,
        depth=1,
        heads=1,
        posemb="sincos",
        cls=False,
        norm=True,
        style=build.style(1e-6, "ijepa"),
    )
    config = {
        "name": "ijepa",
        "predictor_width": 4,
        "predictor_depth": 1,
        "predictor_heads": 1,
        "num_contexts": 1,
        "num_targets": 4,
        "context_scale": (0.85, 1.0),
        "context_aspect": (1.0, 1.0),
        "target_scale": (0.15, 0.2),
        "target_aspect": (0.75, 1.5),
        "min_keep": 10,
        "max_context": 0,
        "compat": "official",
        "trim_batch": 1,
        "ema_start": ema[0],
        "ema_end": ema[1],
        "ipe_scale": c["ipe_scale"],
    }
    context = methods.Context(
        vit=lambda: encoder,
        normalize=lambda image: image,
        mean_std=((0.0,), (1.0,)),
        steps=run_length(c)[0],
        epochs=1.0,
        num_classes=0,
    )
    return methods.make(config, context).update_ema.keywords["weights"]


def ijepa_rows(golden, optimizer, weights, steps, prefix):
    """Rows of rate, decay and momentum at our 0-based `steps`, in float64."""
    with jax.enable_x64(True):
        values = {
            f"{prefix}lr_f64": optimizer.schedules["lr"](steps),
            f"{prefix}wd_f64": optimizer.schedules["weight_decay"](steps),
            f"{prefix}momentum_f64": weights(steps)[0],
        }
        return ledger.compare(golden, values, ledger.SCHEDULE)


NUMBER = r"(\d[\d.]*(?:e[-+]?\d+)?)"
HALF = 0.5  # a layer's factor in `schedules`, which multiplies the rate's end too


def schedules(golden):
    """Rows of `schedules`."""
    rows = others(golden)
    for name, c in golden.config.get("mae", {}).items():
        lr = rate(
            "cosine",
            golden.arrays[f"mae/{name}/epoch_f64"],
            peak=c["lr"],
            end=c["min_lr"],
            warmup=c["warmup_epochs"],
            total=c["epochs"],
        )
        values = {"lr_f64": lr, "lr_scale_half_f64": HALF * lr}
        values = {f"mae/{name}/{key}": value for key, value in values.items()}
        rows += ledger.compare(golden, values, ledger.SCHEDULE)
    if "ijepa" in golden.config:
        c, unused = golden.config["ijepa"], {"betas": (0.9, 0.999), "eps": 1e-8}
        optimizer, weights = ijepa_optimizer(c, unused), ema_weights(c, c["ema"])
        steps = golden.arrays["ijepa/step"] - 1
        rows += ijepa_rows(golden, optimizer, weights, steps, "ijepa/")
    return rows


def others(golden):
    """Rows of MaskFeat's and RelViT's rates, whose sizes stand in their meanings."""
    values = {}
    if "maskfeat/lr_f64" in golden.arrays:
        pattern = rf"base {NUMBER}, max epoch {NUMBER}"
        peak, epochs = numbers(golden, "maskfeat/lr_f64", pattern)
        values["maskfeat/lr_f64"] = rate(
            "cosine",
            golden.arrays["maskfeat/epoch_f64"],
            start=1e-6,
            peak=peak,
            end=1e-6,
            warmup=30,
            total=epochs,
        )
    if "relvit/lr_f64" in golden.arrays:
        (steps,) = numbers(golden, "relvit/step", f"max_steps {NUMBER}")
        values["relvit/lr_f64"] = rate(
            "quarter_cosine",
            golden.arrays["relvit/step"],
            peak=5e-4,
            end=1.25e-6,
            warmup=steps // 10,
            total=steps,
        )
    return ledger.compare(golden, values, ledger.SCHEDULE)


def numbers(golden, name, pattern):
    """What an array's meaning says."""
    meaning = golden.json["arrays"][name]["meaning"]
    return [float(x) for x in re.search(pattern, meaning).groups()]


def rate(name, at, *, peak, end, warmup, total, start=0.0):
    """A schedule of ours in float64."""
    with jax.enable_x64(True):
        schedule = optim.SCHEDULES[name]
        ours = schedule(at, start=start, peak=peak, end=end, warmup=warmup, total=total)
        return np.asarray(ours)


def adamw(golden):
    """Rows of `adamw_toy`: a trajectory on stored gradients.

    `token` and `fc` follow the second scale of the rate, `norm` the first (its notes).
    """
    c, lr = golden.config, jnp.asarray(golden.arrays["lr_f64"], jnp.float32)
    scales = {"norm": c["scales"][0], "fc": c["scales"][1], "token": c["scales"][1]}
    rows = []
    for group, scale in scales.items():
        tx = optim.adamw(
            functools.partial(lambda scale, step: lr[step] * scale, scale),
            lambda step: c["wd"],
            b1=c["betas"][0],
            b2=c["betas"][1],
            eps=c["eps"],
            no_decay=("bias", "scale"),
        )
        rows += ledger.compare(golden, trajectory(golden, tx, group), ledger.TENSOR)
    return rows


def trajectory(golden, tx, group):
    """Parameters after every step and the last moments of one group, by their names."""
    last = {"fc.weight": "kernel", "norm.weight": "scale"}

    def read(prefix):
        names = [n for n in golden.tensors(prefix) if n.split(".")[0] == group]
        return {
            n: {last.get(n, n.split(".")[-1]): golden.arrays[prefix + n]} for n in names
        }

    def write(prefix, tree):
        return {
            f"{prefix}{name}": x for name, leaf in tree.items() for x in leaf.values()
        }

    params = jax.tree.map(jnp.asarray, read("step0/"))
    state, values = tx.init(params), {}
    for step in range(len(golden.arrays["lr_f64"])):
        updates, state = tx.update(read(f"grad{step}/"), state, params, step=step)
        params = jax.tree.map(np.add, params, updates)
        values |= write(f"step{step + 1}/", params)
    return values | write("m/", state.mu) | write("v/", state.nu)
