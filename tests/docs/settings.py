"""What the placeholders of the documentation stand for in its tests, and small settings.

A command of a page runs as it is written there, but that

- placeholders become what STANDS_FOR has, in a folder that `material.make` fills;
- flags are added that make it small: `small`;
- one that LEFT_OUT names isn't run at all, for the reason that stands there.
"""

import re

STANDS_FOR = {
    "IMAGES": "photos",
    "PHOTOS": "photos",
    "NEW": "photos",
    "DIR": "photos",
    "DST": "sets",
    "SETS": "sets",
    "SRC": "photos",
    "TARS": "photos",
    "RUN": "runs/mae_vitb",
    "RUN2": "runs/mae_vitb",
    "FILE": "weights/model.safetensors",
    "METHOD": "mae",
    "NAME": "name",
    "BUCKET": "bucket",
    "IMAGE": "image",
    "PROJECT": "project",
    # Runs that a page speaks of, and no page before it trains:
    "runs/ijepa_vitl": "runs/mae_vitb",
}
# Commands that no test runs, by how they begin, and why. All but those of OTHERS are
# still read: flags, keys and values.
LEFT_OUT = {
    "pip install": "installs packages; tests/test_packaging.py installs the wheel",
    "python -m pytest": "runs the tests",
    ".ci/run": "runs all tests in fresh environments",
    "python -m tests.parity": "tests/test_goldens.py does the same",
    "tfds convert_format": "needs TensorFlow",
}
# Commands that end with an error here, by their module, and what it says.
ENDS = {
    "vit_ssl_jax.replay": "there is no runs/",  # no step of that run went wrong
}
OTHERS = (
    "pip",
    "tfds",
    "git",
    "gcloud",
    "kubectl",
    "sbatch",
    "docker",
    "uv",
    "wandb",
    ".ci/run",
)

# Values that make a run small, by the end of their keys; those that a recipe lacks are
# left out, and so are those that a command gives, but for FIRM.
SMALL = {
    "batch_size": 16,
    "steps": 2,
    "log_every": 1,
    "checkpoint_every": 2,
    "data.eval_batch_size": 16,
    "data.workers": 0,
    "health.every": 0,
    "online.share": 0.0,
    "pictures.every_epochs": 0.0,
    "pictures.count": 2,
    "every_epochs": -1.0,
    "vit.remat": "none",
    "predictor_width": 16,
    "predictor_depth": 1,
    "predictor_heads": 4,
    "decoder_width": 16,
    "decoder_depth": 1,
    "decoder_heads": 4,
    "head_width": 16,
    "bottleneck_width": 16,
    "prototypes": 64,
    "projector_width": 16,
    "projection_width": 16,
    "local_crops": 2,
    "slices": 16,
    "permutations": 16,
}
FIRM = ("batch_size", "steps")
VARIANT = "1x32x2"  # and the recipe's patch
# Evaluators of suites.
JUDGED = {
    "knn.k": (1,),
    "fewshot.shots": (1,),
    "fewshot.seeds": (0,),
    "linear.iterations": 5,
    "probe.batch_size": 8,
    "probe.epochs": 1.0,
    "probe.epoch_steps": 0,
    "probe.norm_group": 0,
    "probe.readouts": ((1, "mean"),),
    "probe.batch_norm": (False,),
    "probe.rates": (0.1,),
    "probe.decays": (0.0,),
    "probe.warmup_epochs": 0.0,
}
TASK = dict(  # what the first task of a suite looks at
    set="embedded",
    dir="",
    label="",
    train="train[:80]",
    select="",
    test="test[:80]",
)


def fill(words):
    """Words with what the placeholders stand for."""
    names = sorted(STANDS_FOR, key=len, reverse=True)
    known = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, names))})(?![\w])")
    return [known.sub(lambda match: STANDS_FOR[match[1]], word) for word in words]


def reason(command):
    """Why a command isn't run; "" where it is."""
    begun = (why for start, why in LEFT_OUT.items() if command.text.startswith(start))
    return next(begun, "")
