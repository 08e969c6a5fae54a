"""A run's task as pictures: made on the devices, put together as rows and as a sheet."""

import collections
import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vit_ssl_jax import finished, partition, step
from vit_ssl_jax.data import pipeline

ORIGINAL = "original"  # the first row
GAP, CAPTION = 2, 14  # pixels: between images, of a line of text
WIDE = 96  # pixels that an image is enlarged to, at least


def make_program(model, count):
    """`draw(state, batch, key) -> {name: array}` of `count` images of a batch `[B ...]`.

    model: a `build.Model`; batch: as training's, on the devices. What the images are is
    told by the method's `draw` and `draw_more` (`methods.Method`); here they are uint8.
    They are whole on every device, in the order of the method.
    """
    method, size = model.method, model.encoder.size

    def draw(state, batch, key):
        batch = step.prepare(batch)
        views = method.make_views(key, batch)
        outputs = method.model.apply({"params": state.params}, views, False)
        targets = method.make_targets(state.ema, views, state.step)
        rows = collections.OrderedDict({ORIGINAL: shrink(batch["image"], size)})
        rows.update(method.draw(outputs, targets, views))
        rows.update(method.draw_more(state.params, state.ema, views))
        return jax.tree.map(lambda x: to_bytes(x[:count]), rows)

    whole = partition.replicated(model.mesh)
    return step.with_mesh(jax.jit(draw, out_shardings=whole), model.mesh)


def shrink(image, size):
    """Images at the size of the views, where they are larger: `[B H W 3]`."""
    if image.shape[1:3] == size:
        return image
    return jax.image.resize(image, (len(image), *size, 3), "linear")


def to_bytes(x):
    """Images in [0, 1] as uint8; classes and shares `[B]` as they are."""
    return jnp.uint8(jnp.round(255.0 * jnp.clip(x, 0.0, 1.0))) if x.ndim == 4 else x


def draw_rows(program, model, state, batch, seed, names):
    """The rows of a state by `make_program`: `{name: uint8 [h w 3]}`.

    batch: numpy, of `read`; every process has it whole. names: of the classes.
    """
    count = len(batch["image"])
    rows = np.arange(partition.fill_ways(count, model.mesh)) % count
    batch = {name: x[rows] for name, x in batch.items()}
    batch = partition.put(batch, partition.batch_sharding(model.mesh))
    key = jax.random.key_data(jax.random.key(seed))
    key = partition.put(np.asarray(key), partition.replicated(model.mesh))
    state = state.replace(opt_state=(), probe={})
    found = program(state, batch, jax.random.wrap_key_data(key))
    return lay_out(jax.device_get(found), names)


def read(source, data, count, size):
    """Images from all over a source as evaluation sees them: `{image, label, id}`.

    `count` of them at even distances, uint8 `[count h w 3]`. `data` is `config.data`.
    Raises UserError where none can be read.
    """
    chosen = source.pick(np.arange(count) * len(source) // count)
    chosen = dataclasses.replace(chosen, portable=False, parts=())
    batch = next(
        pipeline.eval_batches(
            chosen,
            batch_size=count,
            size=tuple(size),
            resize=finished.scale_resize(data, size),
            squash=data.squash,
            interpolation=data.interpolation,
            processes=0,
        )
    )
    del batch["valid"]
    return batch


def lay_out(rows, names):
    """Images side by side, all of one width: `{name: [B ...]} -> {name: [h w 3]}`.

    uint8. Small images are enlarged, to WIDE at least, by whole numbers where that can
    be. Classes become names, shares per cent.
    """
    widest = max(x.shape[2] for x in rows.values() if x.ndim == 4)
    width = widest * max(1, round(WIDE / widest))
    return {
        name: row(x, width) if x.ndim == 4 else text_row(captions(x, names), width)
        for name, x in rows.items()
    }


def row(images, width):
    """Images side by side: uint8 `[B h w 3]` -> `[h' B*(width+2)-2 3]`."""
    times, rest = divmod(width, images.shape[2])
    if rest:
        height = round(images.shape[1] * width / images.shape[2])
        resized = [
            Image.fromarray(x).resize((width, height), Image.Resampling.NEAREST)
            for x in images
        ]
        images = np.stack(resized)
    else:
        images = images.repeat(times, 1).repeat(times, 2)
    space = [(0, 0), (0, 0), (0, GAP), (0, 0)]
    pixels = np.pad(images, space, constant_values=255)
    return np.concatenate(pixels, axis=1)[:, :-GAP]


def captions(values, names):
    """Words of classes `[B]` int, "-" for none, or of shares `[B]` float."""
    if np.issubdtype(values.dtype, np.floating):
        return [f"{100 * x:.0f} %" for x in values]
    known = dict(enumerate(names))
    return ["-" if i < 0 else str(known.get(int(i), int(i))) for i in values]


def text_row(texts, width):
    """Words side by side, cut to `width` pixels each: `[14 B*(width+2)-2 3]`."""
    whole = len(texts) * (width + GAP) - GAP
    out = Image.new("RGB", (whole, CAPTION), "white")
    pen = ImageDraw.Draw(out)
    for i, text in enumerate(texts):
        pen.text((i * (width + GAP), 0), fit(text, width), fill="black")
    return np.asarray(out)


def fit(text, width):
    """What of a text has room in `width` pixels, with an ellipsis where it is cut."""
    font = ImageFont.load_default()
    text = " ".join(text.split()).encode("latin-1", "replace").decode("latin-1")
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def sheet(rows: dict[str, np.ndarray]) -> Image.Image:
    """All rows of `pictures.draw` below each other, each under its name."""
    width = max(x.shape[1] for x in rows.values())
    height = sum(x.shape[0] + CAPTION + GAP for x in rows.values())
    out = Image.new("RGB", (width, height), "white")
    top = 0
    for name, pixels in rows.items():
        ImageDraw.Draw(out).text((GAP, top), fit(name, width), fill="black")
        out.paste(Image.fromarray(pixels), (0, top + CAPTION))
        top += pixels.shape[0] + CAPTION + GAP
    return out


def png(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG."""
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
