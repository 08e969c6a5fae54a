"""What a trained run makes of images: its masks, reconstructions, turned tiles."""

import json
import os

import jax
import numpy as np

from vit_ssl_jax import drawing, finished, openers, partition
from vit_ssl_jax.data import from_python, loose, sources
from vit_ssl_jax.errors import UserError

ONE = dict(data=1, fsdp=1, tensor=1)  # a mesh of one device
sheet = drawing.sheet  # of what `draw` gives


def draw(
    workdir: str | os.PathLike,
    split: str = "",
    *,
    images=None,
    data: from_python.Data | None = None,
    count: int = 8,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Draws a run's task on images: `{name: uint8 [h count*(w+2)-2 3]}`, a row a name.

    workdir: of the run (its newest checkpoint), or a `checkpoints/STEP` in it; a file of
        published weights that has all of the method (MAE's with its decoder).
    split: of its data; "" is the one that it trained on.
    images: instead of a split a folder, read to any depth, or a list of paths, PIL
        images and arrays uint8 `[h w 3]`; they have no classes.
    data: given again where the run was given it (`train.train`).
    count, seed: so many images, from all over the split or the folder, and of `images`
        at most; `seed` draws the masks.

    The images themselves come first, then what `draw` and `draw_more` of
    `methods/NAME.py` make of them; images of less than 96 pixels are enlarged. Raises
    UserError where there is no checkpoint, or no such split.
    """
    trained = finished.read_trained(workdir)
    config = trained.config
    if images is None:
        source = open_split(config, split, data)
        if not 1 <= count <= len(source):
            raise UserError(
                f"count={count}: the split has {len(source)} images; give 1 to that"
            )
    else:
        source = open_images(images)
        count = min(count, len(source))
        if count < 1:
            raise UserError(f"count={count}: give 1 or more, and images")
    mesh = partition.make_mesh(ONE, jax.local_devices()[:1])
    model, state = finished.load_model(trained, mesh)
    batch = drawing.read(source, config.data, count, model.size)
    program = drawing.make_program(model, count)
    names = source.class_names or read_names(trained.saved)
    return drawing.draw_rows(program, model, state, batch, seed, names)


def open_split(config, split, data):
    """The source of a split of a run's data."""
    open_source = openers.make_opener(config, data)
    names = config.data.name, config.data.dir, split or config.data.split
    kinds = dict(labels=config.data.labels, label=config.data.label)
    return open_source(*names, **kinds)


def open_images(images):
    """The source of a folder, or of images in a list."""
    if isinstance(images, str | os.PathLike) and os.path.isdir(images):
        return sources.open_files(os.fspath(images))[0]
    return loose.read_images(images)


def read_names(saved):
    """Names of the classes that a run was trained on, as its data.json has them."""
    try:
        return json.loads((saved.home / "data.json").read_text()).get("classes") or ()
    except (AttributeError, OSError, ValueError):
        return ()
