"""Fine-tuning beyond the whole of ImageNet as published: MAE's further sets, I-JEPA's 1 %."""

import dataclasses

from tests.published import Family, Row
from tests.published.finetuning import FINETUNE
from tests.published.pretraining import HALF

SIZES = ("B/16", "L/16", "H/14")
ADJUSTED = "as for ImageNet: the paper does not say what it adjusts them to"
UNTOLD = {
    key: Row(key, paper="adjusted for each set", why=ADJUSTED)
    for key in ("epochs", "optim.lr")
}


def of_mae(row):
    """A row of fine-tuning on ImageNet for the further sets."""
    if row.key in UNTOLD:
        return UNTOLD[row.key]
    released = row.released
    if isinstance(released, dict):
        released = {size: released[f"MAE {size}"] for size in SIZES}
    paper = row.paper.removeprefix("MAE: ") if isinstance(row.paper, str) else row.paper
    why = HALF if row.key == "vit.dtype" else row.why
    return dataclasses.replace(row, released=released, paper=paper, why=why)


SETS = Family(
    "Fine-tuning on iNaturalist and Places after MAE",
    "He et al. (2022), appendix A.5, which follows table 9; what is released are the values of "
    "ImageNet. The five sets differ in their data alone.",
    {size: ("finetune_transfer.py", f"inat18,{size[0].lower()}") for size in SIZES},
    tuple(map(of_mae, FINETUNE.rows)),
)

LOW = ("L/16", "H/14", "H/16 448 px")
OF_MAE = "not given; as in MAE's fine-tuning code"
LOWSHOT = Family(
    "Fine-tuning on 1 % of ImageNet after I-JEPA",
    "Assran et al. (2023), appendix A.2 and table 2; no code is released. With 10 % the same.",
    {
        "L/16": ("lowshot_vitl.py", "1pct"),
        "H/14": ("lowshot_vith.py", "1pct"),
        "H/16 448 px": ("lowshot_vith.py", "1pct_448"),
    },
    (
        Row("batch_size", paper=512),
        Row("epochs", paper=50.0),
        Row("method.pool", paper="normed_mean"),
        Row("method.loss", paper="softmax"),
        Row("method.label_smoothing", paper=0.1),
        Row("method.head_bias", why=OF_MAE),
        Row("method.head_std", why=OF_MAE),
        Row("vit.variant", paper=dict(zip(LOW, ("L/16", "H/14", "H/16")))),
        Row("vit.posemb", why=OF_MAE),
        Row("vit.cls", paper=False),
        Row("vit.norm_eps", why="as in pre-training"),
        Row("vit.gelu", why="as in pre-training"),
        Row("vit.init", why="of the classifier alone: as in MAE's fine-tuning code"),
        Row("vit.dtype", why="as in pre-training"),
        Row("optim.name", paper="adamw"),
        Row("optim.layer_decay", paper=0.75),
        Row("optim.lr", paper=3e-5),
        Row("optim.lr_batch", why="the paper's rate is taken as it is"),
        Row("optim.schedule", paper="cosine"),
        Row("optim.lr_start", why=OF_MAE),
        Row("optim.lr_end", why=OF_MAE),
        Row("optim.warmup_epochs", why=OF_MAE),
        Row("optim.first_step", why=OF_MAE),
        Row("optim.b1", why=OF_MAE),
        Row("optim.b2", why=OF_MAE),
        Row("optim.eps", why=OF_MAE),
        Row("optim.wd", paper=dict(zip(LOW, (0.05, 0.4, 0.4)))),
        Row("optim.wd_end", paper=dict(zip(LOW, (0.05, 0.4, 0.4)))),
        Row("optim.no_decay", why=OF_MAE),
        Row("data.size", paper=dict(zip(LOW, ((224, 224), (224, 224), (448, 448))))),
        Row("data.crop", why=OF_MAE),
        Row("data.ratio", why=OF_MAE),
        Row("data.flip", why=OF_MAE),
        Row("data.randaugment", paper="MAE's", why="timm's name of it"),
        Row("data.interpolation", why=OF_MAE),
        Row("data.mean", why="as in pre-training"),
        Row("data.std", why="as in pre-training"),
    ),
)

ALL = (SETS, LOWSHOT)
