"""I-JEPA against facebookresearch/ijepa."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.parity import build, ledger, mae, optimizers
from vit_ssl_jax.interop import fair
from vit_ssl_jax.methods import ijepa


def make_model(golden):
    """`methods.ijepa.IJEPA` of a case."""
    c, e, p = (golden.config, *(golden.config[k] for k in ("encoder", "predictor")))
    encoder = build.encoder(
        side=np.ravel(e["img_size"])[0] // e["patch_size"],
        patch=e["patch_size"],
        width=e["embed_dim"],
        # The config doesn't say the MLP's width; the weights do.
        hidden=len(golden.arrays["sd/encoder/blocks.0.mlp.fc1.bias"]),
        depth=e["depth"],
        heads=e["num_heads"],
        posemb="sincos",
        cls=False,
        norm=True,
        style=build.style(c["norm_eps"], "ijepa"),
    )
    predictor = build.narrow(
        encoder,
        width=p["predictor_embed_dim"],
        hidden=len(golden.arrays["sd/predictor/predictor_blocks.0.mlp.fc1.bias"]),
        depth=p["depth"],
        heads=c["predictor_num_heads"],
        features=e["embed_dim"],
    )
    return ijepa.IJEPA(encoder, predictor)


def import_weights(golden, model):
    """Our params and ema."""
    names = {"encoder": "encoder", "predictor": "predictor", "target_encoder": "target"}
    parts = {ours: golden.tensors(f"sd/{name}/") for ours, name in names.items()}
    return fair.import_ijepa(model, parts)


def make_views(golden):
    """`image [B H W C]`, `context [B E K]`, `target [B T M]`, all valid."""
    counts = {"context": ("enc", "nenc"), "target": ("pred", "npred")}
    views = {"image": build.channels_last(golden.arrays["in/imgs"])}
    for ours, (name, number) in counts.items():
        count = range(golden.config["mask"][number])
        ids = [golden.arrays[f"in/mask_{name}{i}"] for i in count]
        views[ours] = np.stack(ids, axis=1).astype(np.int32)
        views[f"{ours}_valid"] = np.ones(views[ours].shape, bool)
    nothing = np.zeros(views["context"].shape[:2])
    return {**views, "dropped": nothing, "overlap": nothing}


def make_targets(model, ema, views):
    """Features of the targets `[B T M D]` and what the metrics need."""
    return ijepa.make_targets(ema, views, 0, teacher=model.encoder)


def loss_fn(params, ema, views, model):
    """The loss of a step."""
    outputs = model.apply({"params": params}, views, False)
    return ijepa.loss_fn(outputs, make_targets(model, ema, views))[0]


def block_major(x):
    """`[B T E M D] -> [T*E*B M D]`, the order of theirs."""
    return x.transpose(1, 2, 0, 3, 4).reshape(-1, *x.shape[3:])


def forward(model, params, ema, views):
    """Every stored tensor by its name in the case, and the loss."""
    outputs, captured = model.apply(
        {"params": params},
        views,
        False,
        capture_intermediates=lambda module, name: name == "encode",
        mutable=["intermediates"],
    )
    context = captured["intermediates"]["encoder"]["encode"][0]  # [B*E K D]
    b, e, k = views["context"].shape
    context = context.reshape(b, e, k, -1).swapaxes(0, 1).reshape(b * e, k, -1)
    whole = {"params": params["encoder"]}, views["image"], False
    teacher = {"params": ema["encoder"]}, views["image"], False
    targets = make_targets(model, ema, views)
    tokens = model.encoder.grid[0] * model.encoder.grid[1]
    everything = jnp.broadcast_to(jnp.arange(tokens), (b, 1, tokens))
    normed = make_targets(model, ema, {**views, "target": everything})["features"]
    features = targets["features"][:, :, None]
    return {
        "out/encoder_full": model.encoder.apply(*whole),
        "out/target_raw": model.encoder.apply(*teacher),
        "out/target_ln": normed[:, 0],
        "out/h": block_major(jnp.broadcast_to(features, outputs.shape)),
        "out/z_context": context,
        "out/z": block_major(outputs),
    }, ijepa.loss_fn(outputs, targets)[0]


def linear_share(golden, out):
    """Row of the share of errors above 1, up to those that rounding can carry over."""
    error = np.abs(np.asarray(out["out/z"]) - np.asarray(out["out/h"]))
    margin = ledger.TENSOR.absolute + ledger.TENSOR.relative
    unsure = np.mean(np.abs(error - 1) < margin)
    return ledger.compare(
        golden,
        {"out/abs_diff_frac_gt1": np.mean(error > 1)},
        ledger.Tolerance(relative=ledger.TENSOR.relative, absolute=unsure),
    )


def tensors(golden):
    """Rows of `ijepa`; of its gradients too where they are stored."""
    model = make_model(golden)
    params, ema = import_weights(golden, model)
    views = make_views(golden)
    out, loss = jax.jit(lambda *xs: forward(model, *xs))(params, ema, views)
    losses = {"out/loss": loss, "out/loss_f64": loss}
    rows = [
        *ledger.compare(golden, out, ledger.TENSOR),
        *ledger.compare(golden, losses, ledger.LOSS),
        *linear_share(golden, out),
    ]
    if golden.tensors("grad/") or "grad_l2" in golden.json:
        grads = jax.jit(jax.grad(lambda *xs: loss_fn(*xs, model)))(params, ema, views)
        rows += gradient_rows(golden, model, grads)
    return rows


def gradient_rows(golden, model, grads):
    """Rows of the gradients of encoder and predictor."""
    parts = fair.export_ijepa(model, grads, grads)
    return [
        *mae.gradient_rows(golden, parts["encoder"], "encoder/"),
        *mae.gradient_rows(golden, parts["predictor"], "predictor/"),
        *mae.total_norm_rows(golden, grads),
    ]


def step(golden):
    """Rows of `ijepa_step`, one optimiser step that belongs to `ijepa`."""
    given = golden.with_inputs_of("ijepa")
    model = make_model(given)
    params, ema = import_weights(given, model)
    optimizer = optimizers.ijepa_optimizer(given.config["optim"], given.config["adamw"])
    weights = optimizers.ema_weights(given.config["optim"], given.config["ema"])

    @jax.jit
    def run(params, ema, views):
        grads = jax.grad(loss_fn)(params, ema, views, model)
        updates, _ = optimizer.tx.update(
            grads, optimizer.tx.init(params), params, step=0
        )
        params = optax.apply_updates(params, updates)
        return grads, params, ijepa.update_ema(ema, params, {}, 0, weights=weights)

    grads, params, ema = run(params, ema, make_views(given))
    after = fair.export_ijepa(model, params, ema)
    after["target"] = after.pop("target_encoder")
    values = {f"after/{p}/{n}": x for p in after for n, x in after[p].items()}
    return [
        *gradient_rows(golden, model, grads),
        *optimizers.ijepa_rows(golden, optimizer, weights, 0, ""),
        *ledger.compare(golden, values, ledger.TENSOR),
    ]
