"""The last words of a run: where its encoder is, what it learned, what to do with it."""

import shlex

import jax

from vit_ssl_jax import album, drawing
from vit_ssl_jax.errors import UserError, is_exhausted
from vit_ssl_jax.workdir.metrics import read_metrics

SHOWN = 8  # images of the picture


def say_closing(config, run, source, state, *, workdir, say):
    """Says where the encoder is, its first and last loss, and three commands to go on by.

    Where nothing was drawn while it trained (`config.pictures`) it saves `pictures.png`, what
    the method makes of some images; not on several processes.
    """
    folder = workdir / "checkpoints" / str(int(state.step))
    lines = [f"\nthe encoder is in {folder}"]
    rows = [row["train/loss"] for row in read_metrics(workdir, "train/loss")]
    if len(rows) > 1:
        lines.append(f"loss {rows[0]:.4f} at the start, {rows[-1]:.4f} at the end")
    if file := album.find(workdir, config, int(state.step)):
        lines.append(f"what it makes of some images, by step: {file}")
    elif jax.process_count() == 1:
        lines.append(save_picture(config, run, source, state, workdir))
    lines += ["", "What to run next:", *commands(config, source, workdir)]
    say("\n".join(lines))


def save_picture(config, run, source, state, workdir):
    """Draws the objective on some images into the workdir; a line about it."""
    count, names = min(SHOWN, len(source)), source.class_names
    file = workdir / "pictures.png"
    try:
        batch = drawing.read(source, config.data, count, run.size)
        program = drawing.make_program(run, count)
        rows = drawing.draw_rows(program, run, state, batch, config.seed, names)
        file.write_bytes(drawing.png(drawing.sheet(rows)))
    except Exception as error:
        if not (isinstance(error, UserError | OSError) or is_exhausted(error)):
            raise
        return f"no picture: {str(error).splitlines()[0]}"
    return f"what it makes of {count} images: {file}"


def commands(config, source, workdir):
    """Three commands with this run's paths: features, a verdict, and own images."""
    place, images = shlex.quote(str(workdir)), "DIR"
    own = config.data.name == "folder"
    if own:
        images = shlex.quote(str(config.data.dir))
    judge = "evaluate --config=configs/eval_folder.py"
    lines = [f"features --checkpoint={place} --images={images} --out=features.npz"]
    if config.method.name == "supervised":
        lines.append(
            f"predict --checkpoint={place} --images={images} --out=predictions.csv"
        )
    elif own and source.num_classes:
        lines.append(f"{judge}:{images} --checkpoint={place}")
    else:
        lines.append(f"{judge}:LABELLED_DIR --checkpoint={place}")
    if not own:
        lines.append(
            "main --config=configs/own.py --config.data.dir=DIR --workdir=runs/own"
        )
    lines = [f"  python -m vit_ssl_jax.{line}" for line in lines]
    if own:
        lines.append(f"  pip install tensorboard && tensorboard --logdir={place}")
    return lines
