"""The supervised ViT against timm."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity import build, ledger, mae
from vit_ssl_jax.interop import table, timm
from vit_ssl_jax.methods import supervised
from vit_ssl_jax.models import stack, vit
from vit_ssl_jax.ops import posemb

POOLS = {"token": "cls", "avg": "mean"}  # theirs -> ours


def make_model(config, side):
    """`methods.supervised.Supervised` of a case on images of `side` pixels."""
    c, pool = config, POOLS[config["global_pool"]]
    encoder = build.encoder(
        side=side // c["patch_size"],
        patch=c["patch_size"],
        width=c["embed_dim"],
        hidden=int(c["mlp_ratio"] * c["embed_dim"]),
        depth=c["depth"],
        heads=c["num_heads"],
        posemb="learned",
        cls=True,
        norm=pool == "cls",
        style=build.style(c["norm_eps"], "timm"),
    )
    return supervised.Supervised(encoder, pool, c["num_classes"])


def loss_fn(params, views, model, label_smoothing):
    """The loss of a step, and its logits."""
    logits = model.apply({"params": params}, views, False)
    unmixed = {"partner": views["label"], "share": jnp.ones(len(logits))}
    views = views | unmixed
    targets = supervised.make_targets(
        {}, views, 0, num_classes=model.num_classes, label_smoothing=label_smoothing
    )
    return supervised.loss_fn(logits, targets, loss="softmax")[0], logits


def given(golden):
    """Model, rows of names, params and views."""
    model = make_model(golden.config, golden.config["img_size"])
    rows = timm.classifier_rows(model)
    views = {
        "image": build.channels_last(golden.arrays["in/imgs"]),
        "label": golden.arrays["in/labels"].astype(np.int32),
    }
    return model, rows, table.import_params(rows, golden.tensors("sd/")), views


def forward(params, views, model):
    """Every stored tensor by its name in the case."""
    features, blocks = model.encoder.apply(
        {"params": params["encoder"]}, views["image"], False, collect=stack.whole
    )
    _, captured = model.apply(
        {"params": params}, views, False, capture_intermediates=True
    )
    pooled = vit.pool(features, model.pool, model.encoder.cls)
    if model.pool == "mean":
        pooled = captured["intermediates"]["norm"]["__call__"][0]
    patches = {f"out/block{i}_patches": x[:, 1:] for i, x in enumerate(blocks)}
    return {"out/features": features, "out/pre_logits": pooled, **patches}


def tensors(golden):
    """Rows of `vit_token` and `vit_avg`."""
    model, rows, params, views = given(golden)
    smoothing = golden.config["label_smoothing"]

    @jax.jit
    def run(params, views):
        out = jax.value_and_grad(loss_fn, has_aux=True)(params, views, model, smoothing)
        return *out, forward(params, views, model)

    (loss, logits), grads, out = run(params, views)
    out |= {"out/logits": logits, "out/logits_f64": logits}
    return [
        *ledger.compare(golden, out, ledger.TENSOR),
        *ledger.compare(golden, {"out/loss": loss}, ledger.LOSS),
        *mae.backward_rows(golden, table.export_params(rows, grads), grads),
        *resampled(golden, model.encoder.grid),
        *larger(golden),
    ]


def resampled(golden, grid):
    """Rows of the resampled position tables `out/pos_plain_ROWSxCOLS` and `pos_timm`."""
    theirs = golden.arrays["sd/pos_embed"][0]
    values = {}
    for kind, antialias in (("plain", False), ("timm", True)):
        for name in golden.tensors(f"out/pos_{kind}_"):
            new = tuple(map(int, name.split("x")))
            ours = posemb.resample(theirs, grid, new, antialias)
            values[f"out/pos_{kind}_{name}"] = ours[None]
    return ledger.compare(golden, values, ledger.TENSOR)


def larger(golden):
    """Row of the logits of larger images, with their resampled position table."""
    if "in/imgs_big" not in golden.arrays:
        return []
    image = build.channels_last(golden.arrays["in/imgs_big"])
    model = make_model(golden.config, image.shape[1])
    old = make_model(golden.config, golden.config["img_size"]).encoder.grid
    theirs = golden.arrays["sd/pos_embed"][0]
    table_big = posemb.resample(theirs, old, model.encoder.grid, antialias=True)[None]
    weights = golden.tensors("sd/") | {"pos_embed": table_big}
    params = table.import_params(timm.classifier_rows(model), weights)
    apply = jax.jit(lambda *xs: model.apply(*xs, False))
    logits = apply({"params": params}, {"image": image})
    return ledger.compare(golden, {"out/logits_big": logits}, ledger.TENSOR)


def gradients(golden):
    """Rows of `vit_token_grads` and `vit_avg_grads`."""
    whole = golden.with_inputs_of(golden.kind.removesuffix("_grads"))
    model, rows, params, views = given(whole)
    smoothing = whole.config["label_smoothing"]
    grad = jax.jit(jax.grad(lambda *xs: loss_fn(*xs, model, smoothing)[0]))
    grads = grad(params, views)
    return mae.backward_rows(golden, table.export_params(rows, grads), grads)
