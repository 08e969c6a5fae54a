"""Why jigsaw doesn't help k-NN on plain images: the same on images as its puzzles show them.

python -m tests.studies.jigsaw_views --data=DIR RUN...

A RUN is a workdir of `pretext_cpu.py:jigsaw`. In a puzzle every tile is standardised, which
takes brightness and contrast from it. k-NN as in the recipe (20 neighbours of 5,000 images,
2,000 asked), with features of the learned and the untrained encoder, on plain images and on
unshuffled puzzles.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np

import vit_ssl_jax
from vit_ssl_jax import build
from vit_ssl_jax.data import reading
from vit_ssl_jax.data.sources import open_source
from vit_ssl_jax.ops import tiles

SPLITS = {"train": 5_000, "test": 2_000}


def main():
    """Prints a row a run."""
    parser = argparse.ArgumentParser(
        prog="tests.studies.jigsaw_views", description=__doc__
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("runs", nargs="+")
    args = parser.parse_args()
    bank, queries = (read(args.data, *item) for item in SPLITS.items())
    print(
        "| run | images | raw pixels | untrained | learned | gain |\n"
        + "|---" * 6
        + "|"
    )
    for run in args.runs:
        encoder = vit_ssl_jax.load(run)
        model = build.make_run(encoder.config, jax.devices()[:1])
        first = model.program.init(jax.random.key(encoder.config.seed))
        states = {"untrained": first.params["encoder"], "learned": encoder.params}
        for name, view in {"plain": plain, "unshuffled puzzles": puzzle}.items():
            look = functools.partial(view, encoder)
            top1 = [accuracy(flat, look, bank, queries)]
            for params in states.values():
                features = functools.partial(mean_of_patches, encoder, params)
                top1.append(accuracy(features, look, bank, queries))
            cells = [run, name, *(f"{100 * x:.1f}" for x in top1)]
            cells.append(f"{100 * (top1[2] - top1[1]):+.1f}")
            print("| " + " | ".join(cells) + " |", flush=True)


def read(data, split, count):
    """The first images of a split, uint8 `[n 32 32 3]`, and their labels."""
    source = open_source("cifar10", data, f"{split}[:{count}]")
    pairs = [reading.try_to_read(source, i) for i in range(count)]
    return np.stack([image for image, _ in pairs]), np.array([y for _, y in pairs])


def plain(encoder, image):
    """As evaluation gives images."""
    return encoder.normalize(jnp.float32(image) / 255)


def puzzle(encoder, image):
    """As training does, but whole and in order: cells standardised."""
    grid = encoder.config.method.grid
    cells = tiles.cut_cells(plain(encoder, image), grid)
    return tiles.join_cells(tiles.standardise(cells, channels=False), grid)


def mean_of_patches(encoder, params, image):
    """Features `[n D]` of standardised images."""
    return encoder.module.apply({"params": params}, image, False).mean(axis=1)


def flat(image):
    """Pixels as features."""
    return image.reshape(len(image), -1)


def accuracy(features, look, bank, queries, k=20, temperature=0.07):
    """Top-1 of a weighted vote of `k` neighbours by cosine, features standardised."""
    compute = jax.jit(lambda image: features(look(image)))
    rows = [
        np.concatenate(
            [np.asarray(compute(x)) for x in np.split(images, len(images) // 250)]
        )
        for images, _ in (bank, queries)
    ]
    mean, std = rows[0].mean(0), rows[0].std(0) + 1e-6
    rows = [(x - mean) / std for x in rows]
    rows = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in rows]
    similarity = rows[1] @ rows[0].T
    nearest = np.argsort(-similarity, axis=1)[:, :k]
    weights = np.exp(np.take_along_axis(similarity, nearest, 1) / temperature)
    votes = np.zeros((len(nearest), 10))
    np.add.at(votes, (np.arange(len(nearest))[:, None], bank[1][nearest]), weights)
    return (votes.argmax(1) == queries[1]).mean()


if __name__ == "__main__":
    main()
