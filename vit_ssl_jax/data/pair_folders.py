"""Folders of images with maps, as people download them: which files belong together.

`folder`: ADE20K's layout, and what is easiest to make of one's own:
    images/SPLIT/NAME.jpg with annotations/SPLIT/NAME.png (or maps/, depth/)
    (ADEChallengeData2016: SPLIT is training or validation)
`voc`: VOCdevkit/VOC2012 or VOC2012 itself:
    ImageSets/Segmentation/SPLIT.txt, JPEGImages/NAME.jpg, SegmentationClass/NAME.png
`nyu`: NYU Depth v2 as BTS and the Monocular-Depth-Estimation-Toolbox hand it out:
    nyu_SPLIT.txt with a line "kitchen/rgb_00045.jpg kitchen/sync_depth_00045.png 518.8"
    an image, depths in 16-bit PNGs of millimetres
"""

import dataclasses
import pathlib
from collections.abc import Callable

from vit_ssl_jax.data import folder, stores, walk
from vit_ssl_jax.errors import UserError

MAPS = ("annotations", "maps", "depth")  # folders of maps, beside `images`
SUFFIXES = (".png", ".tif", ".tiff")  # of maps
SHOWN = 3  # names in a message


@dataclasses.dataclass(frozen=True)
class Found:
    """Pairs of paths, image and map, and what was left out, a line each."""

    paths: list[tuple[pathlib.Path, pathlib.Path]]
    notes: tuple[str, ...] = ()


def find(name: str, directory: str, split: str) -> Found:
    """The pairs of a split of a layout, a key of LAYOUTS, by name of file.

    Raises UserError for a folder that isn't laid out so, an unknown split, images
    without a map and an empty split.
    """
    if not directory:
        raise UserError(
            f"{name} is read from a folder, and none is given: --config.tasks.NAME.dir=DIR"
        )
    if stores.is_stored(directory):
        raise UserError(
            f"{directory}: images with maps are read from a disk; copy them there"
        )
    top = folder.check_directory(directory)
    found = LAYOUTS[name](top, split)
    if not found.paths:
        raise UserError(f"{top}: there are no images with maps in split {split!r}")
    return found


def find_folder(top: pathlib.Path, split: str) -> Found:
    """images/SPLIT and annotations/SPLIT."""
    top = _inside(top, ("", "ADEChallengeData2016"), "images")
    kinds = [kind for kind in MAPS if (top / kind).is_dir()]
    if not kinds:
        raise UserError(
            f"{top} has images but no maps: put those of images/{split} into "
            f"annotations/{split}, by the same names"
        )
    images, maps = top / "images" / split, top / kinds[0] / split
    for needed in (images, maps):
        if not needed.is_dir():
            there = sorted(p.name for p in needed.parent.iterdir() if p.is_dir())
            raise UserError(
                f"{needed.parent} has no split {split!r}: choose "
                f"{', '.join(there) or 'another folder'}; images and maps need it both"
            )
    files = sorted(
        p for p in images.iterdir() if walk.suffix_of(p.name) in walk.SUFFIXES
    )
    by_stem = {p.stem: p for p in maps.iterdir() if p.suffix.lower() in SUFFIXES}
    pairs = [(path, by_stem.get(path.stem)) for path in files]
    _check_maps([path.name for path, read in pairs if read is None], len(files), maps)
    return Found(pairs)


def find_voc(top: pathlib.Path, split: str) -> Found:
    """ImageSets/Segmentation/SPLIT.txt."""
    places = "", "VOC2012", "VOCdevkit/VOC2012"
    top = _inside(top, places, "ImageSets/Segmentation")
    names = _lines(top / "ImageSets" / "Segmentation", split)
    maps = top / "SegmentationClass"
    pairs = [
        (top / "JPEGImages" / f"{name}.jpg", maps / f"{name}.png") for name in names
    ]
    _check_files(pairs)
    return Found(pairs)


def find_nyu(top: pathlib.Path, split: str) -> Found:
    """nyu_SPLIT.txt; lines whose depth is "None" are left out."""
    top = _inside(top, ("", "nyu", "NYU"), f"nyu_{split}.txt")
    pairs, missing = [], 0
    for line in _lines(top, f"nyu_{split}"):
        image, *rest = line.split()
        if not rest:
            raise UserError(
                f"{top}/nyu_{split}.txt: {line!r} isn't understood; a line is an image, "
                "its depths and the focal length"
            )
        if rest[0] == "None":
            missing += 1
            continue
        pairs.append(tuple(top / part.lstrip("/") for part in (image, rest[0])))
    _check_files(pairs)
    note = f"{missing} images of {top}/nyu_{split}.txt have no depths: left out"
    return Found(sorted(pairs), (note,) * bool(missing))


LAYOUTS: dict[str, Callable[[pathlib.Path, str], Found]] = {
    "folder": find_folder,
    "voc": find_voc,
    "nyu": find_nyu,
}


def _inside(top: pathlib.Path, places: tuple[str, ...], needed: str) -> pathlib.Path:
    """The first of the places below `top` that has what is needed."""
    for place in places:
        if (top / place / needed).exists():
            return top / place
    raise UserError(
        f"{top} has no {needed}, nor has "
        f"{' or '.join(f'{top}/{place}' for place in places if place)}; name the folder "
        "that holds it (config.tasks.NAME.dir, .set and .train or .test)"
    )


def _lines(place: pathlib.Path, name: str) -> list[str]:
    """The lines of NAME.txt that aren't empty; UserError without such a file."""
    path = place / f"{name}.txt"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in place.glob("*.txt")))
        raise UserError(
            f"there is no split {name!r}, for there is no {path}; there are "
            f"{there or 'none'}"
        )
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def _check_files(pairs: list[tuple[pathlib.Path, pathlib.Path]]) -> None:
    """Raises UserError unless all files of a list are there."""
    images = [str(image) for image, _ in pairs if not image.is_file()]
    if images:
        raise UserError(
            f"{len(images)} of the {len(pairs)} images of the list are missing, such as "
            f"{', '.join(images[:SHOWN])}"
        )
    maps = [str(read) for _, read in pairs if not read.is_file()]
    _check_maps(maps, len(pairs), pairs[0][1].parent if pairs else "")


def _check_maps(missing: list[str], count: int, place) -> None:
    """Raises UserError unless every image has a map."""
    if missing:
        raise UserError(
            f"{len(missing)} of {count} images have no map in {place}, such as "
            f"{', '.join(missing[:SHOWN])}; add them, or take those images out"
        )
