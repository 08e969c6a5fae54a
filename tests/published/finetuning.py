"""Fine-tuning and supervised training as published: MAE, MaskFeat, ViT, VTAB."""

from tests.published import ABSENT, Family, Row
from tests.published.pretraining import HALF, NARROW, PIXELS

MAE_SIZES = ("MAE B/16", "MAE L/16", "MAE H/14")
SIZES = (*MAE_SIZES, "MaskFeat B/16", "MaskFeat L/16")


def by(*values):
    """Values of MAE's B, L, H and MaskFeat's B, L."""
    return dict(zip(SIZES, values))


FINETUNE = Family(
    "Fine-tuning after MAE and MaskFeat",
    "facebookresearch/mae, FINETUNE.md and main_finetune.py, on 32 GPUs of 32 images (H: 64 of "
    "16); facebookresearch/SlowFast, in1k_VIT_B_MaskFeat_FT.yaml and in1k_VIT_L_MaskFeat_FT.yaml, "
    "a node of 8 GPUs; He et al. (2022), table 9; Wei et al. (2022).",
    {
        "MAE B/16": ("finetune_vitb.py", "mae"),
        "MAE L/16": ("finetune_vitl.py", "mae"),
        "MAE H/14": ("finetune_vith.py", ""),
        "MaskFeat B/16": ("finetune_vitb.py", "maskfeat"),
        "MaskFeat L/16": ("finetune_vitl.py", "maskfeat"),
    },
    (
        Row("batch_size", by(1024, 1024, 1024, 512, 256), "MAE: 1024"),
        Row("epochs", by(100.0, 50.0, 50.0, 100.0, 50.0), "MAE: 100, 50, 50"),
        Row("method.pool", "mean", "MAE: class token"),
        Row("method.loss", "softmax"),
        Row("method.label_smoothing", 0.1, 0.1),
        Row(
            "method.head_bias",
            by(0.0, 0.0, 0.0, 2e-5, 2e-5),
        ),
        Row("method.head_std", 2e-5),
        Row("method.mixup", 0.8, 0.8),
        Row("method.cutmix", 1.0, 1.0),
        Row("method.mix_prob", 1.0),
        Row("method.mix_switch", 0.5),
        Row("method.mix_groups", by(32, 32, 64, 8, 8)),
        Row("method.erase", 0.25),
        Row("vit.variant", by("B/16", "L/16", "H/14", "B/16", "L/16")),
        Row("vit.posemb", "learned"),
        Row("vit.cls", True),
        Row("vit.droppath", by(0.1, 0.2, 0.3, 0.1, 0.1), "MAE: 0.1, 0.1, 0.2"),
        Row("vit.norm_eps", 1e-6),
        Row("vit.gelu", "exact"),
        Row("vit.init", by(*["timm"] * 5)),
        Row(
            "vit.dtype",
            by("float16", "float16", "float16", "float32", "float32"),
            why=f"MAE: {HALF}; MaskFeat: {NARROW}",
        ),
        Row("optim.name", "adamw", "adamw"),
        Row("optim.layer_decay", by(0.65, 0.75, 0.75, 0.65, 0.75), "MAE: 0.75"),
        Row("optim.lr", by(5e-4, 1e-3, 1e-3, 1e-3, 1e-3), "MAE: 1e-3"),
        Row("optim.lr_batch", 256),
        Row("optim.schedule", "cosine", "cosine"),
        Row("optim.lr_start", by(0.0, 0.0, 0.0, 1e-8, 1e-8)),
        Row("optim.lr_end", 1e-6),
        Row("optim.warmup_epochs", by(5.0, 5.0, 5.0, 20.0, 5.0)),
        Row("optim.first_step", 0),
        Row("optim.b1", 0.9, 0.9),
        Row("optim.b2", 0.999, 0.999),
        Row("optim.eps", 1e-8),
        Row("optim.wd", 0.05, 0.05),
        Row("optim.wd_end", 0.05),
        Row(
            "optim.no_decay",
            dict.fromkeys(MAE_SIZES, ("bias", "scale", "cls", "posemb"))
            | dict.fromkeys(SIZES[3:], ("bias", "scale")),
        ),
        Row("data.size", (224, 224)),
        Row("data.crop", (0.08, 1.0)),
        Row("data.ratio", (3 / 4, 4 / 3)),
        Row("data.flip", True),
        Row("data.randaugment", "rand-m9-mstd0.5-inc1", "(9, 0.5)"),
        Row("data.interpolation", "bicubic"),
        *PIXELS,
    ),
)

