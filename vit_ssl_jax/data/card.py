"""The data card of a run: how many images of which kind, and what becomes of them."""

import collections
import contextlib
import hashlib
import io
import os
import warnings

import numpy as np
from PIL import Image

from vit_ssl_jax.data import augment
from vit_ssl_jax.data.source import Source

SAMPLE = 200  # images that are looked at
MOST = 20_000  # files among which copies are looked for
SHRINKS = 4  # more than so many times is worth a warning


def make_card(source: Source, data) -> dict:
    """Describes a split: plain values, to be shown by `describe` and saved as JSON.

    data: `config.data`; of it what says how a training image is cut.
    Of an evenly spread sample of images the heads alone are read.
    """
    looks = look_at(source, SAMPLE)
    sizes = [one["size"] for one in looks if one]
    card = dict(
        name=source.name,
        images=len(source),
        classes=list(source.class_names),
        looked_at=len(looks),
        unreadable=sum(1 for one in looks if not one),
        several_pages=[one["where"] for one in looks if one and one["pages"] > 1],
        modes=dict(collections.Counter(one["mode"] for one in looks if one)),
        notes=list(source.notes),
        fingerprint=fingerprint(source),
        copies=find_copies(source),
    )
    if sizes:
        middle = tuple(int(side) for side in np.median(sizes, axis=0))
        card["heights_widths"] = dict(
            least=np.min(sizes, axis=0).tolist(),
            median=list(middle),
            most=np.max(sizes, axis=0).tolist(),
        )
        card["training"] = describe_way(middle, data)
        card["shrinks"] = min(middle) / shorter_side(middle, data)
    return card


def spread(source: Source, count: int) -> np.ndarray:
    """Numbers of `count` images, or all, evenly spread over a source."""
    return np.unique(np.linspace(0, len(source) - 1, count).astype(int))


def look_at(source: Source, count: int) -> list[dict | None]:
    """What `look` says of so many images, evenly spread."""
    return [look(source, int(i)) for i in spread(source, count)]


def look(source: Source, i: int) -> dict | None:
    """Size `(height, width)`, mode and number of pages of image i; None if unreadable."""
    try:
        image, _ = source.read(i)
        if isinstance(image, np.ndarray):
            size, mode, pages = image.shape[:2], "RGB", 1
        else:
            with warnings.catch_warnings(), Image.open(io.BytesIO(image)) as opened:
                warnings.simplefilter("ignore")
                turned = opened.getexif().get(0x0112, 1) > 4
                size = opened.size if turned else opened.size[::-1]
                mode, pages = opened.mode, getattr(opened, "n_frames", 1)
    except Exception:  # noqa: BLE001 - Pillow's plugins raise what they like
        return None
    return dict(size=tuple(size), mode=mode, pages=pages, where=source.where(i))


def shorter_side(size: tuple[int, int], data) -> float:
    """The short side in pixels of a whole image of this size as training shows it."""
    if data.train_resize or not data.crop:
        return max(data.train_resize or data.resize, min(augment.train_size(data)))
    # A crop of the share s is shown at that size: the whole image would be larger.
    share = (data.crop[0] + data.crop[1]) / 2
    return min(augment.train_size(data)) / share**0.5


def describe_way(size: tuple[int, int], data) -> str:
    """What training does to an image of this size, as "533x400 -> ... -> 224x224"."""
    end = "x".join(map(str, augment.train_size(data)))
    if data.crop:
        percent = "-".join(f"{100 * share:g}" for share in data.crop)
        way = f"a crop of {percent} % of it"
    else:
        side = data.train_resize or data.resize
        way = f"{'sides' if data.squash else 'short side'} {side} -> a crop"
    return f"{size[0]}x{size[1]} -> {way} -> {end}"


def describe(card: dict) -> list[str]:
    """A data card as lines for the console; the notes are said elsewhere."""
    lines = []
    if "training" in card:
        sizes = card["heights_widths"]
        span = "x".join(map(str, sizes["least"])), "x".join(map(str, sizes["most"]))
        kinds = ", ".join(sorted(card["modes"]))
        lines.append(
            f"data: heights x widths from {span[0]} to {span[1]} ({kinds}; of "
            f"{card['looked_at']} looked at); in training {card['training']}"
        )
        if card["shrinks"] > SHRINKS:
            lines.append(
                f"note: images shrink {card['shrinks']:.1f} times, which leaves little of "
                "them; configs/own.py is for images of this size (224 px)"
            )
    if pages := card["several_pages"]:
        lines.append(
            f"note: {len(pages)} of {card['looked_at']} images have several pages or "
            f"frames, of which the first is taken, such as {pages[0]}"
        )
    if card["unreadable"]:
        lines.append(
            f"note: {card['unreadable']} of {card['looked_at']} images looked at can't "
            "be read"
        )
    if card["copies"]:
        lines.append(
            f"note: {card['copies']['files']:,} images are copies of others, such as "
            f"{' = '.join(card['copies']['example'])}"
        )
    return lines


def fingerprint(source: Source) -> str:
    """A hash of which images a source has: of files their names, sizes and times.

    Of a path only the last two parts count, so that a folder may move. Of more than
    MOST files so many, evenly spread, are looked at. A list of names is told by itself.
    """
    digest = hashlib.sha256(f"{len(source)}{source.chosen}".encode())
    looked_at = set(spread(source, MOST).tolist()) if source.files else ()
    for i in range(len(source) if source.files else 0):
        path = source.where(i)
        about = stat(path) if i in looked_at else None
        told = (about.st_size, about.st_mtime_ns) if about else ()
        name = path.split(os.sep)[-2:]
        digest.update(repr((name, *told)).encode(errors="surrogateescape"))
    return digest.hexdigest()


def stat(path: str) -> os.stat_result | None:
    """What the system says of a file; None where there is none."""
    try:
        return os.stat(path)
    except OSError:
        return None


def find_copies(source: Source) -> dict | None:
    """How many files are copies of another by content, and two of them; None: none.

    Only files of the same length are read; of more than MOST files none.
    """
    if not source.files or len(source) > MOST:
        return None
    by_length = collections.defaultdict(list)
    for i in range(len(source)):
        if about := stat(source.where(i)):
            by_length[about.st_size].append(i)
    alike = [i for group in by_length.values() if len(group) > 1 for i in group]
    by_content = collections.defaultdict(list)
    for i in alike:
        with contextlib.suppress(OSError):
            content = hashlib.sha256(source.read(i)[0]).digest()
            by_content[content].append(source.where(i))
    same = [paths for paths in by_content.values() if len(paths) > 1]
    if not same:
        return None
    return dict(files=sum(len(p) - 1 for p in same), example=sorted(same[0])[:2])
