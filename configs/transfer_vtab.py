"""VTAB-1k, 19 tasks of 1,000 images each, ViT-B/16 at 384 px (Zhai et al., 2019).

python -m vit_ssl_jax.main --config=configs/transfer_vtab.py:TASK --workdir=DIR \
    --config.init_from=PRE

TASK is one of TASKS; PRE is the workdir of a pre-training run. Another ViT by flag:
--config.vit.variant=L/16. The score is the mean of the 19 top-1 accuracies, of three
seeds (--config.seed) each.

Result: not yet run. Published scores (ViT, 2021, table 2): 72.72 L/16 from
ImageNet-21k, 76.28 L/16 and 77.63 H/14 from JFT. Values are those of scenic's recipe of
the ViT, which is used for all tasks; it trains on 800 images of the training and 200 of
the validation split (or the end of the training split, where there is none), and
reports the test split, whole images squeezed to 384 x 384. Clevr-count has 1,200 images
in the code, a slip; here it has 1,000, too.
"""

from ml_collections import ConfigDict, config_dict

TRAIN = "train[:800]+validation[:200]"  # where there is a validation split
# TFDS name, training images, test images, label (its feature or rule), classes, crop
# (of an image squeezed to 448 x 448; else the whole at 384 x 384), flip
TASKS = {
    "caltech101": (
        *("caltech101", "train[:800]+train[2754:2954]", "test"),
        *("label", 102, True, True),
    ),
    "cifar100": (
        *("cifar100", "train[:800]+train[45000:45200]", "test"),
        *("label", 100, True, True),
    ),
    "dtd": ("dtd", TRAIN, "test", "label", 47, True, True),
    "flowers102": ("oxford_flowers102", TRAIN, "test", "label", 102, True, True),
    "pets": (
        *("oxford_iiit_pet", "train[:800]+train[2944:3144]", "test"),
        *("label", 37, True, True),
    ),
    "svhn": (
        *("svhn_cropped", "train[:800]+train[65931:66131]", "test"),
        *("label", 10, True, True),
    ),
    "sun397": ("sun397", TRAIN, "test", "label", 397, True, True),
    "camelyon": ("patch_camelyon", TRAIN, "test", "label", 2, True, True),
    "eurosat": (
        *("eurosat/rgb", "train[:800]+train[16200:16400]", "train[21600:]"),
        *("label", 10, True, True),
    ),
    "resisc45": (
        *("resisc45", "train[:800]+train[18900:19100]", "train[25200:]"),
        *("label", 45, True, True),
    ),
    "retinopathy": (
        *("diabetic_retinopathy_detection/btgraham-300", TRAIN, "test"),
        *("label", 5, True, True),
    ),
    "clevr_count": (
        *("clevr", "train[:800]+train[63000:63200]", "validation"),
        *("clevr_count", 8, False, True),
    ),
    "clevr_distance": (
        *("clevr", "train[:800]+train[63000:63200]", "validation"),
        *("clevr_distance", 6, False, True),
    ),
    "dmlab": ("dmlab", TRAIN, "test", "label", 6, False, True),
    "kitti_distance": ("kitti", TRAIN, "test", "kitti_distance", 4, False, True),
    "dsprites_location": (
        *("dsprites", "train[:800]+train[589824:590024]", "train[663552:]"),
        *("dsprites_location", 16, False, False),
    ),
    "dsprites_orientation": (
        *("dsprites", "train[:800]+train[589824:590024]", "train[663552:]"),
        *("dsprites_orientation", 16, True, False),
    ),
    "smallnorb_azimuth": (
        *("smallnorb", "train[:800]+test[:200]", "test[50%:]"),
        *("label_azimuth", 18, True, False),
    ),
    "smallnorb_elevation": (
        *("smallnorb", "train[:800]+test[:200]", "test[50%:]"),
        *("label_elevation", 9, True, True),
    ),
}
RECIPES = tuple(TASKS)


