"""`config.track`: a run's metrics also sent to W&B or to MLflow.

A thread sends them, so that a server that is slow or away holds up no step. The tracker's
id of the run lies in the workdir (`tracker.json`), and a run that goes on goes on there.
What fails is one line, and the run goes on without a tracker.
"""

import json
import logging
import queue
import re
import threading
import time
import uuid

from vit_ssl_jax.recipes import flatten
from vit_ssl_jax.workdir.files import is_stored, replace

MOST = 10_000  # rows that wait to be sent; more are no tracker's
PATIENCE = 30  # seconds that the end of a run waits for what isn't sent yet
LONGEST = 500  # characters of a setting that MLflow is told
AT_ONCE = 100  # settings in one call to MLflow


class Tracker:
    """Sends the rows of a run, in order, without ever raising or waiting."""

    def __init__(self, config, workdir, say):
        """`say(line)` tells what fails."""
        self._track, self._say = config.track, say
        self._given_up = False
        self._rows = queue.Queue(MOST)
        self._thread = threading.Thread(
            target=self._work, args=(config, workdir), daemon=True
        )
        self._thread.start()

    def log(self, step, metrics):
        """Has `{name: float}` of a step sent."""
        if self._given_up:
            return
        try:
            self._rows.put_nowait((step, metrics))
        except queue.Full:
            self._give_up(f"{MOST} rows wait to be sent")

    def close(self, finished):
        """Waits a while until all is sent; `finished` is whether the run is at its end."""
        if self._given_up:
            return
        try:
            self._rows.put_nowait((None, finished))
        except queue.Full:
            return self._give_up(f"{MOST} rows wait to be sent")
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._give_up(f"not all was sent within {PATIENCE} s")

    def _give_up(self, why):
        if not self._given_up:
            self._say(f"config.track: {self._track}: {why}; the run does without it")
        self._given_up = True

    def _work(self, config, workdir):
        try:
            known = Known(workdir, config.track)
            log, finish = OPENERS[config.track.partition(":")[0]](
                config.track.partition(":")[2], known, workdir, config
            )
            while True:
                step, metrics = self._rows.get()
                if step is None:
                    return finish(metrics)
                if step > known.sent:
                    log(step, metrics)
                    known.note(step)
        except Exception as error:  # noqa: BLE001 - trackers raise what they like
            lines = str(error).strip().splitlines() or [""]
            self._give_up(f"{type(error).__name__}: {lines[0][:200]}".rstrip(": "))
        finally:
            if "known" in locals():
                known.save()


class Known:
    """What a workdir knows of a tracker: the run's id there, and the step that it has.

    Steps that a run takes again, from a checkpoint on, were sent before: they are the
    same. A step counts as sent once a row of a later one is.
    """

    def __init__(self, workdir, track):
        self._file, self._track = workdir / "tracker.json", track
        try:
            self._all = dict(json.loads(self._file.read_text()))
            mine = self._all.get(track) or {}
            self.id, self.sent = mine.get("id"), int(mine.get("step", 0))
        except (OSError, ValueError, TypeError, AttributeError):
            self._all, self.id, self.sent = {}, None, 0
        self._newest = self.sent

    def name(self, run_id):
        """Keeps the id of a new run."""
        self.id = run_id
        self._write(self.sent)

    def note(self, step):
        """A row of `step` was sent."""
        if step > self._newest and not is_stored(self._file):
            self._write(self._newest)
        self._newest = max(step, self._newest)

    def save(self):
        """All rows of the newest step were sent."""
        if self.id:
            self._write(self._newest)

    def _write(self, step):
        self._all[self._track] = {"id": self.id, "step": step}
        replace(self._file, json.dumps(self._all, indent=2) + "\n")


def open_wandb(place, known, workdir, config):
    """Opens W&B's run of `[ENTITY/]PROJECT`: `(log(step, metrics), finish(finished))`.

    It never asks for a key: `wandb login`, or WANDB_API_KEY; WANDB_MODE=offline works.
    """
    import wandb

    if not known.id:
        known.name(uuid.uuid4().hex[:12])
    entity, _, project = place.rpartition("/")
    run = wandb.init(
        project=project,
        entity=entity or None,
        id=known.id,
        resume="allow",
        name=workdir.name,
        dir=None if is_stored(workdir) else str(workdir),
        config=json.loads(config.to_json_best_effort()),
        allow_val_change=True,
        reinit="create_new",
        settings=wandb.Settings(silent=True, console="off"),
    )
    return (
        lambda step, metrics: run.log(metrics, step=step),
        lambda finished: run.finish(exit_code=0 if finished else 1),
    )


def open_mlflow(place, known, workdir, config):
    """Opens MLflow's run of an experiment: `(log(step, metrics), finish(finished))`.

    Where the server is says MLFLOW_TRACKING_URI.
    """
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # each try
    client = MlflowClient()
    if known.id:
        client.update_run(known.id, status="RUNNING")
    else:
        found = client.get_experiment_by_name(place)
        experiment = found.experiment_id if found else client.create_experiment(place)
        known.name(
            client.create_run(experiment, run_name=workdir.name).info.run_id,
        )
        flat = flatten(json.loads(config.to_json_best_effort()))
        params = [Param(k, str(v)[:LONGEST]) for k, v in flat.items()]
        for first in range(0, len(params), AT_ONCE):
            client.log_batch(known.id, params=params[first : first + AT_ONCE])

    def log(step, metrics):
        now = int(1000 * time.time())
        client.log_batch(
            known.id,
            metrics=[
                Metric(re.sub(r"[^\w\-. /]", "_", name), value, now, step)
                for name, value in metrics.items()
            ],
        )

    def finish(finished):
        client.set_terminated(known.id, "FINISHED" if finished else "KILLED")

    return log, finish


OPENERS = {"wandb": open_wandb, "mlflow": open_mlflow}
