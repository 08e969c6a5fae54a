"""Writes images into ArrayRecord shards, which are read fast and in any order.

python -m vit_ssl_jax.data.prepare SRC DST [--labels=FILE] [--resize=256]

SRC is a folder of images as `config.data.name=folder` takes it, a tar, or a folder of tars:
the official ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar (with
--labels=ILSVRC2012_validation_ground_truth.txt), ImageNet-21k's tar a class, WebDataset's.
The set is DST/NAME/1.0.0; the same command goes on where it stopped. To train on it:
--config.data.name=NAME --config.data.dir=DST
"""

import argparse
import hashlib
import importlib.util
import json
import pathlib
import re
import sys

from vit_ssl_jax.errors import UserError

MEANINGS = ("train", "validation", "test")


def prepare(src, dst, options, say=print) -> None:
    """Writes a set; raises UserError before any work where SRC can't be read.

    options: name, labels, resize, max_per_class, shard, workers; see `make_parser`.
    """
    from vit_ssl_jax.data import records, shards, stores

    if importlib.util.find_spec("array_record") is None:
        raise UserError(
            "this system has no package array_record (Linux has), which writes the "
            "shards; prepare there, or train on the folder itself"
        )
    for path in (src, dst):
        if stores.is_stored(path):
            raise UserError(
                f"{path}: SRC and DST are on a disk; copy the set there when it is done "
                "(gcloud storage cp -r)"
            )
    src = pathlib.Path(src).expanduser()
    name = options.name or name_of(src)
    splits, class_names, notes = gather(src, options)
    folder = pathlib.Path(dst).expanduser() / name / records.VERSION
    plan = make_plan(splits, class_names, options)
    check_plan(folder, plan)
    for note in notes:
        say(f"data: {note}")
    files = {
        split: shards.cut(images, folder, name, split, options)
        for split, images in splits.items()
    }
    results = shards.run([f for some in files.values() for f in some], options.workers)
    broken = [path for result in results.values() for path in result["broken"]]
    counts = {
        split: [(results[s.file]["records"], results[s.file]["bytes"]) for s in some]
        for split, some in files.items()
    }
    if broken:
        (folder / "broken.txt").write_text("\n".join(broken) + "\n")
        say(f"{len(broken):,} broken images are left out: {folder / 'broken.txt'}")
    records.write_info(folder, name, counts, class_names, f"prepared of {src.name}")
    for split, some in counts.items():
        total = sum(count for count, _ in some)
        say(f"{split}: {total:,} images in {len(some)} files")
    say(f"written: --config.data.name={name} --config.data.dir={folder.parents[1]}")


def gather(src, options):
    """`({split: [(path, where it lies, label)]}, class names, notes)` of SRC."""
    from vit_ssl_jax.data import archives, classes, folder, layout

    if not src.exists():
        raise UserError(f"{src} doesn't exist; give a folder of images, or a tar")
    if archives.find_archives(src):
        members, splits, named = archives.arrange(src, options.labels)
    else:
        members, files = {}, folder.find_files(folder.check_directory(str(src)))
        splits = layout.arrange(src, files.images)
        named = classes.read_named(options.labels, splits) if options.labels else {}
    names = splits.splits.items()
    wanted = {s.means: name or s.means for name, s in names if s.means in MEANINGS}
    found, class_names, notes = {}, (), []
    for split, its in wanted.items():
        labels = not options.no_labels
        chosen = folder.choose_images(src, splits, its, labels, named, "error")
        found[split] = [
            (path, archives.place(members, src, chosen.root / path), label)
            for path, label in zip(chosen.paths, chosen.labels, strict=True)
        ]
        class_names, notes = chosen.class_names or class_names, [*notes, *chosen.notes]
        if options.max_per_class:
            found[split] = thin(found[split], options.max_per_class)
    if not class_names:  # no label, else -1 where a split has none
        found = {s: [(*image[:2], None) for image in its] for s, its in found.items()}
    return found, class_names, list(dict.fromkeys(notes))


def thin(images, most):
    """The first `most` images of every class."""
    counts, kept = {}, []
    for image in images:
        counts[image[2]] = counts.get(image[2], 0) + 1
        if counts[image[2]] <= most:
            kept.append(image)
    return kept


def name_of(src) -> str:
    """The set's name by what it is made of."""
    return re.sub(r"\W+", "_", src.stem.lower()).strip("_") or "images"


def make_plan(splits, class_names, options) -> dict:
    """What tells whether files that are there already are of the same set."""
    paths = hashlib.sha256()
    for split, images in splits.items():
        for path, _, label in images:
            paths.update(f"{split} {path} {label}\n".encode())
    return dict(
        images=paths.hexdigest(),
        classes=len(class_names),
        resize=options.resize,
        shard=options.shard,
    )


def check_plan(folder, plan) -> None:
    """Makes the folder; raises UserError where another set was begun in it."""
    file = folder / ".prepare.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        begun = json.loads(file.read_text()) if file.exists() else plan
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} can't be used ({error}); give another DST") from None
    if begun != plan:
        changed = ", ".join(key for key in plan if begun.get(key) != plan[key])
        raise UserError(
            f"{folder} was begun with other {changed}; give another --name or DST, or "
            "remove that folder"
        )
    file.write_text(json.dumps(plan) + "\n")


def make_parser():
    """The command's arguments."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="vit_ssl_jax.data.prepare", description=__doc__, formatter_class=shape
    )
    parser.add_argument("src", help="folder of images, tar, or folder of tars")
    parser.add_argument("dst", help="folder of prepared sets")
    parser.add_argument("--name", default="", help="of the set; SRC's")
    parser.add_argument(
        "--labels", default="", help="file of labels, see docs/guides/imagenet.md"
    )
    parser.add_argument("--no_labels", action="store_true", help="whatever folders say")
    number = dict(type=int, default=0)
    text = "px of the short side of larger images; 0: as they are"
    parser.add_argument("--resize", help=text, **number)
    parser.add_argument("--max_per_class", help="images; 0: all", **number)
    parser.add_argument("--shard", type=int, default=8192, help="images of a file")
    parser.add_argument("--workers", type=int, help="processes; one a core")
    return parser


def main():
    """Runs the command."""
    options = make_parser().parse_args()
    if min(options.resize, options.max_per_class, options.shard - 1) < 0:
        sys.exit("error: --resize and --max_per_class are at least 0, --shard 1")
    try:
        prepare(options.src, options.dst, options)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")


if __name__ == "__main__":
    main()
