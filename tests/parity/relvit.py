"""RelViT against guglielmocamporese/relvit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity import build, ledger, mae
from vit_ssl_jax.interop import relvit as names
from vit_ssl_jax.methods import relvit
from vit_ssl_jax.ops import patches, relations

# Theirs of the class token are 2.7e-6 of the largest off what the same model gives in
# float64, so ours can't be asked to be nearer than that.
GRADIENT = ledger.Tolerance(relative=1e-4, largest=5e-6)
ANGLE = ledger.Tolerance(absolute=1e-3)  # theirs is arccos near 1 in float32
NAMES = {  # task -> theirs
    "relations": "rel",
    "distances": "dist",
    "angles": "angle",
    "positions": "abs_pos",
    "labels": "clf",
}
ACCURACIES = {
    "relations": "relations_top1",
    "positions": "positions_top1",
    "labels": "top1",
}


def label_rows(golden, order, grid, name):
    """Rows of the labels of patches in `order [B N]`; `name(label)` is an array's."""
    groups = [
        ({"relations": relations.relations(order, grid)}, ledger.EXACT),
        ({"distances": relations.distances(order, grid)}, ledger.TENSOR),
        ({"angles": relations.angles(order, grid)}, ANGLE),
        ({"abs_positions": order}, ledger.EXACT),
    ]
    return [
        row
        for values, tolerance in groups
        for row in ledger.compare(
            golden, {name(k): x for k, x in values.items()}, tolerance
        )
    ]


def labels(golden):
    """Rows of `relvit_labels`: every grid in raster order and permuted."""
    rows = []
    for side in golden.config["sides"]:
        orders = {"": np.arange(side**2), "_shuffled": golden.arrays[f"s{side}/perm"]}
        for suffix, order in orders.items():
            # Theirs are of one image, without a batch.
            alone = {
                name: x[None]
                for name, x in golden.arrays.items()
                if name.startswith(f"s{side}/")
            }
            rows += label_rows(
                dataclasses.replace(golden, arrays=alone),
                jnp.asarray(order)[None],
                (side, side),
                lambda label, s=suffix, side=side: f"s{side}/{label}{s}",
            )
    return rows


def make_model(golden):
    """`methods.relvit.RelViT` of a case: the heads are those that have weights."""
    c, sd = golden.config, golden.tensors("sd/")
    heads = {name.split("_head.")[0] for name in sd if "_head." in name}
    tasks = tuple(task for task, name in NAMES.items() if name in heads)
    encoder = build.encoder(
        side=c["img"] // c["patch"],
        patch=c["patch"],
        width=c["dim"],
        # The config doesn't say the MLP's width; the weights do.
        hidden=len(sd["backbone.blocks.0.mlp.fc1.bias"]),
        depth=c["depth"],
        heads=c["heads"],
        posemb="learned" if c["pos"] else "none",
        cls=True,
        norm=True,
        style=build.style(c["norm_eps"], "timm"),
    )
    side = encoder.grid[0]
    return relvit.RelViT(encoder, tasks, side**2, c["classes"], c["add_clf"])


def make_views(golden):
    """`image [B H W C]`, `order [B N]`, `label [B]`, and their `angles [B N N]`."""
    views = {
        "image": build.channels_last(golden.arrays["in/imgs"]),
        "order": golden.arrays["in/perm"].astype(np.int32),
        "label": golden.arrays["in/labels"].astype(np.int32),
    }
    if "in/angles" in golden.arrays:
        views["angles"] = golden.arrays["in/angles"]
    return jax.tree.map(jnp.asarray, views)


def loss_fn(params, views, model, smoothing):
    """The loss of a step, its metrics and outputs."""
    outputs = model.apply({"params": params}, views, False)
    loss, metrics = loss_of(outputs, views, model, smoothing)
    return loss, (metrics, outputs)


