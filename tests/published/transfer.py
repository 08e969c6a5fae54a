"""Transfer as published: ViT's suite, VTAB; RelViT's small sets."""

from tests.published import Family, Row
from tests.published.finetuning import FLOAT

SETS = ("imagenet", "cifar10", "cifar100", "pets", "flowers")
INHERITED = "None: that of the encoder that is given, else the original code's"


def by(*values):
    """Values of the five sets."""
    return dict(zip(SETS, values))


RULE = (  # SGD as in vit_jax
    Row("optim.name", "sgd", "sgd"),
    Row("optim.b1", 0.9, 0.9),
    Row("optim.b2", why="SGD has none"),
    Row("optim.eps", why="SGD has none"),
    Row("optim.lr_batch", 0),
    Row("optim.schedule", "cosine", "cosine"),
    Row("optim.lr_start", 0.0),
    Row("optim.lr_end", 0.0),
    Row("optim.first_step", 0),
    Row("optim.wd", 0.0, 0.0),
    Row("optim.wd_end", 0.0),
    Row("optim.no_decay", why="nothing is decayed"),
    Row("optim.clip", 1.0, 1.0),
)
MODEL = (
    Row("method.loss", "softmax"),
    Row("method.head_bias", 0.0),
    Row("method.head_std", 0.0, 0.0),
    Row("vit.posemb", "learned"),
    Row("vit.cls", why=INHERITED),
    Row("vit.norm_eps", why=INHERITED),
    Row("vit.gelu", why=INHERITED),
    Row("vit.init", "big_vision"),
    Row("vit.dtype", why=FLOAT),
)
TRANSFER = Family(
    "ViT's transfer suite",
    "google-research/big_vision, configs/transfer.py (crops and rates of its docstring for a "
    "B/32); Dosovitskiy et al. (2021), table 4, who choose the rate on held-out images. L and H "
    "are the same but for H's 518 px and averaged weights on ImageNet.",
    {name: ("transfer_vitb.py", name) for name in SETS},
    (
        Row("batch_size", 512, 512),
        Row(
            "steps",
            by(20_000, 10_000, 10_000, 500, 500),
            by(20_000, 10_000, 10_000, 500, 500),
        ),
        Row("epochs", why="the steps over the images"),
        Row("method.pool", "cls", "cls"),
        Row("vit.variant", why="the recipe of any ViT"),
        *MODEL,
        Row("optim.lr", by(0.03, 0.003, 0.01, 0.003, 0.003), "a grid"),
        Row(
            "optim.warmup_epochs",
            by(
                500 * 512 / 1_281_167,
                *[500 * 512 / 50_000] * 2,
                *(100 * 512 / 3_680, 100 * 512 / 1_020),
            ),
        ),
        *RULE,
        Row("data.size", (384, 384), (384, 384)),
        Row("data.crop", by((0.05, 1.0), (), (), (0.05, 1.0), (0.05, 1.0))),
        Row("data.train_resize", by(0, 448, 448, 0, 0)),
        Row("data.ratio", (3 / 4, 4 / 3)),
        Row("data.flip", True),
        Row("data.interpolation", "bilinear"),
        Row("data.mean", why=INHERITED),
        Row("data.std", why=INHERITED),
    ),
)

TASKS = ("cifar100", "dsprites_orientation", "dsprites_location", "clevr_count")
VTAB = Family(
    "VTAB-1k",
    "google-research/scenic, its recipe of the plain ViT for 19 tasks, of which four stand for "
    "the kinds of crop and flip; Zhai et al. (2019). Clevr-count has 1,200 images in its code, "
    "a slip: 1,000 here.",
    {name: ("transfer_vtab.py", name) for name in TASKS},
    (
        Row("batch_size", 512),
        Row("steps", 2500),
        Row("epochs", why="the steps over 1,000 images"),
        Row("method.pool", "mean"),
        Row("vit.variant", why="the recipe of any ViT"),
        *MODEL,
        Row("optim.lr", 0.01),
        Row("optim.warmup_epochs", 200 * 512 / 1000),
        *RULE,
        Row("data.size", (384, 384)),
        Row("data.crop", ()),
        Row(
            "data.train_resize",
            {"cifar100": 448, "dsprites_orientation": 448}
            | dict.fromkeys(TASKS[2:], 0),
        ),
        Row("data.ratio", why="no crop of another shape is drawn"),
        Row(
            "data.flip",
            {"cifar100": True, "clevr_count": True} | dict.fromkeys(TASKS[1:3], False),
        ),
        Row("data.interpolation", "bilinear"),
        Row("data.mean", why=INHERITED),
        Row("data.std", why=INHERITED),
    ),
)

ALL = (TRANSFER, VTAB)
