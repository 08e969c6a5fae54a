"""A run's model for other libraries: timm, transformers, Google's ViT, StableHLO."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from vit_ssl_jax import finished, partition
from vit_ssl_jax.interop import export as targets
from vit_ssl_jax.interop import export_hf, preparing


def export(run, to, out, say=print):
    """Writes a run's model for another library; raises UserError where it can't be."""
    trained = finished.read_trained(run)
    mesh = partition.make_mesh(finished.MESH)
    model, params = load_whole(trained, mesh)
    out, config = pathlib.Path(out), json.loads(trained.config.to_json_best_effort())
    if to == "stablehlo":
        out.write_bytes(to_stablehlo(model, params))
        say(f"written: {out}, for jax.export.deserialize; images [b H W 3] in [0, 1]")
        return
    params = jax.tree.map(np.asarray, jax.device_get(params))
    write = dict(timm=targets.to_timm, hf=export_hf.to_hf, npz=targets.to_google)
    arrays, about = write[to](model.method.model, params, config)
    arrays = with_left_out(arrays, trained)
    if to == "npz":
        with out.open("wb") as file:
            np.savez(file, **arrays)
        for line in targets.differs_from_google(model.encoder, config):
            say(f"note: {line}; tell whoever reads it")
    else:
        write_folder(arrays, about, config["data"], out, to)
    say(f"written: {len(arrays)} arrays to {out}")


def load_whole(trained, mesh):
    """`(build.Model, params)` of a run, its teacher's or averages where it has them.

    Where there is an encoder alone, that.
    """
    if trained.saved.parts == ["encoder"]:
        model, state, _ = finished.load_encoder(trained, mesh, trained.config.data.size)
    else:
        model, state = finished.load_model(trained, mesh)
    params = state.ema if model.method.averages else state.params
    return model, {**params, "encoder": model.encoder_params(state)}


def with_left_out(arrays, trained):
    """Puts back what `import` left out, where the layout has a place of the same shape."""
    file = trained.saved.home / "left_out.npz"
    if not file.exists() or not (trained.saved.home / "config.json").exists():
        return arrays
    with file.open("rb") as opened, np.load(opened) as kept:
        back = {
            name: kept[name]
            for name in kept.files
            if name in arrays and kept[name].shape == arrays[name].shape
        }
    return {**arrays, **back}


def write_folder(arrays, about, data, out, to):
    """Writes a folder as timm or transformers read it."""
    out.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt"}
    safetensors.numpy.save_file(arrays, out / "model.safetensors", metadata)
    (out / "config.json").write_text(json.dumps(about, indent=2) + "\n")
    if to == "hf":
        text = json.dumps(preparing.to_hf(data), indent=2) + "\n"
        (out / "preprocessor_config.json").write_text(text)


def to_stablehlo(model, params):
    """The model as a program with its weights: tokens or logits of `[b H W 3]`."""
    method = model.method
    logits = method.logits is not None and "head" in params

    def run(image):
        image = model.normalize(image)
        if logits:
            return method.logits(params, image)
        return model.encoder.apply({"params": params["encoder"]}, image, False)

    (batch,) = jax.export.symbolic_shape("b")
    image = jax.ShapeDtypeStruct((batch, *model.encoder.size, 3), jnp.float32)
    exported = jax.export.export(jax.jit(run), platforms=("cpu", "cuda", "tpu"))(image)
    return bytes(exported.serialize())
