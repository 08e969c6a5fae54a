"""Images to features by a frozen encoder, over the mesh."""

import jax
import jax.numpy as jnp
import numpy as np

from vit_ssl_jax import partition
from vit_ssl_jax.models import vit
from vit_ssl_jax.ops import images


def make_extractor(encoder, mesh, normalize):
    """`extract(params, batches, pool) -> features float32 [M F], labels [M]` (numpy).

    `encoder` is the method's ViT, `params` its parameters; `batches` come from
    `data.pipeline.eval_batches`; images that couldn't be read are left out.
    """

    def forward(params, image, pool):
        image = normalize(images.to_float(image))
        tokens = encoder.apply({"params": params}, image, False)
        return vit.pool(tokens, pool, encoder.cls).astype(jnp.float32)

    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    forward = jax.jit(forward, static_argnums=2, out_shardings=whole)

    def features(params, image, pool):
        image = jax.device_put(image, partition.batch_sharding(mesh))
        with jax.set_mesh(mesh):
            return jax.device_get(forward(params, image, pool))

    def extract(params, batches, pool):
        return collect(batches, lambda image: features(params, image, pool))

    return extract


def pixels(batches):
    """Raw pixels as features, the baseline of every encoder: float32 `[M H*W*3]`."""
    return collect(
        batches, lambda image: image.reshape(len(image), -1).astype(np.float32) / 255.0
    )


def collect(batches, function):
    """Applies `function` to the images of all batches, keeps the valid: `[M F], [M]`."""
    features, labels = [], []
    for batch in batches:
        features.append(function(batch["image"])[batch["valid"]])
        labels.append(batch["label"][batch["valid"]])
    return np.concatenate(features), np.concatenate(labels)
