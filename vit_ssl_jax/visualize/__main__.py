"""python -m vit_ssl_jax.visualize --checkpoint=RUN --images=DIR --out=DIR [--what=pca,...]

Pictures of what an encoder learned, a PNG a kind: attention of every head, rollout, pca
(patches' features as colours), similarity (of all patches to one), neighbours (images that
are alike), positions, filters, method (what a run's objective makes of the images).
"""

import pathlib

from vit_ssl_jax import arguments, command, visualize
from vit_ssl_jax.errors import UserError, check_choice, printable
from vit_ssl_jax.workdir.files import replace


def write_pictures(checkpoint, images, out, *, what="", say=print, **options):
    """Writes a PNG a kind into the folder `out`; returns the files.

    what: kinds with commas between them, of which each must be possible; "" is all that
    are. checkpoint, images, options: as in `visualize.draw`.
    """
    names = [name.strip() for name in what.split(",") if name.strip()]
    wanted = names or list(visualize.KINDS)
    visualize.check_kinds(wanted, images)
    folder = pathlib.Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out={out} is a file; give a folder, which may be new")
    arguments.check_checkpoint(checkpoint)
    # After the paths: a typo answers now.
    from vit_ssl_jax.visualize import kinds, scene

    opened = scene.open_scene(checkpoint, images, say=say, **options)
    files = []
    for name in dict.fromkeys(wanted):
        try:
            picture, line = kinds.draw(name, opened)
        except UserError as error:
            if names:
                raise UserError(f"{name}: {error}") from error
            say(f"no {name}: {error}")
            continue
        files.append(write(folder / f"{name}.png", picture))
        say(f"{files[-1]}: {line}")
    return files


def write(file, picture):
    """Writes a PNG whole or not at all; returns its path."""
    from vit_ssl_jax import drawing

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace(file, drawing.png(picture))
    except OSError as error:
        raise UserError(f"--out: {file} can't be written ({error.strerror})") from error
    return file


def read_pair(name, text, mark):
    """Two whole numbers of a flag, with `mark` between them; None for ""."""
    if not text:
        return None
    parts = text.lower().split(mark)
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise UserError(f"--{name}={text}: give two whole numbers, as 7{mark}7")
    return tuple(map(int, parts))


def execute(checkpoint, images, out, *, what, layer, patch, query, pool, count, size):
    """Runs the command."""
    if query:
        check_choice("--query", query, visualize.QUERIES)
    check_choice("--pool", pool or "mean", ("mean", "cls"))
    write_pictures(
        checkpoint,
        images,
        out,
        what=what,
        say=lambda text: print(printable(text), flush=True),
        layer=arguments.whole_number("layer", layer or "0", least=-99),
        patch=read_pair("patch", patch, ","),
        query=query,
        pool=pool or "mean",
        count=arguments.whole_number("count", count or "8", least=1),
        size=read_pair("size", f"{size}x{size}" if size.isdecimal() else size, "x"),
    )


if __name__ == "__main__":
    command.start(
        execute,
        optional=("images", "what", "layer", "patch", "query", "pool", "count", "size"),
        checkpoint="Workdir of a run, WORKDIR:best, its checkpoints/STEP, or weights.",
        images="Folder of images, or files with commas between them.",
        out="Folder to write to; it may be new.",
        what=f"Kinds with commas between them: {', '.join(visualize.KINDS)}; else all.",
        layer="Block, 1 to the depth, for attention and features; 0 (default): the last.",
        patch="ROW,COLUMN from 0 that others are compared with; else the middle.",
        query="Whose attention: cls, mean (of the patches) or patch (that of --patch).",
        pool="mean (default) or cls: an image's vector, for neighbours.",
        count="Images that are drawn, the first that can be read; 8.",
        size="Side in pixels, or HEIGHTxWIDTH; else as trained.",
    )
