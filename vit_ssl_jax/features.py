"""python -m vit_ssl_jax.features --checkpoint=RUN --images=DIR --out=FILE

Features of every image below a folder by a trained encoder, with the files' names:
.npz (`features`, `files`), .parquet (columns file, features) or .npy (names beside it).
The same command goes on where it was stopped.
"""

import functools
import importlib.util
import json
import os
import pathlib
import shutil
from collections.abc import Callable

import numpy as np

from vit_ssl_jax import arguments, command
from vit_ssl_jax.errors import UserError, printable

FORMS = (".npz", ".parquet", ".npy")
PART = 1024  # images of a part that is saved


def write_features(
    checkpoint: str | os.PathLike,
    images: str | os.PathLike,
    out: str | os.PathLike,
    *,
    layer: int = 0,
    pool: str = "mean",
    batch_size: int = 64,
    say: Callable[[str], None] = print,
) -> np.ndarray:
    """Writes features of all images of a folder to a file; returns them, `[n D]`.

    checkpoint: a run's workdir, or a `checkpoints/STEP` in it. images: a folder, read
    to any depth. out: see the head of this file. layer, pool: see `Encoder.features`.
    Images that can't be read are left out and named. What is done is kept beside `out`
    until the end. Raises UserError for what isn't there.
    """
    out = arguments.check_out(out, FORMS)
    check_parquet(out)
    arguments.check_checkpoint(checkpoint)
    arguments.check_images(images)
    from vit_ssl_jax import encoder  # after the paths: a typo answers at once
    from vit_ssl_jax.data import card, sources

    source, lines = sources.open_files(os.fspath(images))
    for line in lines:
        say(line)
    model = encoder.load(checkpoint)
    layer = model.find_layer(layer, pool)
    say(
        f"{len(source):,} images to {'x'.join(map(str, model.size))} px, {pool} of block "
        f"{layer} of {model.module.depth}, by {model.checkpoint}"
    )
    settings = dict(checkpoint=str(model.checkpoint), layer=layer, pool=pool)
    folder = open_parts(out, {**settings, "images": card.fingerprint(source)})
    rows = functools.partial(model.batches, layer=layer, pool=pool)
    for start in missing_parts(folder, len(source), say):
        part = source.part(start, min(start + PART, len(source)))
        save_part(folder, start, part, rows(part, batch_size=batch_size))
    features, files, broken = join_parts(folder)
    names = [os.path.relpath(source.where(i), images) for i in files]
    write(out, features, names)
    shutil.rmtree(folder)
    for i in broken[:10]:
        say(printable(f"left out, for it can't be read: {source.where(i)}"))
    if len(broken) > 10:
        say(f"and {len(broken) - 10} more")
    say(f"{out}: {len(files):,} images, features {list(features.shape[1:])} float32")
    return features


def check_parquet(out: pathlib.Path) -> None:
    """Raises UserError where .parquet can't be written."""
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError(
            f"--out={out}: .parquet needs `pip install pyarrow`; .npz needs nothing"
        )


def open_parts(out: pathlib.Path, settings: dict) -> pathlib.Path:
    """The folder of what is done, emptied where it was done in another way."""
    folder = out.with_name(f"{out.name}.parts")
    file, text = folder / "settings.json", json.dumps(settings)
    if not (file.exists() and file.read_text() == text):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir()
            file.write_text(text)
        except OSError as error:
            raise UserError(
                f"--out={out} can't be written ({error.strerror})"
            ) from None
    return folder


def missing_parts(folder: pathlib.Path, images: int, say: Callable):
    """First images of the parts that are still to do, with a bar of progress."""
    import tqdm

    starts = range(0, images, PART)
    todo = [start for start in starts if not (folder / f"{start:012}.npz").exists()]
    if len(todo) < len(starts):
        say(f"going on: {len(starts) - len(todo)} of {len(starts)} parts are done")
    return tqdm.tqdm(todo, unit_scale=PART, unit=" images", disable=len(todo) < 2)


def save_part(folder: pathlib.Path, start: int, part, batches) -> None:
    """Writes a part whole or not at all."""
    _, valid, rows = zip(*batches, strict=True)
    rows, valid = np.concatenate(rows), np.concatenate(valid)
    ids = start + np.arange(len(part))
    new = folder / "new.npz"
    np.savez(new, rows=rows[valid], ids=ids[valid], broken=ids[~valid])
    new.replace(folder / f"{start:012}.npz")


def join_parts(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All parts in order: features `[n ...]`, numbers of their images, of the broken."""
    parts = [np.load(file) for file in sorted(folder.glob("0*.npz"))]
    joined = [
        np.concatenate([p[key] for p in parts]) for key in ("rows", "ids", "broken")
    ]
    if not len(joined[0]):
        raise UserError("none of the images can be read")
    return tuple(joined)


def write(out: pathlib.Path, features: np.ndarray, names: list[str]) -> None:
    """Writes features and file names in the form of `out`'s suffix, whole or not at all."""
    new = out.with_name(f"{out.stem}.new{out.suffix}")
    if out.suffix == ".npz":
        np.savez(new, features=features, files=np.array(names))
    elif out.suffix == ".npy":
        np.save(new, features)
        out.with_suffix(".files.txt").write_text("".join(f"{n}\n" for n in names))
    else:
        import pyarrow
        import pyarrow.parquet

        rows = pyarrow.array(list(features.reshape(len(features), -1)))
        table = pyarrow.table({"file": names, "features": rows})
        shape = ",".join(map(str, features.shape[1:]))
        table = table.replace_schema_metadata({"shape": shape})
        pyarrow.parquet.write_table(table, new)
    new.replace(out)


def execute(checkpoint, images, out, layer, pool, batch_size):
    """Runs the command."""
    write_features(
        checkpoint,
        images,
        out,
        layer=arguments.whole_number("layer", layer or "0", least=-99),
        pool=pool or "mean",
        batch_size=arguments.whole_number("batch_size", batch_size or "64", least=1),
    )


if __name__ == "__main__":
    command.start(
        execute,
        optional=("layer", "pool", "batch_size"),
        checkpoint="Workdir of a run, WORKDIR:best, or its checkpoints/STEP.",
        images="Folder of images, read to any depth.",
        out="File to write: .npz, .parquet or .npy.",
        layer="Block whose output is taken, 1 to the depth; 0 (default): the last.",
        pool="mean (default), cls or patches.",
        batch_size="Images at a time, of all devices together; 64.",
    )
