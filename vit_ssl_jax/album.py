"""Pictures while a run trains: its task on fixed images, by step (`config.pictures`)."""

import jax
import numpy as np

from vit_ssl_jax import drawing
from vit_ssl_jax.distributed import processes
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.workdir.files import replace
from vit_ssl_jax.workdir.restore import first_line

FOLDER = "pictures"  # of a workdir; STEP/METHOD.png below it


class Album:
    """The pictures of a run: on which images, after which steps, where they are kept.

    The same images and the same masks at every step. All processes take part in drawing,
    process 0 writes.
    """

    def __init__(self, config, run, source, open_source, workdir):
        """Reads the images: of `source`, or of the split that `config.pictures` names.

        Where they can't be read there are no pictures, and `lines` say why.
        """
        self.lines, self._every, self._run = [], 0, run
        self._name, self._seed = config.method.name, config.seed
        self._folder, every = workdir / FOLDER, every_epochs(config)
        if not every:
            return
        try:
            with processes.together():
                self._open(config, source, open_source)
        except UserError as error:
            self.lines.append(
                f"pictures are off: {error} (config.pictures; "
                "--config.pictures.every_epochs=0: at the end alone)"
            )
            return
        self._every = max(1, round(every * run.steps_per_epoch))

    def _open(self, config, source, open_source):
        c, data = config.pictures, config.data
        if c.split:
            kinds = dict(labels=data.labels, label=data.label)
            source = open_source(data.name, data.dir, c.split, **kinds)
        count = min(c.count, len(source))
        self._batch = drawing.read(source, data, count, self._run.size)
        self._names = source.class_names
        self._program = drawing.make_program(self._run, count)

    def cut_back(self, start):
        """Drops what was drawn after the step `start`, of a course not taken."""
        if jax.process_index() or not self._every:
            return
        try:
            for folder in self._folder.iterdir() if self._folder.exists() else ():
                if folder.name.isdecimal() and int(folder.name) > start:
                    folder.rmtree()
        except Exception:  # noqa: BLE001 - they are drawn over
            return

    def due(self, done, last):
        """Whether to draw after step `done`: so often, before the first, after the last."""
        return bool(self._every) and (last or done % self._every == 0)

    def draw(self, state, log):
        """Draws a state into the workdir and into the TensorBoard of `log`.

        What fails is a line of the log and never an end of the run: once they can't be
        drawn, for want of memory, say, there are no more; a file that can't be written is
        left out.
        """
        sheet, why = None, ""
        try:
            sheet = self._sheet(state)
        except Exception as error:  # noqa: BLE001 - no picture is worth a run
            why = first_line(error)
        if processes.any_process(bool(why)):
            log.say(f"no more pictures: {why or 'they failed on another process'}")
            self._every = 0
            return
        if jax.process_index():
            return
        step = int(state.step)
        try:
            file = self._folder / str(step) / f"{self._name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            replace(file, drawing.png(sheet))
            log.write_image(step, f"{FOLDER}/{self._name}", np.asarray(sheet))
        except Exception as error:  # noqa: BLE001 - storage fails in many ways
            log.say(f"the pictures of step {step} aren't written: {first_line(error)}")

    def _sheet(self, state):
        rows = drawing.draw_rows(
            self._program, self._run, state, self._batch, self._seed, self._names
        )
        return drawing.sheet(rows)


def every_epochs(config):
    """`config.pictures.every_epochs`; of recipes of before 0."""
    return config.get("pictures", {}).get("every_epochs", 0.0)


def find(workdir, config, step):
    """The file of a step's pictures; None where there is none."""
    file = workdir / FOLDER / str(step) / f"{config.method.name}.png"
    return file if every_epochs(config) and file.exists() else None
