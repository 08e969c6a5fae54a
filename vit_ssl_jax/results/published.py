"""Published results, beside which `results` puts ours: one row a figure, with its source.

A row belongs to a recipe (file of `configs/`, with its argument) and a metric of its
runs. Where the figure is of a finished encoder, `evaluation` is the recipe of the
evaluation and `recipe` that of the pre-training. Values are in per cent.
"""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Published:
    """One figure."""

    recipe: str
    metric: str  # the end of our metric's name
    value: float
    std: float | None  # over runs, where it is published
    source: str
    evaluation: str = ""
    note: str = ""  # where the published protocol isn't quite the recipe's


MAE = "He et al., 2022, and its repository"
VIT = "Dosovitskiy et al., 2021"
ISSUE = "an author of ViT, vision_transformer issue 62"
IJEPA = "Assran et al., 2023"
DINO = "Caron et al., 2021, and its repository"
LEJEPA = "Balestriero and LeCun, 2025, and its repository"
MASKFEAT = "Wei et al., 2022, and SlowFast's model zoo"
RELVIT = "Camporese et al., 2022 (the authors' slides)"
LONG = "pre-trained for 1600 epochs"
KNN = "k20_T0.07_cls/top1"  # with --config.evals.knn.pool=cls
DINO_S = "pre-trained for 800 epochs; ours: the code's default, 100"


def relvit(name, supervised, supervised_std, finetuned, finetuned_std):
    """Two rows of RelViT's table: the same network without and with pre-training."""
    note = "the best epoch on the split that is reported; ours: the last"
    return [
        Published(
            f"relvit_{kind}:{name}", "classify/top1", value, std, RELVIT, note=note
        )
        for kind, value, std in (
            ("supervised", supervised, supervised_std),
            ("finetune", finetuned, finetuned_std),
        )
    ]


ROWS = [
    *relvit("cifar10", 86.09, 0.46, 90.23, 0.09),
    *relvit("cifar100", 59.19, 0.84, 64.99, 0.46),
    *relvit("svhn", 96.01, 0.07, 97.14, 0.03),
    *relvit("tinyimagenet", 43.19, 0.78, 51.98, 0.20),
    *relvit("flowers102", 42.08, 0.29, 45.78, 0.75),
    *relvit("imagenet100", 58.04, 0.91, 66.46, 0.45),
    Published("finetune_vitb:mae", "classify/top1", 83.57, 0.09, MAE, note=LONG),
    Published("finetune_vitl:mae", "classify/top1", 85.87, 0.08, MAE, note=LONG),
    Published(
        "finetune_vitl:partial",
        "classify/top1",
        81.0,
        None,
        f"{MAE}, figure 9",
        note="one block; after 800 epochs on pixels that aren't normalised",
    ),
    Published("finetune_vith", "classify/top1", 86.9, None, MAE, note=LONG),
    Published(
        "finetune_vitb:maskfeat", "classify/top1", 84.0, None, MASKFEAT, note=LONG
    ),
    Published(
        "finetune_vitl:maskfeat", "classify/top1", 85.7, None, MASKFEAT, note=LONG
    ),
    Published("supervised_vitb:original", "classify/top1", 74.79, None, ISSUE),
    Published("supervised_vitl:original", "classify/top1", 72.59, None, ISSUE),
    Published("supervised_vitl:modern", "classify/top1", 82.5, None, MAE),
    Published("supervised_vitb:modern", "classify/ema/top1", 82.3, None, MAE),
    Published("supervised_vitl:modern", "classify/ema/top1", 82.6, None, MAE),
    Published("supervised_vith:modern", "classify/ema/top1", 83.1, None, MAE),
    Published("mae_vitb", "best/top1", 68.0, None, MAE, "probe_vitb:mae", note=LONG),
    Published("mae_vitl", "best/top1", 75.8, None, MAE, "probe_vitl:mae", note=LONG),
    Published("mae_vith", "best/top1", 76.6, None, MAE, "probe_vith:mae", note=LONG),
    Published("ijepa_vitb", "best/top1", 72.9, None, IJEPA, "probe_vitb:ijepa"),
    Published("ijepa_vitl", "best/top1", 77.5, None, IJEPA, "probe_vitl:ijepa"),
    Published("ijepa_vith", "best/top1", 79.3, None, IJEPA, "probe_vith:ijepa"),
    Published("dino_vits", KNN, 74.5, None, DINO, "eval_imagenet", note=DINO_S),
    Published("dino_vitb", KNN, 76.1, None, DINO, "eval_imagenet"),
    *(
        Published(
            "lejepa_vitl",
            f"{name}/linear/C0.1/top1",
            value,
            None,
            LEJEPA,
            "eval_small",
            note="class tokens of the last two layers; ours: the mean of the patches",
        )
        for name, value in (("cifar10", 96.50), ("cifar100", 83.71))
    ),
    Published(
        "ijepa_vith16_448", "best/top1", 81.1, None, IJEPA, "probe_vith:ijepa448"
    ),
]

