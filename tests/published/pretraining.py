"""Pre-training as published: MAE, I-JEPA, MaskFeat, RelViT."""

from tests.published import Family, Row

PIXELS = (
    Row("data.mean", (0.485, 0.456, 0.406)),
    Row("data.std", (0.229, 0.224, 0.225)),
)
HALF = "bfloat16 has float32's range: no loss scaling, no skipped steps"
NARROW = "what TPUs multiply; norms, softmax, losses and moments are float32"

MAE = Family(
    "MAE, pre-training",
    "facebookresearch/mae, PRETRAIN.md and main_pretrain.py; He et al. (2022), table 8.",
    {
        "B/16": ("mae_vitb.py", ""),
        "L/16": ("mae_vitl.py", ""),
        "H/14": ("mae_vith.py", ""),
    },
    (
        Row("batch_size", 4096, 4096),
        Row("epochs", 800.0, "800; 1600 for table 3"),
        Row("method.mask_ratio", 0.75, 0.75),
        Row("method.norm_pixels", True, "False in most ablations, True in table 3"),
        Row("method.decoder_width", 512, 512),
        Row("method.decoder_depth", 8, 8),
        Row("method.decoder_heads", 16),
        Row("method.decoder_posemb", "sincos"),
        Row("vit.variant", {"B/16": "B/16", "L/16": "L/16", "H/14": "H/14"}),
        Row("vit.posemb", "sincos", "sincos"),
        Row("vit.cls", True, True),
        Row("vit.norm_eps", 1e-6),
        Row("vit.gelu", "exact"),
        Row("vit.init", "mae", "xavier uniform"),
        Row("vit.dtype", "float16", why=HALF),
        Row("optim.name", "adamw", "adamw"),
        Row("optim.lr", 1.5e-4, 1.5e-4),
        Row("optim.lr_batch", 256, 256),
        Row("optim.schedule", "cosine", "cosine"),
        Row("optim.lr_start", 0.0),
        Row("optim.lr_end", 0.0),
        Row("optim.warmup_epochs", 40.0, 40),
        Row("optim.first_step", 0),
        Row("optim.b1", 0.9, 0.9),
        Row("optim.b2", 0.95, 0.95),
        Row("optim.eps", 1e-8),
        Row("optim.wd", 0.05, 0.05),
        Row("optim.wd_end", 0.05),
        Row("optim.no_decay", ("bias", "scale")),
        Row("data.size", (224, 224), (224, 224)),
        Row("data.crop", (0.2, 1.0)),
        Row("data.ratio", (3 / 4, 4 / 3)),
        Row("data.flip", True),
        Row("data.interpolation", "bicubic"),
        *PIXELS,
    ),
)

SIZES = ("B/16", "L/16", "H/14", "H/16 448", "H/14 22k", "g/16 22k")
RELEASED = SIZES[2:]  # B and L have no yaml file


def released(*values):
    """Values of the four yaml files, by size."""
    return dict(zip(RELEASED, values if len(values) > 1 else values * 4))


OTHER_PATCH = {"B/16": "B/16", "L/16": "L/16", "H/14": "H/14", "H/16 448": "H/16"}
IJEPA = Family(
    "I-JEPA, pre-training",
    "facebookresearch/ijepa, configs/in1k_vith14_ep300.yaml, in1k_vith16-448_ep300.yaml, "
    "in22k_vith14_ep66.yaml, in22k_vitg16_ep44.yaml; Assran et al. (2023), appendix A. "
    "B and L have no file: theirs is the paper's, else that of H/14. The paper has 15 epochs of "
    "warm-up from 1e-4 for all.",
    {
        "B/16": ("ijepa_vitb.py", ""),
        "L/16": ("ijepa_vitl.py", ""),
        "H/14": ("ijepa_vith.py", ""),
        "H/16 448": ("ijepa_vith16_448.py", ""),
        "H/14 22k": ("ijepa_vith_in22k.py", ""),
        "g/16 22k": ("ijepa_vitg16.py", ""),
    },
    (
        Row("batch_size", released(2048), 2048),
        Row(
            "epochs", released(300.0, 300.0, 66.0, 44.0), {"B/16": 600.0, "L/16": 600.0}
        ),
        Row("method.predictor_width", released(384), 384),
        Row(
            "method.predictor_depth", released(12, 12, 12, 16), {"B/16": 6, "L/16": 12}
        ),
        Row(
            "method.predictor_heads",
            {"B/16": 12} | dict.fromkeys(SIZES[1:], 16),  # the encoder's, in the code
        ),
        Row("method.num_contexts", released(1), 1),
        Row("method.num_targets", released(4), 4),
        Row("method.context_scale", released((0.85, 1.0)), (0.85, 1.0)),
        Row("method.context_aspect", (1.0, 1.0), (1.0, 1.0)),
        Row("method.target_scale", released((0.15, 0.2)), (0.15, 0.2)),
        Row("method.target_aspect", released((0.75, 1.5)), (0.75, 1.5)),
        Row("method.min_keep", released(10), {"B/16": 10, "L/16": 10}),
        Row("method.compat", "official"),
        Row(
            "method.trim_batch",
            released(128, 16, 32, 16),
            why="B and L: one GPU's batch as in H/14's file",
        ),
        Row(
            "method.max_context",
            0,
            why="a static bound above what the law leaves: of 6,400 to 25,600 drawn groups "
            "none had more",
        ),
        Row("method.ema_start", released(0.996), 0.996),
        Row("method.ema_end", released(1.0), 1.0),
        Row("method.ipe_scale", 1.0),
        Row("vit.variant", OTHER_PATCH | {"H/14 22k": "H/14", "g/16 22k": "g/16"}),
        Row("vit.posemb", "sincos"),
        Row("vit.cls", False, False),
        Row("vit.norm_eps", 1e-6),
        Row("vit.gelu", "exact"),
        Row("vit.init", "ijepa"),
        Row(
            "vit.dtype", released("bfloat16"), {"B/16": "bfloat16", "L/16": "bfloat16"}
        ),
        Row("optim.name", "adamw", "adamw"),
        Row("optim.lr", released(1e-3), 1e-3),
        Row("optim.lr_batch", 0),
        Row("optim.schedule", "cosine", "cosine"),
        Row("optim.lr_start", released(2e-4), {"B/16": 1e-4, "L/16": 1e-4}),
        Row("optim.lr_end", released(1e-6), 1e-6),
        Row(
            "optim.warmup_epochs",
            released(40.0, 40.0, 3.0, 3.0),
            {"B/16": 15.0, "L/16": 15.0},
        ),
        Row("optim.first_step", 1),
        Row("optim.b1", 0.9),
        Row("optim.b2", 0.999),
        Row("optim.eps", 1e-8),
        Row("optim.wd", released(0.04), 0.04),
        Row("optim.wd_end", released(0.4), 0.4),
        Row("optim.no_decay", ("bias", "scale")),
        Row(
            "data.size",
            {"H/16 448": (448, 448)}
            | {size: (224, 224) for size in SIZES if size != "H/16 448"},
        ),
        Row(
            "data.crop", released((0.3, 1.0)), {"B/16": (0.3, 1.0), "L/16": (0.3, 1.0)}
        ),
        Row("data.ratio", (3 / 4, 4 / 3)),
        Row("data.flip", released(False), {"B/16": False, "L/16": False}),
        Row("data.interpolation", "bilinear"),
        *PIXELS,
    ),
)

