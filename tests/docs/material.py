"""What the documentation's commands find when they run: photos, runs, weights; small flags."""

import re
import shlex
import shutil

import numpy as np
from PIL import Image

from tests.docs import settings
from vit_ssl_jax import recipes
from vit_ssl_jax.errors import UserError

WEIGHTS = "convert export runs/mae_vitb --to=timm --out=weights"


def make(folder):
    """Photos in class folders, and the same in a folder for what is written, too."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        for name in ("cats", "dogs"):
            place = folder / "photos" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                photo(rng).save(place / f"{number}.jpg")
    shutil.copytree(folder / "photos", folder / "dir")


def photo(rng):
    """A few squares of random colors, as an image."""
    pixels = rng.integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(pixels.repeat(12, 0).repeat(12, 1))


def shared_jobs(folder):
    """What makes the runs that pages share, and a file of weights."""
    lines = [f"{text} --workdir={run}" for run, text in settings.SHARED.items()]
    words = [f"vit_ssl_jax.{line}".split() for line in [*lines, WEIGHTS]]
    return [job(each, folder) for each in words]


def page_jobs(page, commands, base):
    """The commands of a page, in a folder of its own with what is shared."""
    folder, text = base / page.replace("/", "_"), "\n".join(c.text for c in commands)
    uses = {run: re.search(rf"(--workdir=)?{run}\b", text) for run in settings.SHARED}
    own = {run for run, first in uses.items() if first and first[1]}  # made, then used
    jobs = [job(command.words[2:], folder) for command in commands]
    jobs[0]["copy"] = [[str(base), str(folder), name] for name in shared(own)]
    return jobs


def shared(own=()):
    """What a page's folder has at first, unless it makes a run of its `own`."""
    return ["photos", "dir", "weights", *(settings.SHARED.keys() - set(own))]


def share(base, folder):
    """Fills the folder of a page whose commands were all run on others."""
    for name in shared():
        if not (folder / name).exists():
            shutil.copytree(base / name, folder / name)


def job(words, folder):
    """A command's words, placeholders filled and small, as `forked.run` takes them."""
    words = settings.fill(words)
    return {
        "argv": [*words, *small(words)],
        "cwd": str(folder),
        "picture": "--config=configs/quickstart.py" in words,
        "alone": "--num_processes=2" in words,
        "met": "--process_id=0" in words,  # by the next command
    }


def small(words):
    """Further flags for a command, that make it small."""
    text = shlex.join(words)
    more = [flag for key, few in settings.FLAGS.items() if key in text for flag in few]
    given = dict(
        re.findall(r"^--config\.([\w.]+)=(.*)", "\n".join(words), re.MULTILINE)
    )
    named = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    try:
        config = recipes.load(*named)
    except (TypeError, UserError):  # no recipe, or several
        return more
    change = judged if "tasks" in config else trained
    flat = recipes.flatten(config.to_dict())
    changes = change(config, flat, given)
    return [*(f"--config.{key}={value}" for key, value in changes.items()), *more]


def load_small(name, load=recipes.load, **given):
    """What `recipes.load` gives, but small where nothing else is given."""
    config = load(name)
    change = judged if "tasks" in config else trained
    changes = change(config, recipes.flatten(config.to_dict()), given)
    return load(name, **(changes | given))


def trained(config, flat, given):
    """Changes of a recipe to train: few steps of a small ViT, noise where data is far."""
    changes = {}
    for key in flat:
        ends = [
            x for x in settings.SMALL if key == x or key.endswith((f".{x}", f"_{x}"))
        ]
        if ends and (key not in given or key in settings.FIRM):
            changes[key] = settings.SMALL[max(ends, key=len)]
    if config.data.name == "embedded":
        return changes  # the quickstart, whose ViT is small
    patch = (flat["vit.variant"] or "Ti/16").partition("/")[2]
    changes["vit.variant"] = f"{settings.VARIANT}/{patch}"
    if given.get("data.name", config.data.name) not in settings.AT_HAND:
        changes |= {"data.name": "fake", "data.dir": "", "data.label": ""}
    return changes


def judged(config, flat, given):
    """Changes of a suite: few heads, and a first task whose images are at hand."""
    del given
    few = settings.JUDGED.items()
    changes = {f"evals.{key}": x for key, x in few if f"evals.{key}" in flat}
    task = next(iter(config.tasks))
    if config.tasks[task].set != "folder":
        changes |= {f"tasks.{task}.{key}": x for key, x in settings.TASK.items()}
    return {"eval_batch_size": 16, "variant": ""} | changes
