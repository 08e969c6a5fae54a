"""Images to features by a frozen encoder, over the mesh."""

import functools
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from vit_ssl_jax import partition
from vit_ssl_jax.evaluators import sharing
from vit_ssl_jax.models.readouts import check_readout, choose
from vit_ssl_jax.ops import images

CHUNK = 8192  # rows at a time of features that may lie on disk
IN_MEMORY = 4 * 2**30  # bytes of features; larger sets are kept on disk


def make_reader(encoder, normalize, readouts):
    """Makes `read(params, image) -> {readout: float32 [B F]}` of uint8 `[B H W 3]`.

    To be jitted. `encoder` is the method's ViT, `params` its parameters; a readout is
    a pair `(layers, pool)`, see `models.readouts`. All come from one forward pass.
    Raises UserError for a readout that the encoder doesn't have.
    """
    for readout in readouts:
        check_readout(readout, encoder.depth, encoder.cls)

    def features(params, image):
        image = normalize(images.to_float(image))
        pooled = encoder.apply({"params": params}, image, method="readout")
        return {r: choose(pooled, r).astype(jnp.float32) for r in readouts}

    return features


@functools.lru_cache(1)
def make_extractor(encoder, mesh, normalize):
    """Makes `extract(params, batches, readouts) -> ({readout: [M F]}, labels [M])`.

    Float32 in numpy, one row a whole image, in order; `batches` come from
    `data.pipeline.eval_batches`, the rows of this process (`sharing`), and images that
    couldn't be read are left out. Labels may be sets of classes `[M C]`. For `readouts` (a
    tuple) see `make_reader`.
    """
    whole = partition.replicated(mesh)

    def compute(params, image, readouts):
        return make_reader(encoder, normalize, readouts)(params, image)

    compute = jax.jit(compute, static_argnums=2, out_shardings=whole)

    def extract(params, batches, readouts):
        def function(image):
            with jax.set_mesh(mesh):
                return jax.device_get(compute(params, image, tuple(readouts)))

        return collect(batches, function, mesh)

    return extract


def pixels(batches, mesh):
    """Raw pixels as features, the baseline of every encoder: `[M H*W*3], [M]`."""

    def flatten(image):
        image = partition.fetch(image)
        return {"pixels": image.reshape(len(image), -1).astype(np.float32) / 255.0}

    collected, labels = collect(batches, flatten, mesh)
    return collected["pixels"], labels


def collect(batches, function, mesh):
    """Applies `function` (images -> `{name: [B F]}`) to all batches, keeps the whole.

    The images are on the mesh. Returns `{name: float32 [M F]}` and the labels.
    """
    rows, labels = {}, []
    for batch in batches:
        placed, rest = sharing.place(batch, mesh)
        valid, pieces = rest["valid"], function(placed["image"])
        for name, values in pieces.items():
            limit = IN_MEMORY // len(pieces)
            rows.setdefault(name, Rows(limit)).append(values[valid])
        labels.append(rest["label"][valid])
    return {name: r.read() for name, r in rows.items()}, np.concatenate(labels)


class Rows:
    """Float32 rows, gathered piece by piece: in memory, and on disk beyond a limit."""

    def __init__(self, limit):
        """`limit`: bytes that may be held in memory."""
        self._limit, self._pieces, self._bytes = limit, [], 0
        self._file = None

    def append(self, rows):
        """Adds `[b F]`."""
        rows = np.ascontiguousarray(rows, np.float32)
        self._pieces.append(rows)
        self._bytes += rows.nbytes
        self._width = rows.shape[1]
        if self._bytes > self._limit:
            # A file without a name: it is gone once nothing maps it any more.
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115
            for piece in self._pieces:
                piece.tofile(self._file)
            self._pieces = []

    def read(self):
        """All rows `[M F]`: an array, or a read-only map of the file."""
        if self._file is None:
            return np.concatenate(self._pieces)
        self._file.flush()
        shape = (self._bytes // 4 // self._width, self._width)
        return np.memmap(self._file, np.float32, "r", shape=shape)


def statistics(features):
    """Mean and deviation per feature `[F]`, over rows `[M F]` of any number."""
    total = square = 0.0
    for start in range(0, len(features), CHUNK):
        total = total + features[start : start + CHUNK].sum(0, dtype=np.float64)
    mean = total / len(features)
    for start in range(0, len(features), CHUNK):
        square = square + ((features[start : start + CHUNK] - mean) ** 2).sum(0)
    std = np.sqrt(square / len(features))
    return mean.astype(np.float32), std.astype(np.float32)


def standardize(bank, queries):
    """Standardises `[M F], [Q F]` by the bank's mean and deviation per feature."""
    mean, std = statistics(bank)
    return (bank - mean) / (std + 1e-6), (queries - mean) / (std + 1e-6)
