"""MAE's fine-tuning model (`models_vit.py`) on our supervised ViT."""

import math

import jax
import numpy as np

from tests.parity import build, ledger, supervised
from vit_ssl_jax.interop import table, timm
from vit_ssl_jax.methods import supervised as method
from vit_ssl_jax.ops import posemb


def rows(golden):
    """Rows of `mae_finetune_gp0/1`."""
    c = golden.config
    pool = "avg" if c["global_pool"] else "token"
    config = {**c, "global_pool": pool}
    model = supervised.make_model(config, c["img_size"])
    names = timm.classifier_rows(model)
    params = table.import_params(names, golden.tensors("sd/"))
    views = {
        "image": build.channels_last(golden.arrays["in/imgs"]),
        "label": golden.arrays["in/labels"].astype(np.int32),
    }
    soft = golden.arrays["in/soft_targets"]

    @jax.jit
    def run(params):
        out = jax.value_and_grad(supervised.loss_fn, has_aux=True)(
            params, views, model, c["label_smoothing"]
        )
        return *out, supervised.forward(params, views, model)["out/pre_logits"]

    (loss, logits), grads, features = run(params)
    grads = table.export_params(names, grads)
    norms = [np.linalg.norm(np.float64(grads[n]).ravel()) for n in c["grad_names"]]
    losses = {
        "out/loss_ls": loss,
        "out/loss_soft": method.loss_fn(logits, soft, loss="softmax")[0],
    }
    values = {"out/features": features, "out/logits": logits}
    return [
        *ledger.compare(golden, values, ledger.TENSOR),
        *ledger.compare(golden, losses, ledger.LOSS),
        *ledger.compare(golden, {"out/gradnorms": norms}, ledger.GRADIENT),
        *ledger.compare(golden, interpolated(golden, model), ledger.TENSOR),
    ]


def interpolated(golden, model):
    """Their position table at the stored grid, by the table's own size."""
    name = "out/pos_embed_interp"
    if name not in golden.arrays:
        return {}
    side = math.isqrt(golden.arrays[name].shape[1] - model.encoder.cls)
    theirs = golden.arrays["sd/pos_embed"][0]
    ours = posemb.resample(theirs, model.encoder.grid, (side, side))
    return {name: ours[None]}
