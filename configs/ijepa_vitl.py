"""I-JEPA, ViT-L/16, ImageNet-1k, 600 epochs (Assran et al., 2023).

python -m vit_ssl_jax.main --config=configs/ijepa_vitl.py --workdir=DIR
python -m vit_ssl_jax.main --config=configs/ijepa_vitl.py:uniform --workdir=DIR

Result: not yet run. Published, linear probe top-1: 77.5 (paper, table 1).
Values are the paper's (appendix A); its code has no config of this size.

Masks are the published sampler's: every context is trimmed to the smallest of 128 images,
one GPU's, in raster order, and blocks never reach the last row and column. That leaves 50
tokens an image on average, mostly of the top; the published figure belongs to that task.
`:uniform` places blocks everywhere and trims none: 79 tokens, an easier prediction from
more context. A step costs 316 GFLOPs an image within its static bound, with `:uniform` 374.
"""

from ml_collections import ConfigDict

VARIANTS = ("uniform",)


def get_config(variant=""):
    if variant not in ("", *VARIANTS):
        raise ValueError(f"ijepa_vitl.py:{variant}: choose uniform, or no variant")
    uniform = variant == "uniform"
    config = ConfigDict()
    config.recipe = "ijepa_vitl:uniform" if uniform else "ijepa_vitl"
    config.seed = 0
    config.batch_size = 2048
    config.accum = 1
    config.epochs = 600.0
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
        name="ijepa",
        predictor_width=384,
        predictor_depth=12,
        predictor_heads=16,  # as many as the encoder's
        num_contexts=1,
        num_targets=4,
        context_scale=(0.85, 1.0),
        context_aspect=(1.0, 1.0),
        target_scale=(0.15, 0.2),
        target_aspect=(0.75, 1.5),
        min_keep=10,
        max_context=96 if uniform else 72,  # of at most 169; 0: no bound
        compat="none" if uniform else "official",
        trim_batch=128,  # images that are trimmed together: one GPU's
        ema_start=0.996,
        ema_end=1.0,
        ipe_scale=1.0,
    )
    config.vit = dict(
        variant="L/16",
        posemb="sincos",
        cls=False,
        droppath=0.0,
        dropout=0.0,
        dtype="bfloat16",
        norm_eps=1e-6,
        gelu="exact",
        init="ijepa",
        remat="dots",
        unroll=1,
        kernels="auto",
    )
    config.optim = dict(
        name="adamw",
        schedule="cosine",
        layer_decay=1.0,
        train_blocks=-1,  # the last so many of the encoder; -1: all of it
        lr=1e-3,
        lr_batch=0,  # 0: absolute, not scaled by the batch
        lr_start=1e-4,  # released H config: 2e-4
        lr_end=1e-6,
        warmup_epochs=15.0,  # released H config: 40
        first_step=1,  # the code's schedules count from 1
        ipe_scale=1.0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        wd=0.04,
        wd_end=0.4,  # cosine as in the code; the paper's text says linear
        no_decay=("bias", "scale"),  # the mask token is decayed, as in the code
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
        crop=(0.3, 1.0),
        ratio=(3 / 4, 4 / 3),
        flip=False,  # no published I-JEPA run flips
        randaugment="",
        interpolation="bilinear",
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
    config.pictures = dict(every_epochs=150.0, count=8, split="")
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
        )
    )
    return config
