"""Objectives on several crops of an image: DINO and LeJEPA."""

from tests.published import Family, Row
from tests.published.pretraining import HALF, PIXELS

WINDOW = (
    "a window as wide as the photo's short side, of which the devices cut the crops"
)
CUT = "crop by crop, on the devices"


def images(interpolation):
    """Rows of the input."""
    return (
        Row("data.size", (224, 224), (224, 224)),
        Row("data.crop", why="the method cuts the crops"),
        Row("data.ratio", (3 / 4, 4 / 3)),
        Row("data.flip", True, why=CUT),
        Row("data.interpolation", interpolation),
        Row("data.train_resize", why=WINDOW),
        Row("data.train_size", why=WINDOW),
        *PIXELS,
    )


def of(small, base):
    """A value of the code's defaults, and of the run behind ViT-B's weights."""
    return {"S/16": small, "B/16": base}


DINO = Family(
    "DINO, pre-training",
    "facebookresearch/dino: S/16 is main_dino.py's defaults, eight GPUs of 64 images; B/16 "
    "the run behind the released weights, whose file of arguments wasn't at hand: compare it "
    "before a figure is quoted. Caron et al. (2021).",
    {"S/16": ("dino_vits.py", ""), "B/16": ("dino_vitb.py", "")},
    (
        Row("batch_size", of(512, 1024), 1024),
        Row("epochs", of(100.0, 400.0)),
        Row("method.prototypes", 65_536, 65_536),
        Row("method.head_width", 2048, 2048),
        Row("method.bottleneck_width", 256, 256),
        Row("method.norm_last", True),
        Row("method.freeze_epochs", of(1.0, 3.0)),
        Row("method.local_crops", of(8, 10)),
        Row("method.local_size", 96, 96),
        Row("method.global_scale", of((0.4, 1.0), (0.25, 1.0))),
        Row("method.local_scale", of((0.05, 0.4), (0.05, 0.25))),
        Row("method.student_temperature", 0.1, 0.1),
        Row("method.teacher_temperature", of(0.04, 0.07), "0.04 to 0.07 in 30 epochs"),
        Row("method.warmup_temperature", 0.04, 0.04),
        Row("method.warmup_temperature_epochs", of(0, 50), 30),
        Row("method.centre_momentum", 0.9),
        Row("method.ema_start", 0.996, 0.996),
        Row("method.ema_end", 1.0, 1.0),
        Row("method.pool", "cls", "cls"),
        Row("method.compat", "official"),
        Row("vit.variant", of("S/16", "B/16")),
        Row("vit.posemb", "learned"),
        Row("vit.cls", True, True),
        Row("vit.droppath", 0.1),
        Row("vit.norm_eps", 1e-6),
        Row("vit.gelu", "exact"),
        Row("vit.init", "timm"),
        Row("vit.dtype", "float16", why=HALF),
        Row("optim.name", "adamw", "adamw"),
        Row("optim.lr", of(5e-4, 7.5e-4), 5e-4),
        Row("optim.lr_batch", 256, 256),
        Row("optim.schedule", "cosine", "cosine"),
        Row("optim.lr_start", 0.0),
        Row("optim.lr_end", of(1e-6, 2e-6)),
        Row("optim.warmup_epochs", 10.0, 10),
        Row("optim.first_step", 0),
        Row("optim.b1", 0.9),
        Row("optim.b2", 0.999),
        Row("optim.eps", 1e-8),
        Row("optim.wd", 0.04, 0.04),
        Row("optim.wd_end", 0.4, 0.4),
        Row("optim.no_decay", ("bias", "scale")),
        Row("optim.clip_each", of(3.0, 0.3)),
        *images("bicubic"),
    ),
)

LEJEPA = Family(
    "LeJEPA, pre-training",
    "rbalestr-lab/lejepa: README.md, and MINIMAL.md (ViT-S/8 on Imagenette) for what that "
    "leaves open; there is no config for ImageNet. Balestriero and LeCun (2025).",
    {
        size: (f"lejepa_vit{size[0].lower()}.py", "")
        for size in ("S/14", "B/14", "L/14", "H/14")
    },
    (
        Row("batch_size", 256),
        Row("epochs", {"L/14": 100.0}, why="S, B and H as L"),
        Row("method.projector_width", 2048),
        Row("method.projection_width", 128),
        Row("method.weight", 0.02),
        Row("method.slices", 1024),
        Row("method.points", 17),
        Row("method.furthest", 3.0),
        Row("method.global_crops", 2),
        Row("method.local_crops", 6),
        Row("method.local_size", 98),
        Row("method.global_scale", (0.3, 1.0)),
        Row("method.local_scale", (0.05, 0.3)),
        Row("method.pool", "cls"),
        Row("vit.variant", {x: x for x in ("S/14", "B/14", "L/14", "H/14")}),
        Row("vit.posemb", "learned"),
        Row("vit.cls", True),
        Row("vit.droppath", 0.1),
        Row("vit.norm_eps", 1e-6),
        Row("vit.gelu", "exact"),
        Row("vit.init", "timm"),
        Row("vit.dtype", "bfloat16"),
        Row("optim.name", "adamw"),
        Row("optim.lr", 5e-4),
        Row("optim.lr_batch", 0),
        Row("optim.schedule", "cosine"),
        Row("optim.lr_start", 5e-6),
        Row("optim.lr_end", 5e-7),
        Row("optim.warmup_epochs", 1.0),
        Row("optim.first_step", 0),
        Row("optim.b1", 0.9),
        Row("optim.b2", 0.999),
        Row("optim.eps", 1e-8),
        Row("optim.wd", 0.05),
        Row("optim.wd_end", 0.05),
        Row("optim.no_decay", ()),
        *images("bilinear"),
    ),
)

ALL = (DINO, LEJEPA)