def get_config(task=""):
    if task not in TASKS:
        raise ValueError(f"transfer_vtab.py:{task}: choose one of {', '.join(TASKS)}")
    name, train, test, label, classes, crop, flip = TASKS[task]
    config = ConfigDict()
    config.recipe = f"transfer_vtab:{task}"
    config.seed = 0
    config.batch_size = 512
    config.accum = 1
    config.epochs = 1280.0  # 2,500 steps of 512 of 1,000 images
    config.steps = 2500
    config.log_every = 50
    config.checkpoint_every = 500
    config.keep = 3
    config.keep_every = 0  # steps: these checkpoints stay for good; 0: none
    config.keep_best = ""  # "max METRIC" or "min METRIC": the best one, too
    config.init_from = "PRETRAINED"  # give the workdir of the pre-training run
    config.otherwise = dict(  # where PRE doesn't tell: the original code's
        vit=dict(cls=True, norm_eps=1e-6, gelu="tanh"),  # flax's default GELU
        data=dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    )
    config.summary = False
    config.track = ""  # "wandb:PROJECT" or "mlflow:EXPERIMENT"
    config.method = dict(
        name="supervised",
        pool="mean",
        loss="softmax",
        label_smoothing=0.0,
        representation=0,  # the tanh layer of pre-training is dropped
        head_bias=0.0,
        head_std=0.0,
        ema=0.0,
        mixup=0.0,
        cutmix=0.0,
        mix_prob=1.0,
        mix_switch=0.5,
        erase=0.0,
    )
    config.vit = dict(
        variant="B/16",
        posemb="learned",  # resampled to the larger grid
        cls=config_dict.placeholder(bool),  # None, as below: that of PRE
        droppath=0.0,
        dropout=0.0,
        dtype="bfloat16",
        norm_eps=config_dict.placeholder(float),
        gelu=config_dict.placeholder(str),
        init="big_vision",
        remat="dots",
        unroll=1,
        kernels="auto",
    )
    config.optim = dict(
        name="sgd",  # the code keeps the momentum in bfloat16
        schedule="cosine",
        layer_decay=1.0,
        train_blocks=-1,  # the last so many of the encoder; -1: all of it
        lr=0.01,
        lr_batch=0,
        lr_start=0.0,
        lr_end=0.0,
        warmup_epochs=102.4,  # 200 steps
        first_step=0,
        ipe_scale=1.0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        wd=0.0,
        wd_end=0.0,
        no_decay=(),
        clip=1.0,
        clip_each=0.0,  # norm of each parameter's gradient; 0: any
    )
    config.data = dict(
        name=name,
        dir="",  # "": ~/tensorflow_datasets
        split=train,
        mix=(),  # further sets: (name, dir, split, weight beside 1)
        labels=True,
        label=label,  # its feature or rule; "": the first class label
        labels_file="",  # of a folder: CSV or JSON, file and label
        list="",  # a file of the names of the images to train on; "": all
        extra_classes="error",  # of a folder, not in train: "skip" or "keep"
        alpha="white",  # what lies behind transparent images: or "black"
        cache_gib=1.0,  # of decoded images of a folder, where all fit; 0: none
        num_examples=1000,
        num_classes=classes,
        size=(384, 384),
        pad=0,
        crop=(),
        ratio=(3 / 4, 4 / 3),
        flip=flip,
        randaugment="",
        interpolation="bilinear",
        resize=384,
        squash=True,
        train_resize=448 if crop else 0,
        train_size=(),  # of training's images, where crops are cut of them; (): size
        mean=config_dict.placeholder(tuple),
        std=config_dict.placeholder(tuple),
        threads=0,  # 0: by the number of cores
        workers=-1,  # processes; -1 by the number of cores, 0 threads alone
        stream=2,  # how augmentations are drawn, see data/draws.py
        pixels="near",  # resizing; "pillow": to the bit; "fast"
        device_cache=False,  # keep a small set on the devices
        max_broken=0.01,  # part of the images that may be broken
        max_pixels=178_956_970,  # of an image; more is refused, a JPEG read smaller
        retry_seconds=300,  # of waiting for a mount whose images are gone
        eval_batch_size=512,
    )
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.online = dict(share=0.0, lr=0.01, queue=4096, k=20, temperature=0.07)
    config.health = dict(every=0, images=512, policy="warn")
    config.pictures = dict(every_epochs=0.0, count=8, split="")  # 0: at the end alone
    config.nonfinite = dict(policy="stop", most=10)  # or "skip", up to most in a row
    config.spike = dict(policy="off", deviations=6.0, most=3)  # of gradient norms
    config.evals = dict(
        classify=dict(
            every_epochs=0.0,  # 0: at the end
            set="",
            dir="",
            split=test,
            label="",
            label_map=(),
            only_present=False,
            metric="top1",
        ),
    )
    return config
