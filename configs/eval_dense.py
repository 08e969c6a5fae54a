"""Segmentation and depth by a linear head on frozen patches: ADE20K, VOC 2012, NYU.

python -m vit_ssl_jax.evaluate --config=configs/eval_dense.py:ade20k --checkpoint=DIR --config.tasks.ade20k.dir=ADEChallengeData2016

DINOv2's linear protocols (Oquab et al., 2023, section 7.4). Result: not yet run.

ade20k: images/{training,validation} and annotations/ below `dir`; TFDS: set=scene_parse150,
    train=train, test=test.
voc2012: VOCdevkit; 1,464 images to train. Another list of ImageSets/Segmentation whose maps
    are in SegmentationClass, too: --config.tasks.voc2012.train=NAME.
nyu: nyu_train.txt and nyu_test.txt, as BTS hands NYU Depth v2 out, 16-bit PNGs of
    millimetres; TFDS: set=nyu_depth_v2, test=validation.
Four blocks side by side, DINOv2's "lin. 4" of twelve: --config.evals.depth.layers="(3,6,9,12)".
An encoder with patches of 14 px: --config.tasks.ade20k.size="(518,518)"
--config.tasks.ade20k.resize=518; --config.tasks.nyu.size="(490,644)"
--config.evals.depth.crop="(420,546)".
Where each value is from: docs/recipes.md. The gradient loss, as released, takes differences
along the wrong axes and comes to nothing; here it is the one that is meant
(--config.evals.depth.gradient=0.0: without).
"""

from ml_collections import ConfigDict

RECIPES = ("ade20k", "voc2012", "nyu")
TASKS = {  # set, split to train, split to test, size, resize, squash
    "ade20k": ("folder", "training", "validation", (512, 512), 512, False),
    "voc2012": ("voc", "train", "val", (512, 512), 512, False),
    "nyu": ("nyu", "train", "test", (480, 640), 0, True),
}
HEAD = dict(
    batch_size=16,
    accum=1,  # pieces in which a batch goes through the encoder
    checkpoint_every=1000,
    seed=0,
)
CLASSES = {"ade20k": (150, True), "voc2012": (21, False)}  # number, zero_is_none


def segmentation(name):
    classes, zero_is_none = CLASSES[name]
    return dict(
        layers=(-1,),  # the last block; DINOv2's +ms: (-4, -3, -2, -1)
        norm=True,  # the ViT's final norm
        cls=False,  # the class token beside each patch
        classes=classes,
        zero_is_none=zero_is_none,
        scale=(0.5, 2.0),
        most=0.75,  # part of a crop that one class may have
        flip=True,
        distortion="photometric",
        stride=341,  # of the windows that are judged
        rate=1e-3,
        decay=1e-4,
        clip=0.0,
        schedule="poly",
        warmup=1500,
        warmup_start=1e-6,
        steps=40_000,
        **HEAD,
    )


DEPTH = dict(
    layers=(-1,),
    norm=False,
    cls=True,
    unit=1000.0,  # of whole numbers, in a metre
    bins=256,
    min_depth=1e-3,
    max_depth=10.0,
    gradient=0.5,  # weight; 0.0: what the released code comes to
    warm=100,
    crop=(416, 544),
    border=(45, 472, 43, 608),  # without the frame of the aligned depths
    degrees=2.5,
    scale=(1.0, 1.0),
    flip=True,
    distortion="gamma",
    judged=(45, 471, 41, 601),  # Eigen's crop
    mirror=True,
    rate=1e-4,
    decay=1e-2,
    clip=35.0,
    schedule="cosine",
    warmup=12_800,
    warmup_start=1e-3,
    steps=38_400,
    **HEAD,
)


def get_config(name="ade20k"):
    if name not in RECIPES:
        raise ValueError(f"eval_dense.py:{name}: choose one of {', '.join(RECIPES)}")
    data, train, test, size, resize, squash = TASKS[name]
    config = ConfigDict()
    config.recipe = f"eval_dense:{name}"
    config.variant = ""  # the ViT that is expected; "": any
    config.eval_batch_size = 16
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.tasks = {
        name: dict(
            set=data,
            dir="",
            label="",  # of a TFDS set, the feature of the map; "": the only one
            train=train,
            select="",
            test=test,
            size=size,
            resize=resize,  # short side of whole images; 0: the size, whatever the aspect
            squash=squash,
            interpolation="bilinear",
            metric="top1",
            group="",
        )
    }
    if name == "nyu":
        config.evals = dict(depth=DEPTH)
    else:
        config.evals = dict(segmentation=segmentation(name))
    return config
