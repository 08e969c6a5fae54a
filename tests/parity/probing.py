"""LARS and batch normalisation of MAE's linear probe, and layer-wise rates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.parity import ledger
from tests.parity import supervised as cases
from vit_ssl_jax import optim
from vit_ssl_jax.interop import table, timm
from vit_ssl_jax.methods import supervised
from vit_ssl_jax.ops import batchnorm

UNDECAYED = ("bias", "scale", "cls", "posemb")  # MAE's no_weight_decay()


def lars(golden):
    """Rows of `lars_linprobe_wd*`: a head on batch-normed features, a few steps."""
    c = golden.config
    tx = make_lars(c)
    read = golden.arrays
    params = {"kernel": read["step0/1.weight"].T, "bias": read["step0/1.bias"]}
    params = jax.tree.map(jnp.asarray, params)
    features = len(params["kernel"])
    state = tx.init(params)
    mean, variance = jnp.zeros(features), jnp.ones(features)
    out, losses = {}, {}
    for step in range(sum(name.startswith("loss") for name in read)):
        x, labels = read[f"x{step}"], read[f"y{step}"]
        y, batch_mean, batch_variance = batchnorm.batch_norm(x, c["bn"]["eps"])
        (loss, logits), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            params, y, labels
        )
        updates, state = tx.update(grads, state, params, step=step)
        params = optax.apply_updates(params, updates)
        mean = batchnorm.running(mean, batch_mean, c["bn"]["momentum"])
        variance = batchnorm.running(variance, batch_variance, c["bn"]["momentum"])
        out |= {
            f"logits{step}": logits,
            f"step{step + 1}/1.weight": params["kernel"].T,
            f"step{step + 1}/1.bias": params["bias"],
            f"running_mean{step + 1}": mean,
            f"running_var{step + 1}": variance,
        }
        losses[f"loss{step}"] = loss
    x = batchnorm.standardize(read["x0"], mean, variance, c["bn"]["eps"])
    out["eval_logits"] = x @ params["kernel"] + params["bias"][None]
    if "zero_w/grad" in read:
        out["zero_w/after"] = from_zero(tx, read["zero_w/grad"])
    return [
        *ledger.compare(golden, out, ledger.TENSOR),
        *ledger.compare(golden, losses, ledger.LOSS),
    ]


def make_lars(c):
    """`optim.lars` with the numbers of a case and a constant rate."""
    return optim.lars(
        lambda step: c["lr"],
        lambda step: c["weight_decay"],
        momentum=c["momentum"],
        no_decay=("bias", "scale"),
        trust=c["trust_coefficient"],
    )


def loss_fn(params, x, labels):
    """Cross-entropy of a linear head, and its logits."""
    logits = x @ params["kernel"] + params["bias"][None]
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    return supervised.loss_fn(logits, targets, loss="softmax")[0], logits


def from_zero(tx, grad):
    """A weight that was all zero after one step."""
    params = {"kernel": jnp.zeros(grad.shape)}
    updates, _ = tx.update({"kernel": grad}, tx.init(params), params, step=0)
    return updates["kernel"]


def layer_decay(golden):
    """Rows of `layer_decay`: every parameter's factor of the rate, and its decay."""
    c, values = golden.config, {}
    names = c["param_names"]
    blocks = [int(n.split(".")[1]) for n in names if n.startswith("blocks.")]
    rows, shapes = classifier(max(blocks) + 1, c["global_pool"])
    for decay in c["decays"]:
        with jax.enable_x64(True):
            scales = jax.tree_util.tree_map_with_path(
                lambda path, x, decay=decay: np.broadcast_to(
                    optim.layer_scale(path, x.shape, decay, max(blocks) + 1), x.shape
                ),
                shapes,
            )
        decays = jax.tree_util.tree_map_with_path(
            lambda path, x: np.full(
                x.shape, 0.0 if path[-1].key in UNDECAYED else c["weight_decay"]
            ),
            shapes,
        )
        for name, tree in (("lr_scale", scales), ("weight_decay", decays)):
            each = table.export_params(rows, tree)
            values[f"decay{decay}/{name}_f64"] = [each[n].flat[0] for n in names]
    return ledger.compare(golden, values, ledger.SCHEDULE)


def classifier(depth, mean):
    """Names and shapes of a tiny classifier of `depth` blocks."""
    pool = "avg" if mean else "token"
    config = dict(
        patch_size=1,
        embed_dim=2,
        mlp_ratio=1,
        depth=depth,
        num_heads=1,
        norm_eps=1e-6,
        global_pool=pool,
        num_classes=2,
    )
    model = cases.make_model(config, config["patch_size"])
    view = {"image": jnp.zeros((1, 1, 1, 3))}
    shapes = jax.eval_shape(
        lambda key: model.init(key, view, False)["params"], jax.random.key(0)
    )
    return timm.classifier_rows(model), shapes
