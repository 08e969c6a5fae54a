"""What a trained run makes of images: its masks, reconstructions, turned tiles."""

import os

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw

from vit_ssl_jax import build, checkpoint, inputs, judged, step
from vit_ssl_jax.data import given, pipeline
from vit_ssl_jax.errors import UserError

ANY = ConfigDict(dict(variant="", mesh=dict(data=-1, fsdp=1, tensor=1)))
GAP, CAPTION, WIDE = 2, 14, 96  # pixels: between images, above them, of an image


def draw(
    workdir: str | os.PathLike,
    split: str = "",
    *,
    data: given.Data | None = None,
    count: int = 8,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Draws a run's task on images: `{name: uint8 [H count*(W+2)-2 3]}`, a row a name.

    workdir: of the run (its newest checkpoint), or a `checkpoints/STEP` in it.
    split: of its data; "" is the one that it trained on.
    data: given again where the run was given it (`train.train`).
    count, seed: the first `count` images; `seed` draws the masks.

    What the rows are is told by `draw` of `methods/NAME.py`. Raises UserError where
    there is no checkpoint, or no such split.
    """
    trained = judged.read_trained(checkpoint.find_folder(workdir), ANY)
    config = trained.config
    open_source = inputs.make_opener(config, data)
    names = config.data.name, config.data.dir, split or config.data.split
    kinds = dict(labels=config.data.labels, label=config.data.label)
    source = open_source(*names, **kinds)
    if not 1 <= count <= len(source):
        raise UserError(
            f"count={count}: the split has {len(source)} images; give 1 to that"
        )
    batch = read(source, config.data, count)
    config.batch_size = 1
    run = build.make_run(config, jax.local_devices()[:1])
    params, ema = load(trained.folder, run.program.state)

    @jax.jit
    def pictures(params, ema, batch, key):
        method = run.method
        views = method.make_views(key, step.prepare(batch))
        outputs = method.model.apply({"params": params}, views, False)
        return method.draw(outputs, method.make_targets(ema, views), views)

    with jax.set_mesh(run.mesh):
        found = jax.device_get(pictures(params, ema, batch, jax.random.key(seed)))
    return {name: row(images) for name, images in found.items()}


def read(source, data, count):
    """The first images as evaluation sees them: `{image, label, id}` of `count`."""
    batch = next(
        pipeline.eval_batches(
            source,
            batch_size=count,
            size=tuple(data.size),
            resize=data.resize,
            squash=data.squash,
            interpolation=data.interpolation,
        )
    )
    del batch["valid"]
    return batch


def load(folder, like):
    """Parameters and averages of a checkpoint, with the shapes of the state `like`."""
    wanted = {"params": like.params} | ({"ema": like.ema} if like.ema else {})
    parts = checkpoint.read_part(folder, lambda tree: wanted)
    return parts["params"], parts.get("ema", {})


def row(images):
    """Images side by side: `[B H W 3]` in [0, 1] -> uint8 `[H B*(W+2)-2 3]`."""
    pixels = np.uint8(np.round(255 * np.asarray(images)))
    pixels = np.pad(pixels, [(0, 0), (0, 0), (0, GAP), (0, 0)], constant_values=255)
    return np.concatenate(pixels, axis=1)[:, :-GAP]


def sheet(rows: dict[str, np.ndarray]) -> Image.Image:
    """All rows of `draw` below each other, named, small images enlarged."""
    scale = max(1, round(WIDE / min(x.shape[0] for x in rows.values())))
    rows = {name: x.repeat(scale, 0).repeat(scale, 1) for name, x in rows.items()}
    width = max(x.shape[1] for x in rows.values())
    height = sum(x.shape[0] + CAPTION + GAP for x in rows.values())
    out = Image.new("RGB", (width, height), "white")
    top = 0
    for name, pixels in rows.items():
        ImageDraw.Draw(out).text((GAP, top), name, fill="black")
        out.paste(Image.fromarray(pixels), (0, top + CAPTION))
        top += pixels.shape[0] + CAPTION + GAP
    return out
