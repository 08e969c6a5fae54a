"""The last words of a run: where its encoder is, what it learned, what to do with it."""

import io
import shlex

import jax

from vit_ssl_jax import partition, pictures
from vit_ssl_jax.errors import UserError, is_exhausted
from vit_ssl_jax.workdir.metrics import read_metrics

SHOWN = 8  # images of the picture, or as many as the mesh has ways


def say_closing(config, run, source, state, *, workdir, say):
    """Says where the encoder is, its first and last loss, and three commands to go on by.

    Saves `pictures.png`, what the method makes of some images. On several processes
    there is no picture.
    """
    folder = workdir / "checkpoints" / str(int(state.step))
    lines = [f"\nthe encoder is in {folder}"]
    rows = [row["train/loss"] for row in read_metrics(workdir, "train/loss")]
    if len(rows) > 1:
        lines.append(f"loss {rows[0]:.4f} at the start, {rows[-1]:.4f} at the end")
    if jax.process_count() == 1:
        lines.append(save_picture(config, run, source, state, workdir))
    lines += ["", "What to run next:", *commands(config, source, workdir)]
    say("\n".join(lines))


def save_picture(config, run, source, state, workdir):
    """Draws the objective on the first images into the workdir; a line about it."""
    count = partition.fill_ways(SHOWN, run.mesh)
    file = workdir / "pictures.png"
    try:
        batch = pictures.read(source, config.data, count)
        state = state.replace(opt_state=(), probe={})
        sheet = pictures.sheet(pictures.draw_state(run, state, batch, config.seed))
    except Exception as error:
        if not (isinstance(error, UserError) or is_exhausted(error)):
            raise
        return f"no picture: {str(error).splitlines()[0]}"
    content = io.BytesIO()
    sheet.save(content, "PNG")
    file.write_bytes(content.getvalue())
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
