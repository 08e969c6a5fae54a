"""Colorization, ViT-B/16, ImageNet-1k, 300 epochs (Zhang et al., 2016).

python -m vit_ssl_jax.main --config=configs/colorization_vitb.py --workdir=DIR

Result: not yet run. No ViT recipe is published: the values are ours, chosen for all
classic pretext tasks alike. The released code trained a convolutional network of its
own for at most 500,000 steps of 40 images with Adam; where it has an equivalent, a
comment says so.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.recipe = "colorization_vitb"
    config.seed = 0
    config.batch_size = 1024
    config.accum = 1
    config.epochs = 300.0
    config.steps = 0  # 0: by epochs
    config.log_every = 100
    config.checkpoint_every = 5000
    config.keep = 3
    config.keep_every = 0  # steps: these checkpoints stay for good; 0: none
    config.keep_best = ""  # "max METRIC" or "min METRIC": the best one, too
    config.init_from = ""
    config.summary = False
    config.track = ""  # "wandb:PROJECT" or "mlflow:EXPERIMENT"
    config.method = dict(
        name="colorization",
        form="classification",  # "regression": of ab, desaturated
        patch_cells=4,  # of 4 px, as in the code, which samples them; here their mean
        neighbours=10,  # paper: 5
        sigma=5.0,
        rebalance=0.5,
        prior_horizon=1000,  # 0.8 epochs; paper and code: counted once beforehand
        temperature=0.38,
    )
    config.vit = dict(
        variant="B/16",
        posemb="sincos",
        cls=False,
        droppath=0.0,
        dropout=0.0,
        dtype="bfloat16",
        norm_eps=1e-6,
        gelu="exact",
        init="timm",
        remat="dots",
        unroll=1,
        kernels="auto",
    )
    config.optim = dict(
        name="adamw",
        schedule="cosine",
        layer_decay=1.0,
        train_blocks=-1,  # the last so many of the encoder; -1: all of it
        lr=2.5e-4,  # of lr_batch images: 1e-3 at 1024; the code: 3e-5
        lr_batch=256,
        lr_start=0.0,
        lr_end=0.0,
        warmup_epochs=20.0,
        first_step=1,
        ipe_scale=1.0,
        b1=0.9,
        b2=0.95,  # the code: 0.99
        eps=1e-8,
        wd=0.05,  # the code: 1e-3
        wd_end=0.05,
        no_decay=("bias", "scale", "cls", "posemb"),
        clip=0.0,
        clip_each=0.0,  # norm of each parameter's gradient; 0: any
    )
    config.data = dict(
        name="imagenet2012",
        dir="",  # "": ~/tensorflow_datasets
        split="train",
        mix=(),  # further sets: (name, dir, split, weight beside 1)
        labels=True,
        label="",  # its feature or rule; "": the first class label
        labels_file="",  # of a folder: CSV or JSON, file and label
        list="",  # a file of the names of the images to train on; "": all
        extra_classes="error",  # of a folder, not in train: "skip" or "keep"
        alpha="white",  # what lies behind transparent images: or "black"
        cache_gib=1.0,  # of decoded images of a folder, where all fit; 0: none
        num_examples=1_281_167,
        num_classes=1000,
        size=(224, 224),
        pad=0,
        crop=(0.2, 1.0),  # the code: crops of 176 px
        ratio=(3 / 4, 4 / 3),
        flip=True,  # as in the code
        randaugment="",
        interpolation="bicubic",
        resize=256,
        squash=False,
        train_resize=0,
        train_size=(),  # of training's images, where crops are cut of them; (): size
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        threads=0,  # 0: by the number of cores
        workers=-1,  # processes; -1 by the number of cores, 0 threads alone
        stream=2,  # how augmentations are drawn, see data/draws.py
        pixels="near",  # resizing; "pillow": to the bit; "fast"
        device_cache=False,  # keep a small set on the devices
        max_broken=0.01,  # part of the images that may be broken
        max_pixels=178_956_970,  # of an image; more is refused, a JPEG read smaller
        retry_seconds=300,  # of waiting for a mount whose images are gone
        eval_batch_size=1024,
    )
    config.mesh = dict(data=-1, fsdp=-1, tensor=1)
    config.online = dict(share=0.02, lr=0.01, queue=4096, k=20, temperature=0.07)
    config.health = dict(every=100, images=512, policy="warn")
    # 5 times in all, a pass of 8 images each: next to nothing. 0: at the end alone
    config.pictures = dict(every_epochs=75.0, count=8, split="")
    config.nonfinite = dict(policy="stop", most=10)  # or "skip", up to most in a row
    config.spike = dict(policy="off", deviations=6.0, most=3)  # of gradient norms
    config.evals = dict(
        knn=dict(
            every_epochs=50.0,
            bank="train[:10%]",
            queries="validation",
            pool="mean",
            k=(10, 20, 100, 200),
            temperature=0.07,
            standardize=False,
        ),
        pretext=dict(every_epochs=10.0, split="validation"),
    )
    return config
