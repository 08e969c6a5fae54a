"""k-NN: a weighted vote of the nearest training images (Wu et al., 2018; DINO, 2021)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import standardize as standardize_features

CHUNK = 512  # queries at a time: bounds the similarity matrix


def evaluate(bank, queries, *, k, temperature, standardize):
    """Top-1 of the vote: weight `exp(cosine / temperature)`, `k` neighbours.

    Features are made unit length; `standardize` first scales each by the bank's mean
    and deviation (DINO's protocol doesn't). Raises UserError where `k` exceeds the bank.
    """
    (x, y), (q, labels) = bank, queries
    if max(k) > len(x):
        raise UserError(
            f"config.evals.knn.k: {max(k)} neighbours of {len(x)} bank images"
        )
    if standardize:
        x, q = standardize_features(x, q)
    x, q = _unit(x), _unit(q)
    classes = int(max(y.max(), labels.max())) + 1
    predicted = {count: [] for count in k}
    for start in range(0, len(q), CHUNK):
        chunk = q[start : start + CHUNK]
        padded = np.pad(chunk, ((0, CHUNK - len(chunk)), (0, 0)))
        for count in k:
            votes = vote(
                padded, x, y, k=count, temperature=temperature, classes=classes
            )
            predicted[count].append(np.asarray(votes).argmax(-1)[: len(chunk)])
    return {
        f"k{count}_T{temperature:g}/top1": float(
            (np.concatenate(parts) == labels).mean()
        )
        for count, parts in predicted.items()
    }


@functools.partial(jax.jit, static_argnames=("k", "temperature", "classes"))
def vote(queries, bank, labels, *, k, temperature, classes):
    """Class scores `[Q C]` of unit queries `[Q F]` by a unit bank `[M F]`, `[M]`."""
    similarity = jnp.einsum("qf,mf->qm", queries, bank, precision="highest")
    similarity, nearest = jax.lax.top_k(similarity, k)
    weights = jnp.exp(similarity / temperature)
    return (weights[..., None] * jax.nn.one_hot(labels[nearest], classes)).sum(1)


def _unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
