"""MaskFeat against facebookresearch/SlowFast and open-mmlab/mmpretrain."""

import re

import jax
import numpy as np

from tests.parity import build, ledger, mae
from vit_ssl_jax.interop import maskfeat as names
from vit_ssl_jax.interop import table
from vit_ssl_jax.methods import maskfeat
from vit_ssl_jax.ops import hog, images

HOG = ledger.Tolerance(absolute=1e-4)  # a pixel's bin jumps with its rounding
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHANNELS = 3


def histograms(golden):
    """Rows of `maskfeat_hog` and `maskfeat_hog_natural`, without sensitive cells."""
    c = golden.config
    if "in/img_u8" in golden.arrays:
        pixels = images.to_float(golden.arrays["in/img_u8"])[None]
        image = images.normalize(pixels, MEAN, STD)
    else:
        image = build.channels_last(golden.arrays["in/imgs"])
    per_side, rows = c["patch"] // c["pool"], []
    for name, theirs in golden.tensors("out/").items():
        found = re.fullmatch(r"(?:slowfast|mm)_gw(\d+)(_patches)?", name)
        if found:
            ours = hog.hog(image, bins=c["nbins"], cell=c["pool"], window=int(found[1]))
            keep = np.ones(ours.shape, bool)
            if "out/sensitive_cells" in golden.arrays:
                keep &= ~golden.arrays["out/sensitive_cells"][:, :, None]
            ours = ours * keep
            if found[2]:
                ours, keep = (hog.to_patches(x, per_side) for x in (ours, keep))
            both = ours, np.where(keep, theirs, 0.0)
            rows.append(ledger.compare_one(golden, f"out/{name}", *both, HOG))
    windows = {
        f"out/{name}": hog.gaussian_window(len(x))
        for name, x in golden.tensors("out/").items()
        if name.startswith("gaussian_kernel")
    }
    return rows + ledger.compare(golden, windows, ledger.TENSOR)


def given(golden):
    """Model, rows of names, params, views, targets."""
    c, weights = golden.config, golden.tensors("sd/")
    rows_of, wide = names.slowfast_rows, "blocks.0.mlp.fc1.bias"
    if wide not in weights:
        rows_of, wide = names.mmpretrain_rows, names.mmpretrain_name(wide)
    hide = golden.arrays["in/mask"].astype(bool)
    encoder = build.encoder(
        side=hide.shape[1],
        patch=c["patch"],
        width=c["dim"],
        hidden=len(weights[wide]),
        depth=c["depth"],
        heads=c["heads"],
        posemb="learned",
        cls=True,
        norm=True,
        style=build.style(c["norm_eps"], "slowfast"),
    )
    numbers = c["hog"]
    per_side = c["patch"] // numbers["pool"]
    features = CHANNELS * numbers["nbins"] * per_side**2
    model = maskfeat.MaskFeat(encoder, features)
    rows = rows_of(model)
    image = build.channels_last(golden.arrays["in/imgs"]).astype(np.float32)
    views = {"image": image, "hide": hide.reshape(len(hide), -1)}
    targets = maskfeat.make_targets(
        {},
        views,
        0,
        bins=numbers["nbins"],
        cell=numbers["pool"],
        window=numbers["gaussian_window"],
        per_side=per_side,
    )
    params = table.import_params(rows, names.drop_constants(weights))
    return model, rows, params, views, targets


def loss_fn(params, views, targets, model):
    """The loss of a step."""
    outputs = model.apply({"params": params}, views, False)
    return maskfeat.loss_fn(outputs, targets)[0]


def forward(model, views):
    """Normed tokens and predictions of all, class token first: `[B N+1 D], [B N+1 F]`."""
    latent = model.encode(views, False)
    return latent, model.head(latent)


def tensors(golden):
    """Rows of `maskfeat_slowfast` and `maskfeat_mmpretrain`."""
    model, rows, params, views, targets = given(golden)

    @jax.jit
    def run(params, views):
        loss, grads = jax.value_and_grad(loss_fn)(params, views, targets, model)
        latent, everything = model.apply({"params": params}, views, method=forward)
        return loss, grads, latent, everything

    loss, grads, latent, everything = run(params, views)
    hide, pred = views["hide"], np.asarray(everything[:, 1:])
    target = np.asarray(targets["hog"])
    values = {"out/pred_all": pred, "out/pred_masked": pred[hide]}
    for name, x in (("out/latent_slice", latent), ("out/pred_slice", everything)):
        if name in golden.arrays:
            values[name] = x[:, :: slice_step(golden)]
    targets = {"out/target_all": target, "out/target_masked": target[hide]}
    return [
        *ledger.compare(golden, values, ledger.TENSOR),
        *ledger.compare(golden, targets | {"out/hog": target}, HOG),
        *ledger.compare(golden, {"out/loss": loss}, ledger.LOSS),
        *mae.backward_rows(golden, table.export_params(rows, grads), grads),
    ]


def slice_step(golden):
    """The n of the stored tokens `arange(0, N+1, n)`, which only their meaning says."""
    of = golden.json["arrays"]
    slices = ("out/latent_slice", "out/pred_slice")
    meaning = " ".join(of[name]["meaning"] for name in slices if name in of)
    return int(re.search(r"arange\(0, ?\d+, ?(\d+)\)", meaning)[1])


def gradients(golden):
    """Rows of `maskfeat_slowfast_grads` (or mmpretrain's, where there are any)."""
    whole = golden.with_inputs_of(golden.kind.removesuffix("_grads"))
    model, rows, params, views, targets = given(whole)
    grads = jax.jit(jax.grad(lambda *xs: loss_fn(*xs, targets, model)))(params, views)
    return mae.backward_rows(golden, table.export_params(rows, grads), grads)
