"""MAE against facebookresearch/mae."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np

from tests.parity import build, ledger
from vit_ssl_jax.interop import fair, table
from vit_ssl_jax.methods import mae
from vit_ssl_jax.models import stack
from vit_ssl_jax.ops import masks, patches


def make_model(config):
    """`methods.mae.MAE` of a case."""
    c = config
    encoder = build.encoder(
        side=c["img_size"] // c["patch_size"],
        patch=c["patch_size"],
        width=c["embed_dim"],
        hidden=int(c["mlp_ratio"] * c["embed_dim"]),
        depth=c["depth"],
        heads=c["num_heads"],
        posemb="sincos",
        cls=True,
        norm=True,
        style=build.style(c["norm_eps"], "mae"),
    )
    decoder = build.narrow(
        encoder,
        width=c["decoder_embed_dim"],
        hidden=int(c["mlp_ratio"] * c["decoder_embed_dim"]),
        depth=c["decoder_depth"],
        heads=c["decoder_num_heads"],
        features=c["in_chans"] * c["patch_size"] ** 2,
    )
    return mae.MAE(encoder, decoder)


def make_views(golden, model):
    """`image [B H W C]`, `keep [B K]`, `hide [B M]` from the stored noise."""
    noise = jnp.asarray(golden.arrays["in/noise"])
    kept = mae.kept_tokens(noise.shape[1], golden.config["mask_ratio"])
    keep, hide = masks.split_by_noise(noise, kept)
    image = build.channels_last(golden.arrays["in/imgs"])
    return {"image": image, "keep": keep, "hide": hide}


def loss_fn(model, params, views, norm_pixels):
    """The loss of a step."""
    outputs = model.apply({"params": params}, views, False)
    numbers = {"patch": model.encoder.patch, "norm_pixels": norm_pixels}
    return mae.loss_fn(outputs, mae.make_targets({}, views, 0, **numbers))[0]


def forward(model, views):
    """Every stored tensor of the network, by its name in the case."""
    tokens = model.encoder.embed(views["image"])
    kept = patches.take(model.encoder.place(tokens), views["keep"])
    latent, blocks = model.encoder.encode(kept, False, collect=stack.whole)
    decoded, decoder_blocks = model.decoder.decode(
        latent, views["keep"], views["hide"], False, collect=stack.whole
    )
    # Ours is kept, then hidden tokens; theirs is in raster order.
    restore = jnp.argsort(jnp.concatenate([views["keep"], views["hide"]], 1), 1)
    with_cls = jnp.pad(restore + 1, ((0, 0), (1, 0)))
    pred = patches.take(model.decoder.head(decoded)[:, 1:], restore)
    pixels = patches.unpatchify(pred, model.encoder.patch, model.encoder.grid)
    out = {
        "out/patch_embed": tokens,
        "out/latent": latent,
        "out/pred": pred,
        "out/pred_unpatchified": build.channels_first(pixels),
    }
    out |= {f"out/block_enc{i}": x for i, x in enumerate(blocks)}
    for i, x in enumerate(decoder_blocks):
        out[f"out/block_dec{i}"] = patches.take(x, with_cls)
    return out


def split_names(views):
    """The stored form of a split: ids, their inverse, 1 for what is hidden."""
    keep, hide = (np.asarray(views[name]) for name in ("keep", "hide"))
    order = np.concatenate([keep, hide], axis=1)
    hidden = np.zeros(order.shape, np.float32)
    np.put_along_axis(hidden, hide, 1.0, axis=1)
    return {
        "out/ids_keep": keep,
        "out/ids_restore": np.argsort(order, axis=1),
        "out/mask": hidden,
    }


def targets_and_losses(model, params, views, pred, norm_pixels):
    """Targets `[B N F]` and losses `[B N]` of all patches, and the scalar loss."""
    everything = jnp.broadcast_to(jnp.arange(pred.shape[1]), pred.shape[:2])
    target = mae.make_targets(
        {},
        {"image": views["image"], "hide": everything},
        0,
        patch=model.encoder.patch,
        norm_pixels=norm_pixels,
    )
    per_patch = jax.vmap(jax.vmap(lambda a, b: mae.loss_fn(a, b)[0]))(pred, target)
    return target, per_patch, loss_fn(model, params, views, norm_pixels)


def tensors(golden):
    """Rows of `mae`."""
    model = make_model(golden.config)
    params = table.import_params(fair.mae_rows(model), golden.tensors("sd/"))
    views = make_views(golden, model)

    @jax.jit
    def run(params, views):
        out = model.apply({"params": params}, views, method=forward)
        losses = {}
        for norm_pixels in (False, True):
            target, per_patch, loss = targets_and_losses(
                model, params, views, out["out/pred"], norm_pixels
            )
            name = f"out/normpix{int(norm_pixels)}"
            out |= {f"{name}/target": target, f"{name}/loss_per_patch": per_patch}
            losses |= {f"{name}/loss": loss, f"{name}/loss_f64": loss}
        return out, losses

    out, losses = run(params, views)
    return [
        *ledger.compare(golden, split_names(views), ledger.EXACT),
        *ledger.compare(golden, out, ledger.TENSOR),
        *ledger.compare(golden, losses, ledger.LOSS),
    ]


def gradients(golden):
    """Rows of `mae_grads_normpix0/1`, which belong to `mae`."""
    given = golden.with_inputs_of("mae")
    model = make_model(given.config)
    rows = fair.mae_rows(model)
    params = table.import_params(rows, given.tensors("sd/"))
    views = make_views(given, model)
    loss = functools.partial(loss_fn, model, norm_pixels=given.config["norm_pix_loss"])
    grads = jax.jit(jax.grad(loss))(params, views)
    return backward_rows(golden, table.export_params(rows, grads), grads)


def backward_rows(golden, theirs, grads, tolerance=ledger.GRADIENT):
    """Rows of all gradients of a case: `theirs` by their names, `grads` our tree."""
    rows = gradient_rows(golden, theirs, "", tolerance)
    return [*rows, *total_norm_rows(golden, grads)]


def gradient_rows(golden, grads, prefix, tolerance=ledger.GRADIENT):
    """Rows of gradients and of their stored norms; `prefix` stands before a name."""
    values = {f"grad/{prefix}{name}": x for name, x in grads.items()}
    norms = {
        f"grad_l2/{prefix}{name}": np.linalg.norm(np.float64(x).ravel())
        for name, x in grads.items()
    }
    stored = flax.traverse_util.flatten_dict(
        {"grad_l2": golden.json.get("grad_l2", {})}, sep="/"
    )
    return [
        *ledger.compare(golden, values, tolerance),
        *ledger.compare(golden, norms, ledger.GRADIENT, stored),
    ]


def total_norm_rows(golden, trees):
    """Row of the norm of all gradients; fixed tables, which have none, are left out."""
    norm = np.sqrt(sum(np.square(np.float64(x)).sum() for x in jax.tree.leaves(trees)))
    return ledger.compare(golden, {"gradnorm_total_f64": norm}, ledger.GRADIENT)
