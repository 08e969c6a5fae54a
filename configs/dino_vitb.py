"""DINO, ViT-B/16, ImageNet-1k, 400 epochs (Caron et al., 2021).

python -m vit_ssl_jax.main --config=configs/dino_vitb.py --workdir=DIR

Result: not yet run. Published, 400 epochs: 78.2 linear probe, 76.1 k-NN (repository).
Values are those of the run behind the released weights as they are known to us; its file
of arguments wasn't at hand, so compare them with it before a figure is quoted. Where the
paper (appendix) differs, it is said beside the value.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.recipe = "dino_vitb"
    config.seed = 0
    config.batch_size = 1024
    config.accum = 1
    config.epochs = 400.0
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
        name="dino",
        prototypes=65_536,
        head_width=2048,
        bottleneck_width=256,
        norm_last=True,
        freeze_epochs=3.0,
        local_crops=10,
        local_size=96,
        global_scale=(0.25, 1.0),
        local_scale=(0.05, 0.25),
        student_temperature=0.1,
        teacher_temperature=0.07,
        warmup_temperature=0.04,
        warmup_temperature_epochs=50,
        centre_momentum=0.9,
        ema_start=0.996,
        ema_end=1.0,
        pool="cls",
        compat="official",  # positions of local crops by a factor 0.1 too large
    )
    config.vit = dict(
        variant="B/16",
        posemb="learned",
        cls=True,
        droppath=0.1,  # of the student alone
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
        lr=7.5e-4,
        lr_batch=256,
        lr_start=0.0,
        lr_end=2e-6,
        warmup_epochs=10.0,  # the code reaches the peak a step sooner
        first_step=0,
        ipe_scale=1.0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        wd=0.04,
        wd_end=0.4,
        no_decay=("bias", "scale"),  # tokens and positions are decayed, as in the code
        clip=0.0,
        clip_each=0.3,  # norm of each parameter's gradient; 0: any
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
        crop=(),  # the method cuts them on the device
        ratio=(3 / 4, 4 / 3),
        flip=False,  # crop by crop, on the device
        randaugment="",
        interpolation="bicubic",
        resize=256,
        squash=False,
        train_resize=384,  # a window as wide as the short side
        train_size=(384, 384),  # crops are cut of it
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
    config.pictures = dict(every_epochs=100.0, count=8, split="")
    config.nonfinite = dict(policy="stop", most=10)  # or "skip", up to most in a row
    config.spike = dict(policy="off", deviations=6.0, most=3)  # of gradient norms
    config.evals = dict(
        knn=dict(
            every_epochs=50.0,
            bank="train[:10%]",
            queries="validation",
            pool="cls",
            k=(10, 20, 100, 200),
            temperature=0.07,
            standardize=False,
        )
    )
    return config
