"""What crops of the input's window are of the photo, beside crops of the photo itself.

python -m tests.studies.crops [--images=DIR] [--window 384]

For the sizes of the images of a folder, or photos of 500x375 px without one: the share of
the photo that a crop shows, how much two global crops have in common, and how many local
crops are enlarged. Prints the table of docs/results/crops.md.
"""

import argparse
import pathlib

import numpy as np
from PIL import Image

from vit_ssl_jax.data import crops

RATIO, DRAWS = (3 / 4, 4 / 3), 4000
KINDS = {"global": ((0.25, 1.0), 224), "local": ((0.05, 0.25), 96)}  # of dino_vitb.py


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="tests.studies.crops", description=__doc__)
    parser.add_argument("--images", type=pathlib.Path)
    parser.add_argument("--window", type=int, default=384)
    args = parser.parse_args()
    sizes = read_sizes(args.images) if args.images else [(375, 500)]
    print(
        f"{len(sizes)} size(s), short side / long side {share_of(sizes):.2f} on average\n"
    )
    print(
        "| crops of | global, % | local, % | overlap of two global | local enlarged |"
    )
    print("|---|---|---|---|---|")
    ways = {
        "the photo itself, as published": 0,
        f"a window of {args.window}": args.window,
    }
    for name, window in (ways | {"a window of 224": 224}).items():
        print("| " + " | ".join([name, *row(sizes, window)]) + " |")


def read_sizes(folder):
    """(height, width) of all images below a folder."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            with Image.open(path) as image:
                found.append(image.size[::-1])
    return found


def share_of(sizes):
    """The mean of short side / long side, which is a window's share of the photo."""
    return np.mean([min(size) / max(size) for size in sizes])


def row(sizes, window):
    """Cells of a way; `window` 0: the photo itself."""
    rng = np.random.default_rng(0)
    areas, common, enlarged = {kind: [] for kind in KINDS}, [], []
    for i in range(DRAWS):
        size = np.array(sizes[i % len(sizes)], float)
        side, corner = size, np.zeros(2)
        pixels = tuple(int(s) for s in size)
        if window:
            side = np.full(2, size.min())
            corner = rng.uniform(size=2) * (size - side)
            pixels = (window, window)
        # Boxes in parts of the photo: top, left, height, width.
        boxes = {}
        for kind, (scale, out) in KINDS.items():
            drawn = [
                np.array(crops.draw_box(rng, pixels, scale=scale, ratio=RATIO), float)
                for _ in range(2)
            ]
            if kind == "local":
                enlarged += [np.sqrt(box[2] * box[3]) < out for box in drawn]
            scaled = [box * np.tile(side / pixels, 2) for box in drawn]
            boxes[kind] = [box + np.concatenate([corner, [0, 0]]) for box in scaled]
            areas[kind] += [box[2] * box[3] / size.prod() for box in boxes[kind]]
        common.append(overlap(*boxes["global"]))
    cells = []
    for values in areas.values():
        low, high = np.percentile(values, [5, 95])
        span = f"{100 * low:.0f} to {100 * high:.0f}"
        cells.append(f"{100 * np.mean(values):.1f} ({span})")
    cells.append(f"{100 * np.mean(common):.0f} %")
    return [*cells, f"{100 * np.mean(enlarged):.0f} %"]


def overlap(a, b):
    """What two boxes have in common over what they cover together."""
    low = np.maximum(a[:2], b[:2])
    high = np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    both = np.prod(np.maximum(high - low, 0.0))
    return both / (a[2] * a[3] + b[2] * b[3] - both)


if __name__ == "__main__":
    main()
