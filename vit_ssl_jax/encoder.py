"""A trained encoder in one line: `vit_ssl_jax.load(run)`, then `encode(images)`."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vit_ssl_jax import finished, host, partition, weights
from vit_ssl_jax.data.loose import read_images
from vit_ssl_jax.data.source import Source
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import vit
from vit_ssl_jax.ops import images as pixels

POOLS = ("mean", "cls", "patches")


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """The ViT that a run trained.

    config: the run's. params: of the ViT, a tree of arrays. module: the linen module.
    normalize: image in [0, 1] -> as the ViT takes it. checkpoint: the folder it is from.
    """

    config: ConfigDict
    params: Any
    module: vit.ViT
    normalize: Callable[[jax.Array], jax.Array]
    checkpoint: Any
    mesh: jax.sharding.Mesh

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images that it takes, in pixels."""
        return self.module.size

    def apply(self, params: Any, image: jax.Array) -> jax.Array:
        """Tokens of images: `[B H W 3]` in [0, 1] -> float32 `[B N(+1) D]`.

        Pure, to be used inside jit and grad; a class token, where there is one, is
        token 0.
        """
        return self.module.apply({"params": params}, self.normalize(image), False)

    def encode(self, images, *, batch_size: int = 64) -> np.ndarray:
        """One vector an image, the mean of the last block's patches: float32 `[n D]`.

        images: PIL images, paths, uint8 `[h w 3]`, any mix of them in a list; one of
            them alone; or a batch uint8 `[n h w 3]`. They are resized and cropped as in
            the run's evaluation.

        Raises UserError for one that can't be read.
        """
        return self.features(images, batch_size=batch_size)

    def features(
        self, images, *, layer: int = 0, pool: str = "mean", batch_size: int = 64
    ) -> np.ndarray:
        """Features of any block: float32 `[n D]`, or `[n N D]` for "patches".

        images: as in `encode`. layer: 1 to the ViT's depth; 0 is the last, -1 the one
        before it. All have passed the final norm. pool: "mean" of the patches, "cls"
        the class token, "patches" all of them in rows.
        """
        layer = self.find_layer(layer, pool)
        compute = make_pool(self.module, self.normalize, self.mesh, layer, pool)
        return self.run(compute, images, batch_size=batch_size)

    def run(self, compute: Callable, images, *, batch_size: int = 64) -> np.ndarray:
        """What a function makes of images, a row an image: `[n ...]`.

        compute: `(params, image) -> rows [B ...]`, image uint8 `[B H W 3]` of `size` on the
        mesh. images: as in `encode`, or a `Source`. Raises UserError for one that can't
        be read.
        """
        source = read_images(images)
        parts = list(self.run_over(compute, source, batch_size))
        if source.broken:
            first = min(source.broken)
            raise UserError(
                f"{len(source.broken)} of {len(source)} images can't be read, such as "
                f"{source.where(first)}"
            )
        return np.concatenate([rows for _, _, rows in parts])

    def run_over(self, compute: Callable, source: Source, batch_size: int):
        """`run` batch by batch, as `finished.run_over` gives them."""
        return finished.run_over(
            source,
            self.config.data,
            functools.partial(compute, self.params),
            size=self.size,
            mesh=self.mesh,
            batch_size=batch_size,
        )

    def batches(self, source: Source, layer: int, pool: str, batch_size: int):
        """Features batch by batch, as `finished.run_over` gives them."""
        layer = self.find_layer(layer, pool)
        compute = make_pool(self.module, self.normalize, self.mesh, layer, pool)
        return self.run_over(compute, source, batch_size)

    def find_layer(self, layer: int, pool: str) -> int:
        """The block that `layer` means, 1 to depth; UserError where there is none."""
        depth = self.module.depth
        if not -depth < layer <= depth:
            raise UserError(
                f"layer {layer}: this ViT has blocks 1 to {depth}; 0 is the last"
            )
        if pool not in POOLS:
            raise UserError(f"pool {pool!r} is not one of {', '.join(POOLS)}")
        if pool == "cls" and not self.module.cls:
            raise UserError("pool 'cls': this ViT has no class token; use 'mean'")
        return layer if layer > 0 else depth + layer


def pool_block(module, params, image, layer: int, pool: str) -> jax.Array:
    """Features of a block: standardised `[B H W 3]` -> `[B D]`, "patches" `[B N D]`."""
    variables, cls = {"params": params}, int(module.cls)
    if pool != "patches":
        pooled = module.apply(variables, image, method="readout")
        return pooled[layer - 1, :, 0 if pool == "cls" else -1]
    if layer == module.depth:
        return module.apply(variables, image, False)[:, cls:]
    return module.apply(variables, image, layer, method=block_output)[:, cls:]


def block_output(module: vit.ViT, image: jax.Array, layer: int) -> jax.Array:
    """Tokens after block `layer`, normed: `[B H W C] -> [B N(+1) D]`; a method of ViT."""
    _, tokens = module(image, False, lambda x: x)
    return module.norm(tokens[layer - 1]) if module.final_norm else tokens[layer - 1]


@functools.lru_cache(4)
def make_pool(module, normalize, mesh, layer: int, pool: str) -> Callable:
    """Compiles `pool_block` of uint8 images: `(params, image) -> float32`."""

    def compute(params, image):
        image = normalize(pixels.to_float(image))
        return pool_block(module, params, image, layer, pool).astype(jnp.float32)

    return jax.jit(compute, out_shardings=partition.replicated(mesh))


def load(
    run: Any, *, size: tuple[int, int] | None = None, say=print, **given
) -> Encoder:
    """Loads the encoder of a run, or of a file of weights, to get features of or build on.

        encoder = vit_ssl_jax.load("runs/mine")
        encoder = vit_ssl_jax.load("dinov2_vits14_pretrain.pth")
        vectors = encoder.encode(["a.jpg", "b.jpg"])    # float32 [2 D]

    run: a workdir (its newest checkpoint), or a `checkpoints/STEP` in it; a file or
    folder of weights that other code saved, or a state_dict. size: (height, width) of the
    images, else as it was trained; positions are resampled. say: gets what was guessed
    of a file. given: facts that a file doesn't tell, `weights.GIVEN`. Raises UserError
    where there is no such run.
    """
    host.prepare()
    if unknown := set(given) - set(weights.GIVEN):
        raise UserError(
            f"load: {', '.join(sorted(unknown))} is no fact of a file of weights; they are "
            f"{', '.join(weights.GIVEN)}"
        )
    trained = finished.read_trained(weights.read(run, **given) if given else run)
    mesh = partition.make_mesh(finished.MESH)
    size = tuple(size or trained.config.data.size)
    model, state, lines = finished.load_encoder(trained, mesh, size)
    if isinstance(trained.saved, weights.Weights):
        for line in lines:
            say(line)
    params = model.encoder_params(state)
    return Encoder(
        trained.config, params, model.encoder, model.normalize, trained.folder, mesh
    )
