"""RelViT's four trainings on six small sets, as published."""

from tests.published import Family, Row

SETS = ("cifar10", "cifar100", "svhn", "flowers102", "tinyimagenet", "imagenet100")
PHASES = ("upstream", "finetune", "supervised", "joint")
SOURCE = (
    "guglielmocamporese/relvit, README and scripts; Camporese et al. (2022). Values of the "
    "README, where the scripts' defaults differ."
)


def by(*values):
    """Values of the phases."""
    return dict(zip(PHASES, values))


TASK = ("upstream", "joint")
LABELLED = ("finetune", "supervised")


def of(labels, value):
    """A value of those phases that have it."""
    return dict.fromkeys(labels, value)


UNUSED = "the other two phases are another method"
RELVIT = Family(
    "RelViT, its four trainings",
    SOURCE,
    {phase: (f"relvit_{phase}.py", "cifar10") for phase in PHASES},
    (
        Row("batch_size", 256, 256),
        Row("epochs", 100.0, 100),
        Row(
            "keep_best",
            by(
                "min eval/pretext/loss",
                *["max eval/classify/top1"] * 2,
                "max eval/pretext/top1",
            ),
        ),
        Row("method.relations", of(TASK, 1.0)),
        Row("method.positions", of(TASK, 1.0)),
        Row("method.distances", of(TASK, 0.0), of(TASK, "1.0 in ablations")),
        Row("method.angles", of(TASK, 0.0), of(TASK, "1.0 in ablations")),
        Row("method.labels", {"upstream": 0.0, "joint": 1.0}),
        Row("method.patch_augment", {"upstream": True, "joint": False}),
        Row(
            "method.compat",
            of(TASK, "official"),
            why="joint: without augmentation of patches it has no meaning",
        ),
        Row("method.pool", of(LABELLED, "cls")),
        Row("method.loss", of(LABELLED, "softmax")),
        Row(
            "method.head_bias",
            of(LABELLED, "U(-1, 1) / sqrt(384)"),
            why="zero at the start",
        ),
        Row(
            "method.head_std",
            of(LABELLED, "U(-1, 1) / sqrt(384)"),
            why="normal, of the same deviation",
        ),
        Row("vit.variant", "S/4", "S/4"),
        Row("vit.posemb", by("none", "learned", "learned", "learned")),
        Row("vit.cls", True),
        Row("vit.droppath", 0.1),
        Row("vit.norm_eps", 1e-6),
        Row("vit.gelu", "exact"),
        Row("vit.init", "timm"),
        Row("vit.dtype", "float32"),
        Row("optim.name", "adamw"),
        Row("optim.lr", 5e-4),
        Row("optim.lr_batch", 0),
        Row("optim.schedule", "quarter_cosine"),
        Row("optim.lr_start", 0.0),
        Row("optim.lr_end", 1.25e-6),
        Row("optim.warmup_epochs", 10.0),
        Row("optim.first_step", 0),
        Row("optim.b1", 0.9),
        Row("optim.b2", 0.999),
        Row("optim.eps", 1e-8),
        Row("optim.wd", 0.1),
        Row("optim.wd_end", 0.1),
        Row("optim.no_decay", ()),
        Row("optim.clip", 1.0),
        Row("data.size", (32, 32)),
        Row("data.pad", 4),
        Row("data.crop", ()),
        Row("data.ratio", why="no crop of another shape is drawn"),
        Row("data.flip", True),
        Row("data.interpolation", "bilinear"),
        Row("data.mean", (0.4914, 0.4822, 0.4465)),
        Row("data.std", (0.2470, 0.2435, 0.2616)),
    ),
)


def sets(*values):
    """Values of the six sets."""
    return dict(zip(SETS, values))


IMAGES = Family(
    "RelViT, its sets",
    SOURCE + " All else is as for CIFAR-10 above.",
    {name: ("relvit_finetune.py", name) for name in SETS},
    (
        Row("vit.variant", sets("S/4", "S/4", "S/4", "S/32", "S/8", "S/32")),
        Row("data.size", sets(*[(32, 32)] * 3, (224, 224), (64, 64), (224, 224))),
        Row("data.pad", sets(4, 4, 4, 0, 4, 0)),
        Row("data.crop", sets((), (), (), (0.08, 1.0), (), (0.08, 1.0))),
        Row("data.resize", sets(32, 32, 32, 256, 64, 256)),
        Row(
            "data.mean",
            sets(
                (0.4914, 0.4822, 0.4465),
                (0.5071, 0.4866, 0.4409),
                (0.4378, 0.4439, 0.4729),
                (0.5115, 0.4160, 0.3410),  # theirs of 112 px: there are none of 224
                (0.4802, 0.4481, 0.3975),
                (0.4595, 0.4520, 0.3900),
            ),
        ),
        Row(
            "data.std",
            sets(
                (0.2470, 0.2435, 0.2616),
                (0.2673, 0.2564, 0.2761),
                (0.1981, 0.2011, 0.1970),
                (0.2951, 0.2488, 0.2882),
                (0.2770, 0.2691, 0.2821),
                (0.2547, 0.2385, 0.2548),
            ),
        ),
        Row(
            "steps",
            sets(0, 0, 0, 400, 0, 0),
        ),
    ),
    whole=False,
)

ALL = (RELVIT, IMAGES)