def loss_of(outputs, views, model, smoothing, angles="theirs"):
    """Loss and metrics. Their float32 angles are off by up to 3e-4, more than a float32
    loss or gradient may be, so it takes theirs; ours have rows of their own."""
    tasks = model.tasks
    targets = relvit.make_targets({}, views, 0, tasks=tasks, grid=model.encoder.grid)
    if angles == "theirs" and "angles" in tasks and "angles" in views:
        targets["angles"] = views["angles"]
    weights = dict.fromkeys(tasks, 1.0)  # the published loss is a plain sum
    return relvit.loss_fn(outputs, targets, weights=weights, smoothing=smoothing)


def given(golden):
    """Model, rows of names, params and views."""
    model = make_model(golden)
    rows = names.relvit_rows(model)
    params = names.import_relvit(rows, golden.tensors("sd/"))
    return model, rows, params, make_views(golden)


def named_outputs(outputs, tokens):
    """Every stored tensor by its name in the case: classes and heads are axis 1."""
    out = {"out/z": tokens[:, 0], "out/z_patches": tokens[:, 1:]}
    for task, x in outputs.items():
        if task in ("distances", "angles"):
            x = x[..., None]
        if task != "labels":
            x = jnp.moveaxis(x, -1, 1)
        out[f"out/{NAMES[task]}"] = x
    return out


def named_losses(loss, metrics):
    """The loss, and losses and accuracies as they log them."""
    out = {"out/loss": loss, "out/log/train_loss": loss}
    for task, name in NAMES.items():
        for kind, ours in (("loss", f"{task}_loss"), ("acc", ACCURACIES.get(task))):
            if ours in metrics:
                out[f"out/log/train_{kind}_{name}"] = metrics[ours]
    return out


def tensors(golden):
    """Rows of `relvit_upstream`, `relvit_full`, `relvit_downstream`."""
    model, rows, params, views = given(golden)
    smoothing = golden.config["smooth"]

    @jax.jit
    def run(params, views):
        step = jax.value_and_grad(loss_fn, has_aux=True)
        out = step(params, views, model, smoothing)
        encoder = {"params": params["encoder"]}
        return *out, model.encoder.apply(encoder, views["image"], False)

    (loss, (metrics, outputs)), grads, tokens = run(params, views)
    out, losses = named_outputs(outputs, tokens), named_losses(loss, metrics)
    # Their float64 loss is that of float64 angles.
    losses["out/loss_f64"] = loss_of(outputs, views, model, smoothing, "ours")[0]
    theirs = names.export_relvit(rows, grads)["state_dict"]
    return [
        *shuffled(golden, views["order"], model.encoder),
        *label_rows(golden, views["order"], model.encoder.grid, "in/{}".format),
        *ledger.compare(golden, out, ledger.TENSOR),
        *ledger.compare(golden, losses, ledger.LOSS),
        *mae.backward_rows(golden, theirs, grads, GRADIENT),
    ]


def shuffled(golden, order, encoder):
    """Row of the images that the model sees, from those before and the order."""
    if "in/imgs_before_shuffle" not in golden.arrays:
        return []
    image = jnp.asarray(build.channels_last(golden.arrays["in/imgs_before_shuffle"]))
    cells = patches.take(patches.patchify(image, encoder.patch), order)
    image = patches.unpatchify(cells, encoder.patch, encoder.grid)
    ours = {"in/imgs": build.channels_first(image)}
    return ledger.compare(golden, ours, ledger.EXACT)


def gradients(golden):
    """Rows of the gradients of a case, `CASE_grads`."""
    whole = golden.with_inputs_of(golden.kind.removesuffix("_grads"))
    model, rows, params, views = given(whole)
    smoothing = whole.config["smooth"]
    grad = jax.jit(jax.grad(lambda *xs: loss_fn(*xs, model, smoothing)[0]))
    grads = grad(params, views)
    theirs = names.export_relvit(rows, grads)["state_dict"]
    return mae.backward_rows(golden, theirs, grads, GRADIENT)
