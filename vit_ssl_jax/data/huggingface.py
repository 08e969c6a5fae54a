"""Sets of Hugging Face's `datasets` on a disk: saved by it, or Parquet files of its hub."""

import pathlib

from vit_ssl_jax.data import layout
from vit_ssl_jax.data.source import Source
from vit_ssl_jax.errors import UserError

EXTRA = "huggingface"


def open_saved(directory: str, split: str, label: str) -> Source:
    """Opens a split of a set; its image is the column "image" or else the first image.

    directory: what `save_to_disk` wrote, or a folder of Parquet files as the hub has
        them (`huggingface-cli download --repo-type=dataset`).
    label: a column of class labels; "": "label", or else the first.

    Raises UserError without the extra, and where there is no such set, split or column.
    """
    try:
        import datasets  # here because it is optional, and slow to import
    except ImportError as error:
        raise UserError(
            f"config.data.name: {EXTRA} needs a package more: pip install "
            f"'vit_ssl_jax[{EXTRA}]' ({error})"
        ) from error
    top = pathlib.Path(directory).expanduser()
    whole, copied = _load(datasets, top)
    rows, notes = _choose_split(whole, split, top)
    images = [n for n, f in rows.features.items() if isinstance(f, datasets.Image)]
    if not images:
        there = ", ".join(f"{n} ({type(f).__name__})" for n, f in rows.features.items())
        raise UserError(f"{top} has no column of images: it has {there}")
    image = "image" if "image" in images else images[0]
    column = _find_label(datasets, rows.features, label, top)
    names = tuple(rows.features[column].names) if column else ()
    rows = rows.cast_column(image, datasets.Image(decode=False))
    rows = rows.select_columns([image, *filter(None, [column])])

    def read(i: int) -> tuple[bytes, int]:
        row = rows[i]
        stored = row[image]
        if not stored or (stored["bytes"] is None and not stored["path"]):
            raise OSError(f"row {i} of {top} has no image")
        content = stored["bytes"] or pathlib.Path(stored["path"]).read_bytes()
        number = row[column] if column else None
        return content, -1 if number is None else int(number)

    return Source(
        name=f"{EXTRA} {split!r} in {top}",
        length=len(rows),
        read=read,
        where=lambda i: f"row {i} of {split!r} in {top}",
        class_names=names,
        notes=(*copied, *notes),
        portable=True,
    )


def _load(datasets, top: pathlib.Path):
    """The set of a folder by split, a `DatasetDict`, and notes; raises UserError."""
    if not str(top) or not top.is_dir():
        raise UserError(
            f"{EXTRA} set {str(top)!r} is no folder; give one: --config.data.dir=DIR"
        )
    try:
        if (top / "dataset_dict.json").exists():
            return datasets.load_from_disk(top), ()
        if (top / "state.json").exists():
            return datasets.DatasetDict(train=datasets.load_from_disk(top)), ()
        if any(top.rglob("*.parquet")):
            place = datasets.config.HF_DATASETS_CACHE
            note = f"the Parquet files of {top} are copied once, to {place}"
            return datasets.load_dataset(str(top)), (note,)
    except Exception as error:
        line = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UserError(f"{EXTRA} set {top} can't be read: {line[0]}") from error
    raise UserError(
        f"{top} is no {EXTRA} set: it has neither dataset_dict.json nor state.json "
        "(`save_to_disk`), nor Parquet files; for images there is "
        "--config.data.name=folder"
    )


def _choose_split(whole, split: str, top: pathlib.Path):
    """The rows of a split, by its name or what it means, and notes."""
    if split in whole:
        return whole[split], ()
    wanted = layout.meaning_of(split)
    for meaning in (wanted, {"validation": "test"}.get(wanted)):
        fitting = [
            name for name in whole if meaning and layout.meaning_of(name) == meaning
        ]
        if len(fitting) == 1:
            note = f"split {split!r} is {fitting[0]!r} of {top}: there is no other"
            return whole[fitting[0]], (note,)
    raise UserError(f"{top} has no split {split!r}: it has {', '.join(whole)}")


def _find_label(datasets, features, label: str, top: pathlib.Path) -> str:
    """The column of class labels; "" where there is none and none is asked for."""
    known = [n for n, f in features.items() if isinstance(f, datasets.ClassLabel)]
    if label and label not in known:
        raise UserError(
            f"config.data.label: {label!r} is no column of class labels of {top}; it has "
            f"{', '.join(known) or 'none'}"
        )
    if label:
        return label
    return "label" if "label" in known else next(iter(known), "")
