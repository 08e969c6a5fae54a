"""Are the steps finite? Judged on the devices, told late, acted on before anything is kept.

A step's loss and gradient norm, and what its program says of steps that are left out
(`skipping`), stay on the devices until later steps have begun, so that nothing waits for
them. All are looked at before metrics are written and before a state is saved, and the
state itself then, too.
"""

import collections
import math

import jax

from vit_ssl_jax import partition
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.workdir import capsule, checkpoint
from vit_ssl_jax.workdir.restore import first_line

KEPT = 256  # steps that are looked at together, at the latest
KEPT_SKIPPING = 4  # where steps are left out, for so many in a row end the run
CAPSULES = 20  # that a start of a run writes, of steps that are left out
JUDGED = ("train/loss", "train/grad_norm", "train/skipped")
POISONED = "the updated parameters aren't all finite"


class Watch:
    """Looks at the steps of a run; raises UserError where it can't go on."""

    def __init__(self, config, workdir, begin, say):
        """`begin` is the run's `starting.Start`, `say` prints a line."""
        self._config, self._workdir, self._say = config, workdir, say
        self._checkpoints, skips = begin.checkpoints, begin.state.skips
        self._skipping = bool(skips)
        self._most = KEPT_SKIPPING if skips else KEPT
        self._skipped = int(skips["count"]) if skips else 0
        self._told, self._pending = 0, collections.deque()
        self._found, self._ids = {}, None  # of the last step that was looked at

    def note(self, done, metrics, batch):
        """Remembers step `done`: its metrics and its batch, both on the devices."""
        judged = {
            name: value
            for name, value in metrics.items()
            if name in JUDGED or name.startswith("skips/")
        }
        self._pending.append((done, judged, batch["id"]))
        if len(self._pending) > self._most:
            self.look(self._most // 2)

    def look(self, newest=0):
        """Judges all steps but so many of the newest; raises UserError as `check`."""
        count = max(len(self._pending) - newest, 0)
        looked = [self._pending.popleft() for _ in range(count)]
        values = jax.device_get([judged for _, judged, _ in looked])
        for (done, _, ids), found in zip(looked, values):
            found = {name: float(value) for name, value in found.items()}
            if self._skipping:
                self._judge_skips(done, found, ids)
            elif why := reason(found):
                raise UserError(self._end(why, done, found, ids))
            self._found, self._ids = found, ids

    def check(self, state):
        """Looks at all steps and at a state that is about to be kept.

        Raises UserError where a number of either isn't finite: such a state is never
        saved. The message says from where a run goes on, and how.
        """
        self.look()
        if not checkpoint.is_finite(state):
            raise UserError(
                self._end(POISONED, int(state.step), self._found, self._ids)
            )

    def _judge_skips(self, done, found, ids):
        """Tells of a step that was left out; raises UserError for one too many."""
        if found["train/skipped"] > self._skipped:
            self._skipped = int(found["train/skipped"])
            step, row = int(found["skips/last"]), int(found["skips/row"])
            why = reason(found)
            if found["skips/ended"]:
                step = int(found["skips/ended"])
                several = f"{row} steps in a row were left out, up to the last: " * (
                    row > 1
                )
                raise UserError(self._end(several + why, step, found, ids))
            if self._told < CAPSULES:
                file = self._write(why, step, found, ids)
                self._say(
                    f"step {step} is left out: {why} ({self._skipped} so far, {row} in a "
                    f"row; {file})"
                )
            if self._told == CAPSULES:
                self._say("further ones are only counted: train/skipped")
            self._told += 1

    def _last_checkpoint(self):
        """The folder of the last checkpoint and its step; ("", 0): there is none."""
        step = self._checkpoints.latest()
        return ("", 0) if step is None else (self._checkpoints.folder(step), step)

    def _write(self, why, step, found, ids):
        """Writes a capsule, where it can be; returns its file."""
        folder, saved = self._last_checkpoint()
        facts = dict(
            checkpoint_step=saved,
            why=why,
            loss=found.get("train/loss"),
            grad_norm=found.get("train/grad_norm"),
            bound=found.get("skips/bound"),
            seed=self._config.seed,
            images=[] if ids is None else partition.fetch(ids).tolist(),
        )
        file = capsule.find(self._workdir, step)
        try:
            capsule.write(
                file, step=step, config=self._config, checkpoint=folder, **facts
            )
        except Exception as error:  # noqa: BLE001 - stores of objects have their own
            self._say(f"{file} can't be written ({first_line(error)})")
        return file

    def _end(self, why, step, found, ids):
        """The message of a run that ends at a step, its capsule written."""
        file = self._write(why, step, found, ids)
        folder, saved = self._last_checkpoint()
        past = "nothing was saved before it, and the same command starts anew"
        if folder:
            past = (
                f"the last checkpoint, {folder}, is of step {saved} and finite, and the "
                "same command goes on from there"
            )
        spike = is_spike(found)
        return (
            f"{why}, at step {step}; {past}. Give it one of: "
            f"{', '.join(cures(self._config, spike))}. python -m vit_ssl_jax.replay {file} "
            "makes the step again" + ("" if spike else " and finds where it began")
        )


def reason(found):
    """Why a step isn't taken, in words; "": it is. `found`: its metrics, floats."""
    loss, norm = found["train/loss"], found["train/grad_norm"]
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(norm):
        return f"the gradient's norm is {norm}"
    if is_spike(found):
        bound = found["skips/bound"]
        return f"the gradient's norm of {norm:.4g} is a spike, above {bound:.4g}"
    if not found.get("skips/taken", True):
        return POISONED
    return ""


def is_spike(found):
    """Whether a step's gradient norm, finite, is above the bound of its program."""
    norm, bound = found.get("train/grad_norm", 0.0), found.get("skips/bound", math.inf)
    return math.isfinite(norm) and norm > bound


def cures(config, spike):
    """What a run that ended can go on with, in words: flags, and what they do."""
    rate, clip, found = config.optim.lr, config.optim.clip, []
    nonfinite, spikes = config.get("nonfinite"), config.get("spike")
    if not 0 < clip <= 1:
        found.append("--config.optim.clip=1.0")
    if spike and spikes.policy == "skip":
        found.append(f"--config.spike.most={10 * spikes.most}")
    elif spike:
        found.append("--config.spike.policy=skip (such steps are left out)")
    if spike:
        return [*found, "--config.spike.policy=off (they are taken)"]
    if config.vit.dtype != "float32":
        found.append("--config.vit.dtype=float32")
    if nonfinite and nonfinite.policy != "skip":
        found.append("--config.nonfinite.policy=skip (such steps are left out)")
    return [f"a lower config.optim.lr (it is {rate:g})", *found]
