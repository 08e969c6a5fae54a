"""Linear segmentation and depth as published: DINOv2."""

from tests.published import ABSENT, Family, Row

SETS = ("ade20k", "voc2012")
FILES = {name: ("eval_dense.py", name) for name in SETS}
GPUS = "released: two a GPU, on how many isn't said; as for segmentation"


def rows(name, **values):
    """Rows of an evaluator's values that are as released."""
    return tuple(Row(f"evals.{name}.{key}", value) for key, value in values.items())


SEGMENTATION = Family(
    "Linear segmentation",
    "facebookresearch/dinov2, eval/segmentation/models/decode_heads/linear_head.py, and the "
    "mmsegmentation configs of B/14 on both sets in Jiawei-Yang/Denoising-ViT; "
    "mmsegmentation's loss and `slide_inference`. The batch normalization has scale and "
    "shift, and they decay.",
    FILES,
    (
        *rows(
            "segmentation",
            layers=(-1,),
            norm=True,
            cls=False,
            classes=dict(zip(SETS, (150, 21))),
            zero_is_none=dict(zip(SETS, (True, False))),
            scale=(0.5, 2.0),
            most=0.75,
            flip=True,
            distortion="photometric",
            stride=341,
            rate=1e-3,
            decay=1e-4,
            clip=0.0,
            schedule="poly",
            warmup=1500,
            warmup_start=1e-6,
            steps=40_000,
        ),
        Row("evals.segmentation.batch_size", 16),
        *(Row(f"tasks.{name}.size", {name: (512, 512)}) for name in SETS),
        *(Row(f"tasks.{name}.resize", {name: 512}) for name in SETS),
        *(Row(f"tasks.{name}.interpolation", {name: "bilinear"}) for name in SETS),
    ),
)

DEPTH = Family(
    "Linear depth",
    "facebookresearch/dinov2, eval/depth (head, losses, clipping) and hub/depthers.py; numbers of "
    "training from the released config dinov2_vits14_kitti_linear, images from that of "
    "dinov2_vitl14_nyu_dpt; the crops and errors of the Monocular-Depth-Estimation-Toolbox. "
    "Paper: Oquab et al. (2023), section 7.4.",
    {"nyu": ("eval_dense.py", "nyu")},
    (
        *rows("depth", layers=(-1,), norm=False, cls=True, unit=1000.0),
        Row("evals.depth.bins", 256, 256),
        *rows(
            "depth",
            min_depth=1e-3,
            max_depth=10.0,
            gradient=0.5,
            warm=100,
            crop=(416, 544),
            border=(45, 472, 43, 608),
            degrees=2.5,
            scale=(1.0, 1.0),
            flip=True,
            distortion="gamma",
            judged=(45, 471, 41, 601),
            mirror=True,
            rate=1e-4,
            decay=1e-2,
            clip=35.0,
            schedule="cosine",
            warmup=12_800,
            warmup_start=1e-3,
            steps=38_400,
        ),
        Row("evals.depth.batch_size", ABSENT, why=GPUS),
        Row("tasks.nyu.size", (480, 640)),
    ),
)

ALL = (SEGMENTATION, DEPTH)
