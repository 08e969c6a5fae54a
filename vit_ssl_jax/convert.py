"""Weights in and out: from other code's files to a workdir, and back.

python -m vit_ssl_jax.convert inspect FILE
python -m vit_ssl_jax.convert import FILE --out=WORKDIR
python -m vit_ssl_jax.convert export RUN --to=timm|hf|npz|stablehlo --out=PATH

FILE is what MAE, I-JEPA, MaskFeat, RelViT, timm, DeiT, DINOv2, DINOv3, transformers or
Google's ViT saved: .pth, .safetensors, .npz, or a folder. RUN is a workdir, or a FILE.
"""

import argparse
import sys

from vit_ssl_jax import arguments
from vit_ssl_jax.errors import UserError

MEANS = ("imagenet", "half")
TARGETS = ("timm", "hf", "npz", "stablehlo")


def inspect(path, given, say=print):
    """Says what a file of weights is."""
    from vit_ssl_jax import weights
    from vit_ssl_jax.models.vit import parameter_count

    found = weights.read(path, **given)
    config = found.config
    vit, data = config["vit"], config["data"]
    facts = dict(
        layout=found.source,
        variant=vit["variant"],
        images="{}x{} px".format(*data["size"]),
        positions=vit["posemb"],
        class_token=vit["cls"],
        norm_eps=vit["norm_eps"],
        gelu=vit["gelu"],
        mean=describe(found, "mean"),
        std=describe(found, "std"),
        resize=f"{data['resize']} px by {data['interpolation']}, then the centre",
        method=config["method"]["name"],
        parts=", ".join(found.tree["params"]),
        teacher="encoder" in found.tree["ema"],
        parameters=f"{parameter_count(found.tree['params']):,}",
    )
    if "head" in found.tree["params"] and "num_classes" in data:
        facts["classes"] = data["num_classes"]
    for name, value in facts.items():
        say(f"{name}: {value}")
    for line in found.lines[1:]:
        say(line)


def describe(found, key):
    """A fact of the data, or that the file doesn't tell it."""
    if f"data.{key}" in found.unknown:
        return f"not told by the file (--{key}=imagenet, half or R,G,B)"
    return found.config["data"][key]


def import_file(path, out, given, say=print):
    """Makes a workdir of a file of weights: config.json and checkpoints/0.

    Every command takes it as a run. Raises UserError where there is a run already.
    """
    import numpy as np
    from ml_collections import ConfigDict

    from vit_ssl_jax import __version__, finished, partition, weights
    from vit_ssl_jax.workdir import checkpoint, folder

    found = weights.read(path, **given)
    weights.check_known(found)
    out = folder.find(out)
    if (out / "checkpoints").exists():
        raise UserError(f"--out={out} holds a run; give a new folder")
    trained = finished.Trained(found, ConfigDict(finished.as_tuples(found.config)))
    mesh = partition.make_mesh(finished.MESH)
    tree = partition.put(found.tree, partition.replicated(mesh))
    state = finished.state_of(trained, tree["params"], tree["ema"])
    folder.open_workdir(out)
    checkpoints = checkpoint.Checkpoints(out, keep=1)
    checkpoints.save(state, seconds=0.0)
    checkpoints.close()
    folder.write_config(trained.config, out, __version__)
    if found.left_out:
        with (out / "left_out.npz").open("wb") as file:
            np.savez(file, **found.left_out)
    for line in found.lines:
        say(line)
    say(f"written: {out}; take it wherever a run is asked for: --checkpoint={out}")


def numbers(text):
    """A mean or deviation: a name of MEANS or three numbers."""
    from vit_ssl_jax.interop import sources

    if text in MEANS:
        return dict(imagenet=sources.IMAGENET, half=sources.HALF)[text]
    try:
        values = tuple(float(x) for x in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3:
        raise UserError(
            f"{text!r} is not {', '.join(MEANS)} or three numbers: 0.5,0.5,0.5"
        )
    return dict(mean=values, std=values)


def read_facts(args):
    """Facts of a file that were given as flags."""
    given = {
        key: getattr(args, key)
        for key in ("heads", "decoder_heads", "norm_eps", "gelu", "crop_pct")
        if getattr(args, key) is not None
    }
    if args.size:
        sides = args.size.split(",")
        if not all(side.isdecimal() for side in sides) or len(sides) > 2:
            raise UserError(f"--size={args.size}: give H,W in pixels, as 224,224")
        given["size"] = (int(sides[0]), int(sides[-1]))
    if args.mean:
        both = numbers(args.mean)
        given |= both if args.mean in MEANS else {"mean": both["mean"]}
    if args.std:
        given["std"] = numbers(args.std)["std"]
    return given


def make_parser():
    """The command's arguments."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="vit_ssl_jax.convert", description=__doc__, formatter_class=shape
    )
    actions = parser.add_subparsers(dest="action", required=True)
    for name, text in (
        ("inspect", "says what a file is"),
        ("import", "makes a workdir of a file"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("file", help="file, or folder, of weights")
        action.add_argument("--heads", type=int, help="where the width doesn't tell")
        action.add_argument("--decoder_heads", type=int, help="of MAE's decoder; 16")
        action.add_argument("--size", help="of the images, H,W in pixels")
        action.add_argument("--mean", help="of the images: imagenet, half or R,G,B")
        action.add_argument("--std", help="as --mean, which tells both by name")
        action.add_argument("--norm_eps", type=float, help="LayerNorm's epsilon")
        action.add_argument("--gelu", choices=("exact", "tanh"))
        text = "evaluated crop / short side of the image, as timm's: 0.9"
        action.add_argument("--crop_pct", type=float, help=text)
        if name == "import":
            action.add_argument("--out", required=True, help="workdir to make")
    text = "writes a run for another library"
    action = actions.add_parser("export", help=text, description=text)
    action.add_argument(
        "run", help="workdir, its checkpoints/STEP, or a file of weights"
    )
    action.add_argument("--to", choices=TARGETS, required=True)
    action.add_argument(
        "--out", required=True, help="folder, or file of npz, stablehlo"
    )
    return parser


def main():
    """Runs the command."""
    args = make_parser().parse_args()
    try:
        if args.action == "export":
            arguments.check_checkpoint(args.run)
            if args.to in ("npz", "stablehlo"):
                arguments.check_out(args.out, (f".{args.to}",))
            from vit_ssl_jax import exporting

            exporting.export(args.run, args.to, args.out)
            return
        arguments.check_file(args.file)
        if args.action == "inspect":
            inspect(args.file, read_facts(args))
        else:
            import_file(args.file, args.out, read_facts(args))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
