"""Every objective on CIFAR-10 in 90 seconds on a CPU: what does it teach a small ViT?

python -m vit_ssl_jax.main --config=configs/pretext_cpu.py:mae --config.data.dir=DIR --workdir=runs/mae

METHOD after the colon is one of those below. `python -m tests.studies.pretext_cpu` runs all of
them with three seeds and prints the table of docs/results/pretext_cpu.md. These are not
published recipes: a ViT of 0.35 M parameters, a rate of 1e-3 for every batch, a light
crop, and as many steps as two CPU cores take in the time.
"""

from ml_collections import ConfigDict

METHODS = {
    "supervised": dict(
        pool="mean",
        loss="softmax",
        label_smoothing=0.0,
        representation=0,
        head_bias=0.0,
        head_std=0.02,
        ema=0.0,
        mixup=0.0,
        cutmix=0.0,
        mix_prob=1.0,
        mix_switch=0.5,
        erase=0.0,
    ),
    "relvit": dict(
        relations=1.0,
        distances=0.0,
        angles=0.0,
        positions=1.0,
        labels=0.0,
        smoothing=0.0,
        shuffle=False,
        patch_augment=True,
        mega=0,
        add_cls=False,
        compat="none",
    ),
    "mae": dict(
        mask_ratio=0.75,
        decoder_width=48,
        decoder_depth=1,
        decoder_heads=4,
        decoder_posemb="sincos",  # "learned": of weights with another table
        norm_pixels=True,
    ),
    "ijepa": dict(  # as in quickstart.py
        predictor_width=48,
        predictor_depth=1,
        predictor_heads=3,
        num_contexts=1,
        num_targets=4,
        context_scale=(0.85, 1.0),
        context_aspect=(1.0, 1.0),
        target_scale=(0.15, 0.15),
        target_aspect=(1.0, 1.0),
        min_keep=4,
        max_context=16,
        compat="none",
        trim_batch=128,
        ema_start=0.99,
        ema_end=1.0,
        ipe_scale=1.0,
    ),
    "maskfeat": dict(mask_ratio=0.4, bins=9, cell=4, window=0, compat="none"),
    "rotation": dict(turns="all", pool="mean"),
    "colorization": dict(
        form="classification",
        patch_cells=1,
        neighbours=10,
        sigma=5.0,
        rebalance=0.5,
        prior_horizon=100,
        temperature=0.38,
    ),
    "jigsaw": dict(
        grid=2, tile=14, permutations=6, gray=0.3, pool="mean", compat="none"
    ),
    "context": dict(
        tile=8, gap=1, colour="project", pairs="all", coarsen=0.0, pool="mean"
    ),
    "dino": dict(
        prototypes=256,
        head_width=256,
        bottleneck_width=64,
        norm_last=True,
        freeze_epochs=0.05,
        local_crops=4,
        local_size=16,
        global_scale=(0.4, 1.0),
        local_scale=(0.1, 0.4),
        student_temperature=0.1,
        teacher_temperature=0.04,
        warmup_temperature=0.04,
        warmup_temperature_epochs=0,
        centre_momentum=0.9,
        ema_start=0.99,
        ema_end=1.0,
        pool="mean",
        compat="none",
    ),
    "lejepa": dict(
        projector_width=256,
        projection_width=16,
        weight=0.02,
        slices=256,
        points=17,
        furthest=3.0,
        global_crops=2,
        local_crops=4,
        local_size=16,
        global_scale=(0.3, 1.0),
        local_scale=(0.1, 0.3),
        pool="mean",
    ),
}
BATCH_AND_STEPS = dict(  # as much as two cores do in about a minute
    supervised=(64, 450),
    relvit=(64, 400),
    mae=(64, 800),
    ijepa=(32, 700),
    maskfeat=(64, 450),
    rotation=(32, 250),  # four turns of every image
    colorization=(64, 400),
    jigsaw=(64, 450),
    context=(64, 750),
    dino=(32, 200),  # two whole crops and four of a quarter of an image
    lejepa=(64, 200),
)


