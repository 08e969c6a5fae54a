"""k-NN: a weighted vote of the nearest images (Wu et al., 2018; DINO, 2021)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from vit_ssl_jax import partition
from vit_ssl_jax.checks import POSITIVE, SIZES
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import Unfit, accuracy, banks, features


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the vote."""

    bank: str  # split whose images vote
    queries: str  # split whose images are judged
    pool: str  # "cls" or "mean" of the last layer
    k: tuple  # numbers of neighbors
    temperature: float  # a vote's weight is exp(cosine / temperature)
    standardize: bool  # features by the bank's mean and deviation; DINO doesn't
    metric: str = "top1"  # the accuracy: "top1" or "mean_per_class"


RANGES = {
    "pool": banks.POOLS,
    "k": SIZES,
    "temperature": POSITIVE,
    "metric": accuracy.METRICS,
}
ROWS = 8192  # bank images at a time: bounds the devices' memory
BLOCK = 256  # queries at a time on a device: bounds the similarities


wants = banks.wants


def check(c, run, open_split):
    """Raises UserError for a bank without labels or with fewer images than `c.k`."""
    banks.check(c, run, open_split)
    images = len(open_split("bank"))
    if max(c.k) > images:
        raise Unfit(f"k: {max(c.k)} neighbours of {images} bank images ({c.bank})")


def make(c, run):
    """Makes `evaluate(state, inputs)` over the run's mesh."""
    judge = functools.partial(
        evaluate,
        k=c.k,
        temperature=c.temperature,
        standardize=c.standardize,
        mesh=run.mesh,
        metric=c.metric,
    )
    return banks.make_evaluate(c, judge, "_standardized" * c.standardize)


def evaluate(bank, queries, *, k, temperature, standardize, mesh, metric="top1"):
    """Accuracy of the vote for every `k`: `{"k10_T0.07/top1": ..., ...}`.

    A neighbour's weight is `exp(cosine / temperature)`. Features are made unit length;
    `standardize` first scales each by the bank's mean and deviation (DINO's protocol
    doesn't). Raises UserError for a `k` beyond the bank and for images without labels.
    """
    (x, y), (q, labels) = bank, queries
    if max(k) > len(x):
        raise UserError(
            f"config.evals.knn.k: {max(k)} neighbours of {len(x)} bank images"
        )
    banks.check_both("k-NN", y, labels)
    mean, std = np.float32(0), np.float32(1)
    if standardize:
        mean, std = features.statistics(x)
        std = std + 1e-6
    similarity, nearest = find_nearest(x, q, mean, std, count=max(k), mesh=mesh)
    votes = vote(similarity, y[nearest], k=tuple(k), temperature=temperature)
    return {
        # accuracy of the vote of `count` neighbors
        f"k{count}_T{temperature:g}/{metric}": accuracy.accuracy(
            predicted, labels, metric
        )
        for count, predicted in zip(k, np.asarray(votes))
    }


def find_nearest(bank, queries, mean, std, *, count, mesh):
    """The `count` nearest rows of the bank by cosine, nearest first.

    `[M F], [Q F], [F], [F] -> similarity float32 [Q K], row int32 [Q K]`; both sets are
    first centred by `mean` and divided by `std`. Of equal ones the lower row is nearer.

    Queries are split over the mesh (data x fsdp) and stay there with their best so far;
    the bank goes by in chunks, each sent to every device and merged. So a device holds
    two chunks whatever the bank's size, nothing is gathered, and a query meets
    the same blocks of the same shape on any number of devices: the same digits. The
    other way, a bank split over the devices, would save the sending of chunks, but need
    the whole bank in memory and a second round among the devices' candidates.
    """
    ways = partition.ways(mesh)
    split = partition.batch_sharding(mesh)
    everywhere = partition.replicated(mesh)
    blocks = -(-len(queries) // (BLOCK * ways)) * ways
    q = _fill(_unit(queries, mean, std), blocks * BLOCK).reshape(blocks, BLOCK, -1)
    best = np.full((*q.shape[:2], count), -np.inf, np.float32)
    best = best, np.zeros(best.shape, np.int32)
    q, best = partition.put((q, best), split)
    merge = _make_merge(mesh)
    rows = min(ROWS, len(bank))
    for first in range(0, len(bank), rows):
        chunk = _fill(_unit(bank[first : first + rows], mean, std), rows)
        ids = np.arange(first, first + rows, dtype=np.int32)
        ids = np.where(ids < len(bank), ids, -1)
        chunk, ids = partition.put((chunk, ids), everywhere)
        jax.block_until_ready(best)  # so that no more than two chunks wait there
        best = merge(best, q, chunk, ids)
    return tuple(x.reshape(-1, count)[: len(queries)] for x in partition.fetch(best))


@functools.cache
def _make_merge(mesh):
    """Makes `(best, queries [G B F], chunk [R F], ids [R]) -> best`.

    `best` is a pair of similarity and row `[G B K]`; the blocks G are split over
    devices, and an id of -1 marks filling.
    """

    def merge_block(best, queries, chunk, ids):
        similarity, nearest = best
        new = jnp.einsum("qf,rf->qr", queries, chunk, precision="highest")
        new = jnp.where(ids[None] < 0, -jnp.inf, new)
        new, places = jax.lax.top_k(new, min(similarity.shape[-1], len(ids)))
        # Those from before have lower rows; top_k takes the first of equal ones.
        similarity = jnp.concatenate([similarity, new], axis=1)
        nearest = jnp.concatenate([nearest, ids[places]], axis=1)
        similarity, places = jax.lax.top_k(similarity, best[0].shape[-1])
        return similarity, jnp.take_along_axis(nearest, places, axis=1)

    def merge(best, queries, chunk, ids):
        return jax.lax.map(
            lambda block: merge_block(*block, chunk, ids), (best, queries)
        )

    split, whole = partition.BATCH, PartitionSpec()
    return jax.jit(
        jax.shard_map(
            merge, mesh=mesh, in_specs=(split, split, whole, whole), out_specs=split
        ),
        donate_argnums=0,
    )


def vote(similarity, labels, *, k, temperature):
    """The class that the first k neighbours vote for, for each k of a tuple: `[k Q]`.

    `similarity [Q K]`, nearest first, and the neighbours' `labels [Q K]`. Of classes
    with the same score the lowest wins. Weights are relative to the nearest
    neighbour's, so that a low temperature can't overflow (DINOv2's form).
    """
    parts = [
        _vote(similarity[i : i + BLOCK], labels[i : i + BLOCK], k, temperature)
        for i in range(0, len(labels), BLOCK)
    ]
    return np.concatenate([jax.device_get(part) for part in parts], axis=1)


@functools.partial(jax.jit, static_argnames=("k", "temperature"))
def _vote(similarity, labels, k, temperature):
    weights = jnp.exp((similarity - similarity[:, :1]) / temperature)
    # The score of a neighbour's class, [Q K]: no array has the size of all classes.
    agree = labels[:, :, None] == labels[:, None, :]
    out = []
    for count in k:
        agreed = jnp.where(agree[:, :count, :count], weights[:, None, :count], 0.0)
        scores = agreed.sum(-1)
        best = scores == scores.max(-1, keepdims=True)
        far = jnp.iinfo(labels.dtype).max
        out.append(jnp.where(best, labels[:, :count], far).min(-1))
    return jnp.stack(out)


def _unit(x, mean, std):
    x = np.asarray((x - mean) / std, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _fill(x, rows):
    """Adds rows of zeros up to a number of them."""
    return np.pad(x, ((0, rows - len(x)), (0, 0)))