MASKFEAT = Family(
    "MaskFeat, pre-training",
    "facebookresearch/SlowFast, in1k_VIT_B_MaskFeat_PT.yaml and in1k_VIT_L_MaskFeat_PT.yaml, "
    "with rates at eight nodes of 256 images; open-mmlab/mmpretrain, "
    "maskfeat_vit-base-p16_8xb256-amp-coslr-300e_in1k.py; Wei et al. (2022).",
    {
        "B/16": ("maskfeat_vitb.py", ""),
        "L/16": ("maskfeat_vitl.py", ""),
        "mmpretrain B/16": ("maskfeat_vitb.py", "mmpretrain"),
    },
    (
        Row(
            "batch_size",
            {"B/16": 256, "L/16": 256, "mmpretrain B/16": 2048},
            2048,
            "eight nodes of theirs; the rate follows by their own rule",
        ),
        Row("epochs", 300.0, "300; 1600 for the released weights"),
        Row("method.mask_ratio", 0.4, 0.4),
        Row("method.bins", 9, 9),
        Row("method.cell", 8, 8),
        Row("method.window", {"B/16": 0, "L/16": 0, "mmpretrain B/16": 16}),
        Row(
            "method.compat",
            {"B/16": "slowfast", "L/16": "slowfast", "mmpretrain B/16": "mmpretrain"},
        ),
        Row("vit.variant", {"B/16": "B/16", "L/16": "L/16", "mmpretrain B/16": "B/16"}),
        Row("vit.posemb", "learned"),
        Row("vit.cls", True),
        Row("vit.norm_eps", 1e-6),
        Row("vit.gelu", "exact"),
        Row(
            "vit.init",
            {"B/16": "slowfast", "L/16": "slowfast", "mmpretrain B/16": "mmpretrain"},
        ),
        Row(
            "vit.dtype",
            {"B/16": "float32", "L/16": "float32", "mmpretrain B/16": "float16"},
            why=f"{NARROW}; mmpretrain: {HALF}",
        ),
        Row("optim.name", "adamw", "adamw"),
        Row("optim.lr", 2e-4, 2e-4),
        Row("optim.lr_batch", 256),
        Row("optim.schedule", "cosine", "cosine"),
        Row("optim.lr_start", {"B/16": 8e-6, "L/16": 8e-6, "mmpretrain B/16": 1.6e-9}),
        Row("optim.lr_end", {"B/16": 8e-6, "L/16": 8e-6, "mmpretrain B/16": 1e-6}),
        Row("optim.warmup_epochs", 30.0, 30),
        Row("optim.first_step", 0),
        Row("optim.b1", 0.9),
        Row("optim.b2", 0.999),
        Row("optim.eps", 1e-8),
        Row("optim.wd", 0.05, 0.05),
        Row("optim.wd_end", 0.05),
        Row(
            "optim.no_decay",
            dict.fromkeys(("B/16", "L/16"), ("bias", "scale"))
            | {"mmpretrain B/16": ("bias", "scale", "mask_token")},
        ),
        Row("optim.clip", 0.02, 0.02),
        Row("data.size", (224, 224)),
        Row("data.crop", (0.5, 1.0)),
        Row("data.ratio", (3 / 4, 4 / 3)),
        Row("data.flip", True),
        Row("data.interpolation", "bicubic"),
        *PIXELS,
    ),
)

ALL = (MAE, IJEPA, MASKFEAT)