FLOAT = "the paper doesn't say; TPUs multiply bfloat16"
ORIGINAL = Family(
    "Supervised ViT from scratch",
    "Dosovitskiy et al. (2021), table 3 and appendix B.1; google-research/vision_transformer, "
    "which has no code for this training.",
    {
        "B/16": ("supervised_vitb.py", "original"),
        "L/16": ("supervised_vitl.py", "original"),
        "H/14": ("supervised_vith.py", "original"),
    },
    (
        Row("batch_size", paper=4096),
        Row("epochs", paper=300.0),
        Row("method.pool", "cls", "cls"),
        Row("method.loss", paper="softmax"),
        Row("method.representation", {"B/16": 768, "L/16": 1024, "H/14": 1280}),
        Row("method.head_bias", 0.0),
        Row("method.head_std", 0.0),
        Row("vit.variant", {"B/16": "B/16", "L/16": "L/16", "H/14": "H/14"}),
        Row("vit.posemb", "learned", "learned"),
        Row("vit.cls", True, True),
        Row("vit.dropout", paper=0.1),
        Row("vit.norm_eps", 1e-6),
        Row("vit.gelu", "tanh"),
        Row("vit.init", "big_vision"),
        Row("vit.dtype", ABSENT, why=FLOAT),
        Row("optim.name", paper="adamw"),
        Row("optim.lr", paper=3e-3),
        Row("optim.lr_batch", paper=0),
        Row("optim.schedule", paper="cosine"),
        Row("optim.lr_start", paper=0.0),
        Row("optim.lr_end", paper=0.0),
        Row("optim.warmup_epochs", paper=10_000 / 312),
        Row("optim.first_step", paper=0),
        Row("optim.b1", paper=0.9),
        Row("optim.b2", paper=0.999),
        Row("optim.eps", 1e-8),
        Row("optim.wd", paper=0.3),
        Row("optim.wd_end", paper=0.3),
        Row("optim.no_decay", why="biases and norms aren't decayed, as in big_vision"),
        Row("optim.clip", paper=1.0),
        Row("data.size", paper=(224, 224)),
        Row("data.crop", (0.05, 1.0)),
        Row("data.ratio", (3 / 4, 4 / 3)),
        Row("data.flip", True),
        Row("data.interpolation", "bilinear"),
        Row("data.mean", (0.5, 0.5, 0.5)),
        Row("data.std", (0.5, 0.5, 0.5)),
    ),
)

MODERN = Family(
    "Supervised ViT from scratch, MAE's baseline",
    "He et al. (2022), table 11, after DeiT; no code is released.",
    {
        "B/16": ("supervised_vitb.py", "modern"),
        "L/16": ("supervised_vitl.py", "modern"),
        "H/14": ("supervised_vith.py", "modern"),
    },
    (
        Row("batch_size", paper=4096),
        Row("epochs", paper={"B/16": 300.0, "L/16": 200.0, "H/14": 200.0}),
        Row("method.pool", why="as in MAE's fine-tuning code"),
        Row("method.loss", paper="softmax"),
        Row("method.label_smoothing", paper=0.1),
        Row("method.head_bias", why="as MAE's initialization has it"),
        Row(
            "method.head_std", why="xavier uniform's deviation, as MAE's initialization"
        ),
        Row("method.mixup", paper=0.8),
        Row("method.cutmix", paper=1.0),
        Row("method.mix_prob", why="as in MAE's fine-tuning code"),
        Row("method.mix_switch", why="as in MAE's fine-tuning code"),
        Row("method.mix_groups", why="of 32 images, as in MAE's fine-tuning code"),
        Row("method.ema", paper=0.9999),
        Row("vit.variant", paper={"B/16": "B/16", "L/16": "L/16", "H/14": "H/14"}),
        Row("vit.posemb", why="as ViT's"),
        Row("vit.cls", why="as ViT's; pooling is over the patches"),
        Row("vit.droppath", paper={"B/16": 0.1, "L/16": 0.2, "H/14": 0.2}),
        Row("vit.norm_eps", why="as in MAE's code"),
        Row("vit.gelu", why="as in MAE's code"),
        Row("vit.init", paper="mae"),
        Row("vit.dtype", why=FLOAT),
        Row("optim.name", paper="adamw"),
        Row("optim.lr", paper=1e-4),
        Row("optim.lr_batch", paper=256),
        Row("optim.schedule", paper="cosine"),
        Row("optim.lr_start", why="as in MAE's code"),
        Row("optim.lr_end", why="as in MAE's code"),
        Row("optim.warmup_epochs", paper=20.0),
        Row("optim.first_step", why="as in MAE's code"),
        Row("optim.b1", paper=0.9),
        Row("optim.b2", paper=0.95),
        Row("optim.eps", why="as in MAE's code"),
        Row("optim.wd", paper=0.3),
        Row("optim.wd_end", paper=0.3),
        Row("optim.no_decay", why="as in MAE's fine-tuning code"),
        Row("data.size", paper=(224, 224)),
        Row("data.crop", why="as in MAE's fine-tuning code"),
        Row("data.ratio", why="as in MAE's fine-tuning code"),
        Row("data.flip", why="as in MAE's fine-tuning code"),
        Row("data.randaugment", paper="(9, 0.5)", why="timm's name of it"),
        Row("data.interpolation", why="as in MAE's fine-tuning code"),
        Row("data.mean", why="as in MAE's code"),
        Row("data.std", why="as in MAE's code"),
    ),
)

ALL = (FINETUNE, ORIGINAL, MODERN)
