"""Tar archives as a source, read where they lie: WebDataset's, or a class each."""

import pathlib

from vit_ssl_jax.data import archives, folder, stores
from vit_ssl_jax.data.source import Source
from vit_ssl_jax.errors import UserError


def open_archives(
    directory: str,
    split: str,
    *,
    labels: bool,
    labels_file: str = "",
    extra_classes: str = "error",
    hold_out: bool = False,
) -> Source:
    """Opens a split of a tar, or of a folder of tars; reads their indices alone.

    Splits and classes are those of the paths in them, see `archives.index`, as
    `folder.find_images` finds them. Raises UserError as they do.
    """
    if not directory:
        raise UserError(
            "tars need a directory, but it is ''. Give a tar, or a folder of them: "
            "--config.data.dir=DIR"
        )
    if stores.is_stored(directory):
        raise UserError(
            f"tars in a store aren't read in place ({directory}); copy them to a disk, or "
            "there python -m vit_ssl_jax.data.prepare TARS DST, whose shards may lie in gs://"
        )
    top = pathlib.Path(directory).expanduser()
    if not top.exists():
        raise UserError(f"{directory!r} doesn't exist ({top.absolute()}).")
    if not archives.find_archives(top):
        raise UserError(
            f"{top} is no tar and holds none; for image files there is "
            "--config.data.name=folder"
        )
    members, splits, named = archives.arrange(top, labels_file if labels else "")
    if hold_out:
        splits = folder.hold_out_some(splits, top)
    named = named if labels else {}
    images = folder.choose_images(top, splits, split, labels, named, extra_classes)
    places = [archives.place(members, top, images.root / p) for p in images.paths]
    numbers = images.labels
    return Source(
        name=f"tars {top}",
        length=len(places),
        read=lambda i: (places[i].read(), numbers[i]),
        where=lambda i: f"{images.root / images.paths[i]} in {places[i].archive}",
        class_names=images.class_names,
        notes=images.notes,
        portable=True,
        names=lambda: [str(path) for path in images.paths],
    )
