"""What the placeholders of the documentation stand for in its tests, and small settings.

A command of a page runs as it is written there, but that

- placeholders become what STANDS_FOR has, in the page's folder, which `material` fills;
- flags are added that make it small: SMALL, JUDGED, FLAGS;
- one that LEFT_OUT names isn't run, for the reason that stands there.
"""

import re

STANDS_FOR = {
    "IMAGES": "photos",
    "DIR": "dir",  # the same photos, and what a command writes beside them
    "TARS": "photos",
    "RUN": "runs/mae_vitb",
    "FILE": "weights/model.safetensors",
    "METHOD": "mae",
    "BUCKET": "bucket",
    "IMAGE": "image",
}
# Runs that pages speak of, and how they are trained. A page that trains one of that name
# itself finds none.
SHARED = {
    "runs/quickstart": "main --config=configs/quickstart.py",
    "runs/mae_vitb": "main --config=configs/mae_vitb.py",
    "runs/own": "main --config=configs/own.py --config.data.dir=photos",
    "runs/classes": "main --config=configs/own.py:supervised --config.data.dir=photos",
    "runs/finetuned": "main --config=configs/finetune_vitb.py"
    " --config.init_from=runs/mae_vitb",
}
# A run, and another that stands for it.
ALIKE = {"runs/ijepa_vitl": "runs/mae_vitb", "runs/classifier": "runs/classes"}
# Commands that aren't run, by what they have in common, and why. Those of our package
# are still read: their flags, keys and values.
LEFT_OUT = {
    "pip install": "installs packages; tests/test_packaging.py installs the wheel",
    "python -m pytest": "runs the tests",
    ".ci/run": "runs all tests in fresh environments",
    "tests.parity": "tests/test_goldens.py does the same",
    "tfds convert_format": "needs TensorFlow",
    "tests.studies": "draws a picture of the pages anew",
    **dict.fromkeys(
        ("data.prepare TARS", "data.prepare ILSVRC2012"),
        "needs ImageNet's archives; tests/data/test_prepare.py makes small ones",
    ),
    "convert inspect dinov2": "needs DINOv2's file; tests/interop has others",
    "configs/lowshot_vitl.py:1pct": "needs ImageNet, prepared; tests/data/test_listing.py",
    "configs/eval_dense.py": "needs images with maps; tests/test_evaluate_dense.py makes some",
    "configs/eval_robust.py:DIR": "needs sets unpacked; tests/test_evaluate_robust.py",
    "report --live": "serves until it is stopped; tests/report starts and stops it",
    "plan.matrix": "compiles for an hour; tests/plan fills a smaller table",
    **dict.fromkeys(
        (
            *(
                "plan --config=configs/ijepa_vith.py",
                "plan --config=configs/mae_vitl.py",
            ),
            *(
                "plan --config=configs/probe_vitl.py",
                "plan --config=configs/supervised",
            ),
        ),
        "as mae_vitb.py's plans, which run; tests/compiled has every method on both",
    ),
}
# Commands that end with an error here, and what it says.
ENDS = {
    "replay runs/mae/capsules": "there is no runs/mae/capsules",
    "replay runs/quickstart/capsules": "there is no runs/quickstart/capsules",
}
# Programs that aren't ours.
OTHERS = ("pip", "tfds", ".ci/run")

# Values that make a run small, by the end of their keys; those that a recipe lacks are
# left out, and so are those that a command gives, but for FIRM.
SMALL = {
    "batch_size": 16,
    "steps": 2,
    "log_every": 1,
    "checkpoint_every": 2,
    "summary": False,
    "keep_best": "",
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
AT_HAND = ("folder", "photos")  # sets; the second is one that a page prepares
VARIANT = "3x32x2"  # and the recipe's patch
FLAGS = {  # further ones, for commands with these words
    "vit_ssl_jax.plan": ["--config.batch_size=64"],
    "--search": ["--budget=1"],
    "bench step": ["--steps=2"],
    "bench input": ["--seconds=1"],
}
# What `gcloud config set` has said on a machine where launch/tpu_vm.sh is used.
GCLOUD = ["--project=project", "--zone=us-west4-a"]
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
# What the first task of a suite looks at, unless its set is a folder.
TASK = dict(
    set="fake", dir="", label="", train="train[:80]", select="", test="test[:80]"
)


def fill(words):
    """Words with what the placeholders stand for."""
    names = "|".join(map(re.escape, STANDS_FOR | ALIKE))
    known = re.compile(rf"(?<![\w.])({names})(?!\w)")
    return [
        known.sub(lambda match: (STANDS_FOR | ALIKE)[match[1]], word) for word in words
    ]


def find(table, text):
    """What a table has for a command, by words in it; "" for none."""
    return next((value for words, value in table.items() if words in text), "")
