"""Batch normalisation without scale and shift, as functions (MAE's linear probe)."""

import jax.numpy as jnp


def batch_norm(x, eps):
    """Standardises by the batch: `[B F] -> [B F], mean [F], unbiased variance [F]`.

    The output divides by the biased deviation, the running variance wants the unbiased
    one: torch's convention.
    """
    mean, variance = x.mean(0), x.var(0)
    return standardize(x, mean, variance, eps), mean, x.var(0, ddof=1)


def standardize(x, mean, variance, eps):
    """Standardises by given statistics: `[B F], [F], [F] -> [B F]`."""
    return (x - mean[None]) / jnp.sqrt(variance + eps)[None]


def running(old, new, momentum):
    """Moves a running statistic towards a batch's by `momentum` (torch: 0.1)."""
    return (1.0 - momentum) * old + momentum * new
