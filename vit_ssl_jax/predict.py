"""python -m vit_ssl_jax.predict --checkpoint=RUN --images=DIR --out=FILE.csv

What a fine-tuned run says of every image below a folder: a row a file, with the class
and its probability, then the probability of every class.
"""

import csv
import json
import os

from vit_ssl_jax import arguments, command
from vit_ssl_jax.errors import UserError, printable


def predict(checkpoint, images, out, *, batch_size=64, say=print):
    """Writes the predictions of a classifier to a CSV file; returns their number.

    checkpoint: the workdir of a supervised run, or a `checkpoints/STEP` in it. Class
    names are those in the workdir's data.json. Images that can't be read are left out
    and named. Raises UserError for a run that is no classifier.
    """
    out = arguments.check_out(out, (".csv",))
    arguments.check_checkpoint(checkpoint)
    arguments.check_images(images)
    import numpy as np  # these are slow to import: a typo answers at once
    import tqdm

    from vit_ssl_jax import classifier
    from vit_ssl_jax.data import sources

    source, lines = sources.open_files(os.fspath(images))
    for line in lines:
        say(line)
    model = classifier.load(checkpoint)
    names = read_names(model.home, model.num_classes, say)
    new, count, broken = out.with_name(f"{out.name}.new"), 0, []
    bar = tqdm.tqdm(total=len(source), unit=" images", disable=len(source) < 1000)
    with new.open("w", newline="", encoding="utf-8") as file, bar:
        rows = csv.writer(file)
        rows.writerow(["file", "prediction", "probability", *names])
        for batch in model.batches(source, batch_size):
            for i, whole, probabilities in zip(*batch, strict=True):
                if not whole:
                    broken.append(source.where(i))
                    continue
                best = int(np.argmax(probabilities))
                cells = [f"{p:.6g}" for p in probabilities]
                name = os.path.relpath(source.where(i), images)
                rows.writerow([name, names[best], cells[best], *cells])
                count += 1
            bar.update(len(batch[0]))
    new.replace(out)
    for path in broken[:10]:
        say(printable(f"left out, for it can't be read: {path}"))
    say(f"{out}: {count:,} images, {len(names)} classes, {len(broken)} left out")
    return count


def read_names(home, count, say):
    """Names of the classes a run was trained on; numbers where it didn't save them."""
    file = home / "data.json"
    names = json.loads(file.read_text())["classes"] if file.exists() else []
    if len(names) == count:
        return names
    if names:
        raise UserError(f"{file} has {len(names)} classes, the model {count}")
    say(f"note: the run has no class names ({file}); they are numbers here")
    return [str(i) for i in range(count)]


def execute(checkpoint, images, out, batch_size):
    """Runs the command."""
    size = arguments.whole_number("batch_size", batch_size or "64", least=1)
    predict(checkpoint, images, out, batch_size=size)


if __name__ == "__main__":
    command.start(
        execute,
        optional=("batch_size",),
        checkpoint="Workdir of a supervised run, WORKDIR:best, or its checkpoints/STEP.",
        images="Folder of images, read to any depth.",
        out="File to write, .csv.",
        batch_size="Images at a time, of all devices together; 64.",
    )
