"""ViT-H/14 fine-tuned at 518 px, the transfer recipe of ViT (Dosovitskiy et al., 2021).

python -m vit_ssl_jax.main --config=configs/transfer_vith.py:cifar100 --workdir=DIR \
    --config.init_from=PRE

The data set after the colon is one of SETS; PRE is the workdir of a pre-training run.

Result: not yet run. Published top-1 (paper, table 5; from ImageNet / ImageNet-21k /
JFT): ImageNet - / 85.13 / 88.04, ReaL - / 88.70 / 90.33, CIFAR-10 - / 99.27 / 99.50,
CIFAR-100 - / 93.82 / 94.55, Pets - / 94.82 / 97.56, Flowers - / 99.51 / 99.68.
Headline, ImageNet with averaged weights: 88.55 (JFT). SGD without weight decay from a
classifier of zeros. Steps, warm-up and rates are those of big_vision's
configs/transfer.py, the best of the rates for a ViT-B/32; the authors choose among
{0.001, 0.003, 0.01, 0.03} (ImageNet: {0.003, 0.01, 0.03, 0.06}) on the end of the
training split, 1 % of ImageNet, 2 % of CIFAR, 10 % of Pets and Flowers, and train on
all of it with the best. Values of config.vit and the pixels' mean and std are those of
configs/supervised_*; a line at the start says where PRE's are others.
"""

from ml_collections import ConfigDict, config_dict

SETS = {  # steps, warm-up steps, rate, images, classes
    "imagenet": (20_000, 500, 0.03, 1_281_167, 1000),
    "cifar10": (10_000, 500, 0.003, 50_000, 10),
    "cifar100": (10_000, 500, 0.01, 50_000, 100),
    "pets": (500, 100, 0.003, 3_680, 37),
    "flowers": (500, 100, 0.003, 1_020, 102),
}
NAMES = {
    "imagenet": "imagenet2012",
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "pets": "oxford_iiit_pet",
    "flowers": "oxford_flowers102",
}
RECIPES = tuple(SETS)


def get_config(recipe="imagenet"):
    if recipe not in RECIPES:
        raise ValueError(
            f"transfer_vith.py:{recipe}: choose one of {', '.join(RECIPES)}"
        )
    steps, warmup, rate, images, classes = SETS[recipe]
    cifar = recipe.startswith("cifar")
    config = ConfigDict()
    config.recipe = f"transfer_vith:{recipe}"
    config.seed = 0
    config.batch_size = 512
    config.accum = 1
    config.epochs = steps * 512 / images
    config.steps = steps
    config.log_every = 50
    config.checkpoint_every = 2500
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
        pool="cls",
        loss="softmax",
        label_smoothing=0.0,
        representation=0,  # the tanh layer of pre-training is dropped
        head_bias=0.0,
        head_std=0.0,
        ema=0.9999 if recipe == "imagenet" else 0.0,  # averaged for the headline
        mixup=0.0,
        cutmix=0.0,
        mix_prob=1.0,
        mix_switch=0.5,
        erase=0.0,
    )
    config.vit = dict(
        variant="H/14",
        posemb="learned",  # resampled to the larger grid, bicubic; theirs: linear
        cls=config_dict.placeholder(bool),  # None, as below: that of PRE
        droppath=0.0,
        dropout=0.0,  # 0.1 is a little worse for B/16, better for L/16 (vit_jax)
        dtype="bfloat16",
        norm_eps=config_dict.placeholder(float),
        gelu=config_dict.placeholder(str),
        init="big_vision",
        remat="full",
        unroll=1,
        kernels="auto",
    )
    config.optim = dict(
        name="sgd",  # the code keeps the momentum in bfloat16
        schedule="cosine",
        layer_decay=1.0,
        train_blocks=-1,  # the last so many of the encoder; -1: all of it
        lr=rate,  # vit_jax: 0.03, B/16 on CIFAR-10 0.01
        lr_batch=0,
        lr_start=0.0,
        lr_end=0.0,
        warmup_epochs=warmup * 512 / images,
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
        name=NAMES[recipe],
        dir="",  # "": ~/tensorflow_datasets
        split="train",
        mix=(),  # further sets: (name, dir, split, weight beside 1)
        labels=True,
        label="label",  # its feature or rule; "": the first class label
        labels_file="",  # of a folder: CSV or JSON, file and label
        list="",  # a file of the names of the images to train on; "": all
        extra_classes="error",  # of a folder, not in train: "skip" or "keep"
        alpha="white",  # what lies behind transparent images: or "black"
        cache_gib=1.0,  # of decoded images of a folder, where all fit; 0: none
        num_examples=images,
        num_classes=classes,
        size=(518, 518),
        pad=0,
        # A random box, or a window of an image whose short side is train_resize.
        crop=() if cifar else (0.05, 1.0),
        ratio=(3 / 4, 4 / 3),
        flip=True,
        randaugment="",
        interpolation="bilinear",
        resize=604,  # vit_jax squeezes the whole image to 518
        squash=False,
        train_resize=604 if cifar else 0,
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
    config.mesh = dict(data=-1, fsdp=-1, tensor=1)
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
            split="validation" if recipe == "imagenet" else "test",
            label="",
            label_map=(),
            only_present=False,
            metric="top1",
        ),
    )
    if recipe == "imagenet":
        config.evals.classify_real = dict(
            every_epochs=0.0,
            set="imagenet2012_real",
            dir="",
            split="validation",
            label="real_label",
            label_map=(),
            only_present=False,
            metric="top1",
        )
        config.evals.classify_v2 = dict(
            every_epochs=0.0,
            set="imagenet_v2/matched-frequency",
            dir="",
            split="test",
            label="label",
            label_map=(),
            only_present=False,
            metric="top1",
        )
    return config
