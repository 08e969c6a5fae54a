"""What the documentation's commands find when they run: photos, runs, weights; small flags."""

import re

import numpy as np
from PIL import Image

from tests.docs import settings
from vit_ssl_jax import recipes
from vit_ssl_jax.errors import UserError

BEFORE = (  # what placeholders stand for that only a command makes
    *("vit_ssl_jax.main", "--config=configs/mae_vitb.py", "--workdir=runs/mae_vitb"),
)
AFTER = (
    *("vit_ssl_jax.convert", "export", "runs/mae_vitb", "--to=timm", "--out=weights"),
)


def make(folder):
    """Photos in class folders, and two of them alone: a.jpg and b.jpg."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        for name in ("cats", "dogs"):
            for number in range(count):
                place = folder / "photos" / split / name
                place.mkdir(parents=True, exist_ok=True)
                photo(rng).save(place / f"{number}.jpg")
    for name in ("a.jpg", "b.jpg"):
        photo(rng).save(folder / name)


def photo(rng):
    """A few squares of random colors, as an image."""
    pixels = rng.integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(pixels.repeat(12, 0).repeat(12, 1))


def job(words, folder):
    """A command's words, placeholders filled and small, as `forked.run` takes them."""
    module, *rest = settings.fill(words)
    return {
        "argv": [module, *rest, *small(rest)],
        "cwd": str(folder),
        "picture": "--config=configs/quickstart.py" in rest,
        "met": "--process_id=0" in rest,  # by the next command
    }


def small(words):
    """Further flags for a command, that make it small."""
    given = dict(
        re.findall(r"^--config\.([\w.]+)=(.*)", "\n".join(words), re.MULTILINE)
    )
    named = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    if not named:
        return []
    try:
        config = recipes.load(named[0])
    except UserError:  # a list of recipes, of launch scripts
        return []
    change = judged if "tasks" in config else trained
    flat = recipes.flatten(config.to_dict())
    return [
        f"--config.{key}={value}" for key, value in change(config, flat, given).items()
    ]


def trained(config, flat, given):
    """Changes of a recipe to train: few steps of a small ViT, noise where data is far."""
    changes = {}
    for key in flat:
        ends = [
            x for x in settings.SMALL if key == x or key.endswith((f".{x}", f"_{x}"))
        ]
        if ends and (key not in given or key in settings.FIRM):
            changes[key] = settings.SMALL[max(ends, key=len)]
    patch = (flat["vit.variant"] or "Ti/16").partition("/")[2]
    changes["vit.variant"] = f"{settings.VARIANT}/{patch}"
    if config.data.name not in ("embedded", "folder") and "data.name" not in given:
        changes |= {"data.name": "fake", "data.dir": "", "data.label": ""}
    return changes


def judged(config, flat, given):
    """Changes of a suite: few heads, and a first task whose images are at hand."""
    changes = {
        f"evals.{key}": value
        for key, value in settings.JUDGED.items()
        if f"evals.{key}" in flat
    }
    task = next(iter(config.tasks))
    if config.tasks[task].set != "folder":
        changes |= {f"tasks.{task}.{key}": v for key, v in settings.TASK.items()}
    return {"eval_batch_size": 16} | changes