# After I-JEPA and MAE: low-shot fine-tuning, and linear heads on other sets (I-JEPA, tables
# 2 and 3); fine-tuning on other sets (MAE, table 6).
BETTER = "fine-tuning or a linear probe, whichever is better"
for _recipe, _value in (
    ("lowshot_vitl:1pct", 69.4),
    ("lowshot_vith:1pct", 73.3),
    ("lowshot_vith:1pct_448", 77.3),
):
    ROWS.append(Published(_recipe, "classify/top1", _value, None, IJEPA, note=BETTER))

LINEAR = {  # CIFAR-100, Places205, iNat18, Clevr/Count, Clevr/Dist
    "ijepa_vith": (87.5, 58.4, 47.6, 86.7, 72.4),
    "ijepa_vitg16": (89.5, 59.1, 55.3, 86.7, 73.0),
    "mae_vith": (77.3, 55.0, 32.9, 90.5, 72.4),
}
TASKS = ("cifar100", "places205", "inat18", "clevr_count", "clevr_distance")
for _recipe, _values in LINEAR.items():
    for _task, _value in zip(TASKS, _values):
        ROWS.append(
            Published(
                _recipe,
                "best/top1",
                _value,
                None,
                IJEPA,
                f"probe_transfer:{_task}",
                note="the best of four heads on the test images",
            )
        )

FINETUNED = {  # ViT-B, L, H
    "inat17": (70.5, 75.7, 79.3),
    "inat18": (75.4, 80.1, 83.0),
    "inat19": (80.5, 83.4, 85.7),
    "places205": (63.9, 65.8, 65.9),
    "places365": (57.9, 59.4, 59.8),
}
for _task, _values in FINETUNED.items():
    for _size, _value in zip("blh", _values):
        ROWS.append(
            Published(
                f"finetune_transfer:{_task},{_size}",
                "classify/top1",
                _value,
                None,
                f"{MAE}, table 6",
                note=f"{LONG}; rate and epochs adjusted for the set, not told",
            )
        )

# One fine-tuned model on ImageNet's variants (MAE, table 13); mCE is an error.
ROBUST = ("imagenet_a", "imagenet_r", "imagenet_sketch", "imagenet_c")
ROBUSTNESS = {
    "finetune_vitb:mae": (35.9, 48.3, 34.5, 51.7),
    "finetune_vitl:mae": (57.1, 59.9, 45.3, 41.8),
    "finetune_vith": (68.2, 64.4, 49.6, 33.8),
    "supervised_vitb:modern": (27.2, 49.4, 35.6, 45.8),
    "supervised_vitl:modern": (29.6, 50.9, 37.5, 42.3),
    "supervised_vith:modern": (33.1, 50.3, 38.0, 41.3),
}
for _recipe, _values in ROBUSTNESS.items():
    for _set, _value in zip(ROBUST, _values):
        _metric = "mce" if _set == "imagenet_c" else "top1"
        _ema = "ema/" if _recipe.startswith("supervised") else ""
        ROWS.append(
            Published(
                _recipe,
                f"{_set}/classify/{_ema}{_metric}",
                _value,
                None,
                f"{MAE}, table 13",
                "eval_robust",
                note="" if _ema else LONG,
            )
        )

# Imagenette, ViT-S/16, 200 epochs: linear, k-NN (a table of stable-pretraining's).
IMAGENETTE = {
    "lejepa": (87.1, 85.4),
    "dino": (86.1, 83.8),
    "mae": (84.1, 72.1),
    "ijepa": (34.0, 33.2),
    "maskfeat": (25.6, 27.8),
}
for _name, _values in IMAGENETTE.items():
    for _metric, _value in zip(("linear/top1", "knn_k20_T0.07/top1"), _values):
        ROWS.append(
            Published(
                f"imagenette:{_name}",
                f"online/{_metric}",
                _value,
                None,
                "stable-pretraining's table",
                note="its online probes over the features of its own recipe",
            )
        )

# Transfer from ImageNet-21k at 384 px (Dosovitskiy et al., 2021, table 5).
TRANSFER = {  # ImageNet, ReaL, CIFAR-10, CIFAR-100, Flowers, Pets
    "vitb": (83.97, 88.35, 98.95, 91.67, 99.38, 94.43),
    "vitl": (85.15, 88.40, 99.16, 93.44, 99.61, 94.73),
    "vith": (85.13, 88.70, 99.27, 93.82, 99.51, 94.82),
}
SETS = ("imagenet", "imagenet", "cifar10", "cifar100", "flowers", "pets")
for _size, _values in TRANSFER.items():
    for _i, (_set, _value) in enumerate(zip(SETS, _values)):
        ROWS.append(
            Published(
                f"transfer_{_size}:{_set}",
                "classify_real/top1" if _i == 1 else "classify/top1",
                _value,
                None,
                f"{VIT}, table 5",
                note="pre-trained with labels on ImageNet-21k",
            )
        )


def find(recipe, metric, evaluation=""):
    """The published row of a metric of a recipe's run, None where there is none.

    Older runs call `relvit_PHASE:SET` `relvit_SET_PHASE`.
    """
    recipe = re.sub(r"^relvit_([a-z0-9]+)_([a-z]+)$", r"relvit_\2:\1", recipe)
    for row in ROWS:
        same = (row.recipe, row.evaluation) == (recipe, evaluation)
        if same and ("/" + metric).endswith("/" + row.metric):
            return row
    return None
