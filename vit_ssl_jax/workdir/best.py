"""The best checkpoint of a run by a metric (`config.keep_best`), under `workdir/best`."""

import math

import orbax.checkpoint as ocp

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.workdir import manager
from vit_ssl_jax.workdir.folder import find


class Best:
    """The weights with the best value of a metric so far; resuming knows them."""

    def __init__(self, workdir, rule):
        """`rule` is `config.keep_best`: "max METRIC" or "min METRIC"."""
        self.rule, (how, self.metric) = rule, rule.split()
        self._sign = 1.0 if how == "max" else -1.0
        self._root = find(workdir) / "best"
        self._manager = manager.open_manager(self._root, 1)
        self.step = self._manager.latest_step()
        self.value = self._kept_value()

    @property
    def evaluator(self):
        """The name of the evaluator that measures the metric."""
        return self.metric.split("/")[1]

    def _kept_value(self):
        """The value of what is kept already, None where nothing is, or by another rule."""
        if self.step is None:
            return None
        try:
            run = self._manager.restore(
                self.step, args=ocp.args.Composite(run=ocp.args.JsonRestore())
            )["run"]
        except Exception:  # noqa: BLE001 - storage fails in many ways
            return None  # what can't be read is no best checkpoint
        return run["value"] if run.get("rule") == self.rule else None

    def check(self, results):
        """Raises UserError unless the metric is among results `{metric: value}`."""
        if self.metric not in results:
            prefix = f"eval/{self.evaluator}/"
            known = [key for key in results if key.startswith(prefix)]
            raise UserError(
                f"config.keep_best: {self.metric!r} is never measured; the evaluator "
                f"gives {', '.join(known)}"
            )

    def offer(self, state, results):
        """Keeps a state's weights where `results` have a better value than any before.

        Only weights and averages are kept, not the optimiser's state. Returns once the
        state may be donated. Raises UserError where the save before failed, or this can't be.
        """
        value = float(results.get(self.metric, math.nan))
        better = self.value is None or self._sign * (value - self.value) > 0
        if math.isnan(value) or not better:
            return
        self.step, self.value = int(state.step), value
        for other in self._manager.all_steps():
            if other >= self.step:  # of a course that this run didn't take
                self._manager.delete(other)
        kept = {"params": state.params, "ema": state.ema}
        run = {"rule": self.rule, "value": value}
        manager.start_save(self._manager, self.step, kept, run)

    def line(self):
        """What is kept, and where."""
        folder = self._root / str(self.step)
        return f"best {self.metric}: {self.value:.4f} at step {self.step}, in {folder}"

    def close(self):
        """Waits for the last save; raises UserError where it failed."""
        manager.close_manager(self._manager)
