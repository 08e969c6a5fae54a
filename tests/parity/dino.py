"""DINO against facebookresearch/dino."""

import jax
import numpy as np

from tests.parity import build, ledger, mae
from vit_ssl_jax import clipping
from vit_ssl_jax.interop import fair, table
from vit_ssl_jax.methods import dino

# The stored gradients are up to 2.3e-6 of their largest entry off a float64 run; ours are
# up to 1.2e-6 off it (tests/methods/test_dino.py).
GRADIENT = ledger.Tolerance(relative=1e-4, largest=5e-6)


def make_model(golden):
    """`methods.dino.DINO` of a case."""
    c = golden.config
    encoder = build.encoder(
        side=c["global_size"] // c["patch_size"],
        patch=c["patch_size"],
        width=c["embed_dim"],
        # The config doesn't say the MLP's width; the weights do.
        hidden=len(golden.arrays["sd/student/backbone.blocks.0.mlp.fc1.bias"]),
        depth=c["depth"],
        heads=c["num_heads"],
        posemb="learned",
        cls=True,
        norm=True,
        style=build.style(c.get("norm_eps", 1e-6), "timm"),
    )
    head = dino.Head(
        prototypes=c["out_dim"],
        hidden=c["head_hidden"],
        bottleneck=c["head_bottleneck"],
        norm_last=c["norm_last_layer"],
        style=encoder.style,
    )
    return dino.DINO(encoder, head, "cls", dino.EXCESS["official"])


def make_views(golden):
    """Crops `global [B 2 H W C]`, and `local [B V h w C]` where there are some."""
    names = [name for name in ("global", "local") if f"in/{name}" in golden.arrays]
    return {
        name: golden.arrays[f"in/{name}"].transpose(1, 0, 3, 4, 2) for name in names
    }


def temperatures(c):
    """The teacher's temperatures of the epochs, float64."""
    numbers = {field: 0 for field in dino.Config.__dataclass_fields__} | dict(
        warmup_temperature=c["warmup_teacher_temp"],
        teacher_temperature=c["teacher_temp"],
        warmup_temperature_epochs=c["warmup_teacher_temp_epochs"],
    )
    return dino.teacher_temperatures(dino.Config(**numbers), c["epochs"])


def crop_major(x):
    """`[B V K] -> [V*B K]`, the order of theirs."""
    return x.swapaxes(0, 1).reshape(-1, x.shape[-1])


def make_step(golden, model):
    """`run(params, ema, views)`: outputs, the teacher's, loss, gradients, ema, clipped."""
    c = golden.config
    numbers = dict(temperatures=temperatures(c), epochs_a_step=1.0)
    weights = c["momentum"], 1.0 - c["momentum"]
    moving = dict(weights=lambda step: weights, centre_momentum=c["center_momentum"])

    def run(params, ema, views):
        targets = dino.make_targets(ema, views, c["epoch"], model=model, **numbers)
        teacher = {name: ema[name] for name in ("encoder", "head")}
        told = model.apply({"params": teacher}, {"global": views["global"]}, False)

        def loss_fn(params):
            out = model.apply({"params": params}, views, False)
            loss, _ = dino.loss_fn(out, targets, temperature=c["student_temp"])
            return loss, out

        (loss, out), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        moved = dino.update_ema(ema, params, targets, 0, **moving)
        clipped = clipping.each(grads, c["clip_grad"])
        return out, told, loss, grads, moved, clipped

    return jax.jit(run)


def clipped_rows(golden, clipped):
    """Rows of the norms of clipped gradients."""
    stored = golden.json.get("summary", {}).get("clipped_l2", {})
    stored = {f"clipped_l2/{name}": x for name, x in stored.items()}
    norms = {
        f"clipped_l2/{name}": np.linalg.norm(np.float64(x).ravel())
        for name, x in clipped.items()
    }
    return ledger.compare(golden, norms, ledger.GRADIENT, stored)


def rows(golden):
    """Rows of `dino`: outputs, loss, gradients, their clipping, centre, teacher."""
    model = make_model(golden)
    names = fair.dino_rows(model)
    params, ema = (
        table.import_params(names, golden.tensors(f"sd/{who}/"))
        for who in ("student", "teacher")
    )
    ema = {**ema, "centre": golden.arrays["in/center"][0]}
    run = make_step(golden, model)
    out, told, loss, grads, moved, clipped = run(params, ema, make_views(golden))
    tensors = {
        "out/student": crop_major(out),
        "out/teacher": crop_major(told),
        "out/center": moved.pop("centre")[None],
    }
    after = table.export_params(names, moved)
    tensors |= {f"out/ema/{name}": x for name, x in after.items()}
    ramp = {"out/teacher_temp": temperatures(golden.config)}
    return [
        *ledger.compare(golden, tensors, ledger.TENSOR),
        *ledger.compare(golden, {"out/loss": loss, "out/loss_f64": loss}, ledger.LOSS),
        *ledger.compare(golden, ramp, ledger.SCHEDULE),
        *mae.backward_rows(golden, table.export_params(names, grads), grads, GRADIENT),
        *clipped_rows(golden, table.export_params(names, clipped)),
    ]
