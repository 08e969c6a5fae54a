"""A projector with batch norms, for losses over a whole batch."""

import flax.linen as nn
import jax.numpy as jnp

from vit_ssl_jax import partition
from vit_ssl_jax.models import layers
from vit_ssl_jax.ops import batchnorm

EPS = 1e-5  # of the batch norms


class BatchNorm(nn.Module):
    """Batch norm with scale and bias, always by the batch: `[R F] -> [R F]` float32.

    Of all devices' rows, and without running statistics: the projector is thrown away.
    """

    @nn.compact
    def __call__(self, x):
        x, _, _ = batchnorm.batch_norm(x.astype(jnp.float32), EPS)
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return x * scale[None] + bias[None]


class Projector(nn.Module):
    """Two hidden layers with batch norm and ReLU, and a linear one.

    Pinned all the way, or rows are exchanged for columns of the weights.
    """

    hidden: int
    features: int
    style: layers.Style

    @nn.compact
    def __call__(self, x):
        """Projects all rows: `[R D] -> [R P]` float32."""
        x = partition.pin_batch(x)
        for name in ("first", "second"):
            x = layers.dense(self.hidden, self.style, f"{name}_embed")(x)
            x = BatchNorm(name=f"{name}_norm")(partition.pin_batch(x))
            x = partition.pin_batch(nn.relu(partition.pin_batch(x)))
        x = layers.dense(self.features, self.style, "projection_embed")(x)
        return partition.pin_batch(x.astype(jnp.float32))
