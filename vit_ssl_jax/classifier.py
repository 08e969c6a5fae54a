"""A trained classifier: probabilities of images, for `predict`."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from vit_ssl_jax import finished, host, partition
from vit_ssl_jax.data.source import Source
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.ops import images


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """The model of a supervised run, at the size that it was trained for."""

    data: Any  # `config.data` of the run
    home: Any  # the folder that it lies in, a run's workdir
    num_classes: int
    mesh: jax.sharding.Mesh
    compute: Callable  # uint8 `[B H W 3]` -> probabilities float32 `[B C]`

    def batches(self, source: Source, batch_size: int):
        """Probabilities batch by batch, as `finished.run_over` gives them."""
        return finished.run_over(
            source,
            self.data,
            self.compute,
            size=tuple(self.data.size),
            mesh=self.mesh,
            batch_size=batch_size,
        )


def load(run) -> Classifier:
    """Loads the classifier of a run; raises UserError for one that is none."""
    host.prepare()
    trained = finished.read_trained(run)
    mesh = partition.make_mesh(finished.MESH)
    model, state = finished.load_model(trained, mesh)
    method = model.method
    if method.logits is None:
        raise UserError(
            f"{trained.folder} is of method {trained.config.method.name!r}, which makes no "
            "classifier; fine-tune it first (configs/own.py:supervised with "
            "--config.init_from), or take vit_ssl_jax.features"
        )

    weights = state.ema if method.averages else state.params
    sigmoid = trained.config.method.get("loss", "softmax") == "sigmoid"

    @jax.jit
    def forward(params, image):
        logits = method.logits(params, model.normalize(images.to_float(image)))
        return jax.nn.sigmoid(logits) if sigmoid else jax.nn.softmax(logits)

    classes = trained.config.data.num_classes
    compute = functools.partial(forward, weights)
    home = trained.saved.home
    return Classifier(trained.config.data, home, classes, mesh, compute)
