"""The pictures and tables of docs/methods/: what a method sees, and how a run of it went.

python -m tests.studies.method_pages task --out=docs/methods [--methods mae ...]
python -m tests.studies.method_pages answer WORKDIR --out=docs/methods/mae_run.webp
python -m tests.studies.method_pages curve WORKDIR

`task` draws the views of the ViT-B recipes on photographs of scikit-image: no network is
trained for it, and rows that a network makes are left out. `answer` cuts the first images
out of the sheet that a run leaves in its workdir. `curve` prints a run as a table.
"""

import argparse
import json
import pathlib

import jax
import numpy as np
import skimage.data
from PIL import Image

from vit_ssl_jax import build, drawing, partition, pictures, recipes, step
from vit_ssl_jax.data import loose

PHOTOS = ("astronaut", "chelsea", "coffee")
WIDE = 128  # pixels of a photo in the sheet
KNN = "eval/knn/"  # a share, shown in per cent
SMALL = {"vit.variant": "1x64x4/16", "vit.dtype": "float32", "vit.remat": "none"}
# Method -> its recipe, what is set for the picture, and the rows that need no network.
TASKS = {
    "mae": ("mae_vitb.py", {"method.decoder_depth": 1}, ("masked",)),
    "ijepa": ("ijepa_vitb.py", {"method.predictor_depth": 1}, ("context", "targets")),
    "relvit": (
        "relvit_vitb.py",
        {"method.shuffle": True},
        ("patches as they are seen",),
    ),
    "maskfeat": (
        "maskfeat_vitb.py",
        {},
        ("masked", "HOG of the hidden patches, true"),
    ),
    "rotation": ("rotation_vitb.py", {}, ("turned",)),
    "colorization": (
        "colorization_vitb.py",
        {},
        ("lightness, all that is seen", "true colours of the cells"),
    ),
    "jigsaw": ("jigsaw_vitb.py", {}, ("shuffled tiles",)),
    "context": ("context_vitb.py", {}, ("tiles at their true places",)),
    "supervised": (
        "supervised_vitb.py:modern",
        {"method.mix_groups": 1},
        ("as it is classified",),
    ),
    "dino": (
        "dino_vitb.py",
        {"method.prototypes": 64},
        ("global crop 1", "global crop 2", "local crop 1", "local crop 2"),
    ),
    "lejepa": (
        "lejepa_vitb.py",
        {"vit.variant": "1x64x4/14"},
        ("global crop 1", "global crop 2", "local crop 1", "local crop 2"),
    ),
}
# Of a run's log: the objective's own metric beside the loss, on held-out images.
METRICS = {
    "relvit": "relations_top1",
    "rotation": "top1",
    "colorization": "top1",
    "jigsaw": "top1",
    "context": "top1",
    "supervised": "top1",
    "dino": "divergence",
    "lejepa": "invariance",
}


def main():
    """Reads the command and does what it says."""
    parser = argparse.ArgumentParser(
        prog="tests.studies.method_pages", description=__doc__
    )
    commands = parser.add_subparsers(dest="command", required=True)
    task = commands.add_parser("task")
    task.add_argument("--out", type=pathlib.Path, required=True)
    task.add_argument("--methods", nargs="+", default=list(TASKS), choices=TASKS)
    answer = commands.add_parser("answer")
    answer.add_argument("workdir", type=pathlib.Path)
    answer.add_argument("--out", type=pathlib.Path, required=True)
    curve = commands.add_parser("curve")
    curve.add_argument("workdir", type=pathlib.Path)
    args = parser.parse_args()
    if args.command == "task":
        for name in args.methods:
            save(drawing.sheet(draw_task(name)), args.out / f"{name}.webp")
    elif args.command == "answer":
        save(cut(Image.open(args.workdir / "pictures.png")), args.out)
    else:
        print("\n".join(tabulate(args.workdir)))


def save(image, path):
    """Writes a WebP and says how large it is."""
    image.save(path, "WEBP", quality=80, method=6)
    print(f"{path}: {image.width}x{image.height}, {path.stat().st_size / 1e3:.0f} kB")


def draw_task(name):
    """The photographs and what the method makes of them: `{row: uint8 [h w 3]}`."""
    recipe, changes, wanted = TASKS[name]
    config = recipes.load(recipe, **SMALL | changes)
    model = build.make_model(
        config, partition.make_mesh(pictures.ONE, jax.local_devices()[:1])
    )
    photos = loose.read_images([getattr(skimage.data, photo)() for photo in PHOTOS])
    batch = drawing.read(photos, config.data, len(PHOTOS), model.size)
    method = model.method

    def draw(batch, key):
        params, ema = step.init_model(key, step.prepare(batch), method=method)
        views = method.make_views(key, step.prepare(batch))
        outputs = method.model.apply({"params": params}, views, False)
        targets = method.make_targets(ema, views, 0)
        rows = method.draw(outputs, targets, views)
        original = drawing.shrink(step.prepare(batch)["image"], model.encoder.size)
        rows = {drawing.ORIGINAL: original} | {row: rows[row] for row in wanted}
        return jax.tree.map(drawing.to_bytes, rows)

    with jax.set_mesh(model.mesh):  # compiled, so that what no row needs is left out
        rows = jax.device_get(jax.jit(draw)(batch, jax.random.key(0)))
    order = (drawing.ORIGINAL, *wanted)
    return {row: drawing.row(resize(rows[row]), WIDE) for row in order}


def resize(images):
    """Images at the sheet's size: uint8 `[B h w 3] -> [B 128 128 3]`."""
    side = Image.Resampling.LANCZOS
    return np.stack([Image.fromarray(x).resize((WIDE, WIDE), side) for x in images])


def cut(sheet, count=5, width=drawing.WIDE):
    """The first images of a sheet, from the left."""
    return sheet.crop((0, 0, count * (width + drawing.GAP) - drawing.GAP, sheet.height))


def tabulate(workdir):
    """Lines of a Markdown table: loss, the objective's metric, RankMe and k-NN by step."""
    name = json.loads((workdir / "config.json").read_text())["method"]["name"]
    metric = METRICS.get(name, "")
    columns = {
        "loss": ("train/loss", "{:.3f}"),
        metric: (f"train/{metric}", "{:.3f}"),
        "RankMe": ("ssl/rankme", "{:.1f}"),
        "feature std": ("ssl/feature_std", "{:.2f}"),
        "k-NN, %": (KNN, "{:.1f}"),
    }
    columns.pop("", None)
    lines = [
        "| step | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for done, row in read(workdir).items():
        cells = [show(row, *column) for column in columns.values()]
        lines.append("| " + " | ".join([str(done), *cells]) + " |")
    return lines


def read(workdir):
    """All metrics of a run by step."""
    rows = {}
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows.setdefault(row["step"], {}).update(row)
    return dict(sorted(rows.items()))


def show(row, name, form):
    """A cell: the metric whose name holds `name`, empty where there is none."""
    found = [value for key, value in row.items() if name in key]
    if not found:
        return ""
    return form.format(100 * found[0] if name == KNN else found[0])


if __name__ == "__main__":
    main()
