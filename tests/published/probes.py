"""Linear probes and k-NN as published: MAE, I-JEPA, DINOv2, DINO, big_vision."""

from tests.published import Family, Row

NAMES = ("mae", "ijepa", "dinov2")


def by(*values):
    """Values of the three protocols."""
    return dict(zip(NAMES, values))


DINOV2 = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
PROBE = "evals.probe."
PROBES = Family(
    "Linear probes",
    "facebookresearch/mae, main_linprobe.py; Assran et al. (2023), appendix A.2, whose code has "
    "no probe; facebookresearch/dinov2, dinov2/eval/linear.py. B and H differ in "
    "`config.variant` alone.",
    {name: ("probe_vitl.py", name) for name in NAMES},
    (
        Row(
            PROBE + "readouts",
            by(
                ((1, "cls"),),
                ((1, "mean"), (4, "mean")),
                ((1, "cls"), (4, "cls"), (1, "cls+mean"), (4, "cls+mean")),
            ),
        ),
        Row(PROBE + "batch_norm", by((True,), (False, True), (False,))),
        Row(PROBE + "norm_group", by(512, 0, 0)),
        Row(PROBE + "optimizer", by("lars", "lars", "sgd")),
        Row(PROBE + "momentum", 0.9),
        Row(PROBE + "rates", by((0.1,), (0.01, 0.05, 0.001), DINOV2)),
        Row(PROBE + "rate_batch", 256),
        Row(PROBE + "decays", by((0.0,), (5e-4, 0.0), (0.0,))),
        Row(PROBE + "schedule", by("cosine", "step", "cosine")),
        Row(PROBE + "step_epochs", by(0.0, 15.0, 0.0)),
        Row(PROBE + "warmup_epochs", by(10.0, 0.0, 0.0)),
        Row(PROBE + "epochs", by(90.0, 50.0, 10.0)),
        Row(PROBE + "epoch_steps", by(0, 0, 1250)),
        Row(PROBE + "batch_size", by(16384, 16384, 1024)),
        Row(PROBE + "single_draw", by(True, False, False)),
        Row(PROBE + "crop", (0.08, 1.0)),
        Row(PROBE + "ratio", (3 / 4, 4 / 3)),
        Row(PROBE + "flip", True),
        Row("tasks.imagenet.interpolation", "bicubic"),
        Row("tasks.imagenet.resize", 256),
        Row("tasks.imagenet.size", (224, 224)),
        Row(
            "tasks.imagenet.train",
            "train",
            why="of a sweep 1 % is held out, on which the best head is chosen",
        ),
        Row(
            "tasks.imagenet.select",
            by("", "validation", "validation"),
            why="the papers choose on the images that they report",
        ),
    ),
)

TASKS = ("cifar100", "places205", "inat18", "clevr_count", "clevr_distance")


def of_tasks(*values):
    """Values of VISSL's five sets."""
    return dict(zip(TASKS, values))


TRANSFER = Family(
    "Linear transfer after I-JEPA",
    "facebookresearch/vissl, configs/config/benchmark/linear_image_classification, with the heads "
    "of models/vit_*_no_cls.yaml; Assran et al. (2023), appendix A.2, which names VISSL.",
    {task: ("probe_transfer.py", task) for task in TASKS},
    (
        Row(PROBE + "readouts", ((1, "mean"), (4, "mean")), ((1, "mean"), (4, "mean"))),
        Row(PROBE + "batch_norm", (False, True), (False, True)),
        Row(PROBE + "norm_group", 0),
        Row(PROBE + "optimizer", "sgd"),
        Row(PROBE + "momentum", 0.9),
        Row(PROBE + "nesterov", True),
        Row(PROBE + "rates", (0.01,)),
        Row(PROBE + "rate_batch", 256),
        Row(PROBE + "decays", (5e-4,)),
        Row(PROBE + "decay_bias", True),
        Row(PROBE + "schedule", of_tasks(*["milestones"] * 3, "cosine", "cosine")),
        Row(
            PROBE + "milestones",
            of_tasks((8.0, 16.0, 24.0), (4.0, 8.0, 12.0), (24.0, 48.0, 72.0), (), ()),
        ),
        Row(PROBE + "rate_end", of_tasks(0.0, 0.0, 0.0, 0.01, 0.01)),
        Row(PROBE + "epochs", of_tasks(28.0, 14.0, 84.0, 50.0, 100.0)),
        Row(PROBE + "batch_size", 256),
        Row(PROBE + "single_draw", False),
        Row(
            PROBE + "crop",
            of_tasks(*[(0.08, 1.0)] * 3, (), ()),
            "random; of CLEVR the center",
        ),
        Row(PROBE + "ratio", (3 / 4, 4 / 3)),
        Row(PROBE + "flip", True, True),
    ),
)

KNN = Family(
    "k-NN and few-shot on ImageNet",
    "facebookresearch/dino, eval_knn.py; google-research/big_vision, evaluators/fewshot_lsr.py.",
    {"eval_imagenet": ("eval_imagenet.py", "")},
    (
        Row("evals.knn.k", (10, 20, 100, 200)),
        Row("evals.knn.temperature", 0.07),
        Row("evals.knn.standardize", False),
        Row(
            "evals.knn.pool",
            "cls",
            why="MAE's and I-JEPA's encoders have no trained class token; by flag for others",
        ),
        Row("evals.fewshot.shots", (1, 5, 10)),
        Row("evals.fewshot.seeds", (0, 1, 2)),
        Row("evals.fewshot.ridge", 1024.0),
        Row("tasks.imagenet.train", "train"),
        Row("tasks.imagenet.interpolation", "bicubic"),
        Row("tasks.imagenet.resize", 256),
    ),
)

ALL = (PROBES, TRANSFER, KNN)