CROPS = ("dino", "lejepa")


def get_config(method="mae"):
    if method not in METHODS:
        raise ValueError(f"pretext_cpu.py:{method}: choose one of {', '.join(METHODS)}")
    config = ConfigDict()
    config.recipe = f"pretext_cpu:{method}"
    config.seed = 0
    config.batch_size, config.steps = BATCH_AND_STEPS[method]
    config.accum = 1
    config.epochs = 1.0  # only gives the warm-up its share of the steps
    config.log_every = 50
    config.checkpoint_every = 200
    config.keep = 2
    config.keep_every = 0  # steps: these checkpoints stay for good; 0: none
    config.keep_best = ""  # "max METRIC" or "min METRIC": the best one, too
    config.init_from = ""
    config.summary = True
    config.track = ""  # "wandb:PROJECT" or "mlflow:EXPERIMENT"
    config.method = dict(name=method, **METHODS[method])
    config.vit = dict(
        variant="3x96x3/4",
        # RelViT's positions are its answer.
        posemb="none" if method == "relvit" else "sincos",
        cls=method in ("mae", "relvit", "maskfeat"),
        droppath=0.0,
        dropout=0.0,
        dtype="float32",
        norm_eps=1e-6,
        gelu="exact",
        init="mae",
        remat="none",
        unroll=4,
        kernels="auto",
    )
    config.optim = dict(
        name="adamw",
        schedule="cosine",
        layer_decay=1.0,
        train_blocks=-1,  # the last so many of the encoder; -1: all of it
        lr=1e-3,
        lr_batch=0,
        lr_start=0.0,
        lr_end=0.0,
        warmup_epochs=0.1,  # a tenth of the run
        first_step=1,
        ipe_scale=1.0,
        b1=0.9,
        b2=0.95,
        eps=1e-8,
        wd=0.05,
        wd_end=0.05,
        no_decay=("bias", "scale"),
        clip=1.0,
        clip_each=0.0,  # norm of each parameter's gradient; 0: any
    )
    config.data = dict(
        name="cifar10",
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
        num_examples=50_000,
        num_classes=10,
        size=(32, 32),
        pad=0,
        # Where the method cuts crops they are all the cutting there is.
        crop=() if method in CROPS else (0.5, 1.0),
        ratio=(3 / 4, 4 / 3),
        flip=method not in CROPS,
        randaugment="",
        interpolation="bilinear",
        resize=32,
        squash=False,
        train_resize=0,
        train_size=(),  # of training's images, where crops are cut of them; (): size
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        threads=0,  # 0: by the number of cores
        workers=-1,  # processes; -1 by the number of cores, 0 threads alone
        stream=1,  # how augmentations are drawn; 1: as in the recorded figures
        pixels="pillow",  # resizing to the bit; "near", "fast"
        device_cache=False,  # keep a small set on the devices
        max_broken=0.01,  # part of the images that may be broken
        max_pixels=178_956_970,  # of an image; more is refused, a JPEG read smaller
        retry_seconds=300,  # of waiting for a mount whose images are gone
        eval_batch_size=256,
    )
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.online = dict(share=0.0, lr=0.01, queue=4096, k=20, temperature=0.07)
    config.health = dict(every=100, images=512, policy="warn")
    config.pictures = dict(every_epochs=0.0, count=8, split="")  # 0: at the end alone
    config.nonfinite = dict(policy="stop", most=10)  # or "skip", up to most in a row
    config.spike = dict(policy="off", deviations=6.0, most=3)  # of gradient norms
    config.evals = dict(
        pretext=dict(every_epochs=0.0, split="test[:2000]"),
        knn=dict(
            every_epochs=0.0,
            bank="train[:5000]",
            queries="test[:2000]",
            pool="mean",
            k=(20,),
            temperature=0.07,
            standardize=True,
        ),
    )
    return config
