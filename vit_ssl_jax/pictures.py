"""What a trained run makes of images: its masks, reconstructions, turned tiles."""

import os

import jax
import numpy as np
from PIL import Image, ImageDraw

from vit_ssl_jax import finished, openers, partition, step
from vit_ssl_jax.data import from_python, pipeline
from vit_ssl_jax.errors import UserError

ONE = dict(data=1, fsdp=1, tensor=1)  # a mesh of one device
GAP, CAPTION, WIDE = 2, 14, 96  # pixels: between images, above them, of an image


def draw(
    workdir: str | os.PathLike,
    split: str = "",
    *,
    data: from_python.Data | None = None,
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
    trained = finished.read_trained(workdir)
    config = trained.config
    open_source = openers.make_opener(config, data)
    names = config.data.name, config.data.dir, split or config.data.split
    kinds = dict(labels=config.data.labels, label=config.data.label)
    source = open_source(*names, **kinds)
    if not 1 <= count <= len(source):
        raise UserError(
            f"count={count}: the split has {len(source)} images; give 1 to that"
        )
    mesh = partition.make_mesh(ONE, jax.local_devices()[:1])
    model, state = finished.load_model(trained, mesh)
    return draw_state(model, state, read(source, config.data, count), seed)


def draw_state(model, state, batch, seed):
    """The rows of `draw` of a `build.Model`, its state and a batch as of `read`."""

    @jax.jit
    def pictures(state, batch, key):
        method = model.method
        views = method.make_views(key, step.prepare(batch))
        outputs = method.model.apply({"params": state.params}, views, False)
        targets = method.make_targets(state.ema, views, state.step)
        return method.draw(outputs, targets, views)

    batch = step.put_batch(batch, model.mesh)
    with jax.set_mesh(model.mesh):
        rows = jax.device_get(pictures(state, batch, jax.random.key(seed)))
    return {name: row(images) for name, images in rows.items()}


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
