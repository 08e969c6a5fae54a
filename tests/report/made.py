"""Workdirs as runs leave them, with numbers that a test knows."""

import io
import json

import numpy as np
from PIL import Image

VERSIONS = {"jax": "0.9.2", "python": "3.11.7", "devices": "1 cpu", "cores": 2}
CARD = {"name": "embedded 'train'", "images": 6500, "classes": ["brick", "coins"]}


def loss(step, seed=0):
    """The loss of the runs below."""
    return 2.0 / (1 + step / 50) + 0.1 * np.sin(step + seed)


def rows(steps, *, seed=0, every=10):
    """Lines of metrics.jsonl as dicts: each step's, and every so often an evaluation."""
    for step in range(1, steps + 1):
        yield {
            "step": step,
            "train/loss": float(loss(step, seed)),
            "train/lr": 1e-3 * (1 - step / steps),
            "mask/valid": 0.25,
            "perf/img_per_sec": 300.0 + seed,
            "perf/data_wait_frac": 0.02,
            "perf/hours": step / 3600,
            "epoch": step / 100,
            "examples_seen": 16.0 * step,
        }
        if step % every == 0:
            yield {"step": step, "eval/knn/top1": 0.5 + 0.1 * seed + step / 1e4}
            yield {"step": step, "ssl/alarm": 0.0, "ssl/rankme": 6.0 + seed}


def write(folder, *, steps=40, seed=0, lr=1e-3, recipe="quickstart:mae", tail=""):
    """A run's workdir; `tail` is what stands at the end of its metrics."""
    folder.mkdir(parents=True)
    config = dict(recipe=recipe, seed=seed, steps=steps, batch_size=16, init_from="")
    config |= dict(optim=dict(lr=lr, betas=[0.9, 0.95]), data=dict(dir="x"))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "versions.json").write_text(json.dumps(VERSIONS))
    (folder / "data.json").write_text(json.dumps(CARD))
    lines = "".join(json.dumps(row) + "\n" for row in rows(steps, seed=seed))
    (folder / "metrics.jsonl").write_text(lines + tail)
    return folder


def picture(file, *, shade=128, size=(64, 32), noise=False):
    """Writes a PNG of one shade, or of noise, and returns its bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size[::-1], 3), shade, np.uint8)
    if noise:
        pixels = np.random.default_rng(shade).integers(0, 256, pixels.shape, np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    file.write_bytes(out.getvalue())
    return out.getvalue()
