"""Your own images: a folder of photos, any number, with or without class folders.

python -m vit_ssl_jax.main --config=configs/own.py --config.data.dir=DIR --workdir=runs/own
python -m vit_ssl_jax.main --config=configs/own.py:ijepa,gpu24 ...

own.py:METHOD[,SIZE]: METHOD is mae unless given; SIZE says for which device, `cpu`,
`gpu24` (24 GB), `gpu80` or `tpu`, and is told by what is at hand unless given. What is 0
or "" here is chosen once the images have been counted (docs/own_images.md has the rule and
why): the ViT, the batch, an absolute rate, the epochs. Give one of them, and it stays.
A tenth of the images is held out where there is no folder called test: for the objective
itself, and for k-NN and a linear probe where there are class folders.

The published recipes are for 1.3 million images: their rate is a batch of 4096's.
"""

from ml_collections import ConfigDict, config_dict

SIZES = ("", "cpu", "gpu24", "gpu80", "tpu")
CROPS = dict(
    local_crops=6,
    local_size=96,
    global_scale=(0.3, 1.0),
    local_scale=(0.05, 0.3),
    pool="cls",
)
METHODS = {
    "mae": dict(
        mask_ratio=0.75,
        decoder_width=256,
        decoder_depth=4,
        decoder_heads=8,
        decoder_posemb="sincos",  # "learned": of weights with another table
        norm_pixels=True,
    ),
    "ijepa": dict(
        predictor_width=192,
        predictor_depth=4,
        predictor_heads=6,
        num_contexts=1,
        num_targets=4,
        context_scale=(0.85, 1.0),
        context_aspect=(1.0, 1.0),
        target_scale=(0.15, 0.2),
        target_aspect=(0.75, 1.5),
        min_keep=10,
        max_context=96,
        compat="none",
        trim_batch=128,
        ema_start=0.996,
        ema_end=1.0,
        ipe_scale=1.0,
    ),
    "maskfeat": dict(mask_ratio=0.4, bins=9, cell=8, window=0, compat="none"),
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
    "rotation": dict(turns="all", pool="mean"),
    "colorization": dict(
        form="classification",
        patch_cells=4,
        neighbours=10,
        sigma=5.0,
        rebalance=0.5,
        prior_horizon=1000,
        temperature=0.38,
    ),
    "jigsaw": dict(
        grid=3, tile=64, permutations=1000, gray=0.3, pool="mean", compat="none"
    ),
    "context": dict(
        tile=64, gap=8, colour="drop", pairs="all", coarsen=0.33, pool="mean"
    ),
    "dino": CROPS
    | dict(
        prototypes=4096,  # 65,536 are for 1.3 million images
        head_width=2048,
        bottleneck_width=256,
        norm_last=True,
        freeze_epochs=1.0,
        student_temperature=0.1,
        teacher_temperature=0.04,
        warmup_temperature=0.04,
        warmup_temperature_epochs=0,
        centre_momentum=0.9,
        ema_start=0.996,
        ema_end=1.0,
        compat="none",
    ),
    "lejepa": CROPS
    | dict(
        projector_width=2048,
        projection_width=64,
        weight=0.02,
        slices=256,
        points=17,
        furthest=3.0,
        global_crops=2,
    ),
    "supervised": dict(
        pool="mean",
        loss="softmax",
        label_smoothing=0.1,
        representation=0,
        head_bias=0.0,
        head_std=0.0336,
        ema=0.0,
        mixup=0.8,
        cutmix=1.0,
        mix_prob=1.0,
        mix_switch=0.5,
        erase=0.0,
    ),
}
# As their recipes have it: class token, positions, initialisation.
VIT = {
    "mae": (True, "sincos", "mae"),
    "ijepa": (False, "sincos", "ijepa"),
    "maskfeat": (True, "learned", "slowfast"),
    "relvit": (True, "none", "timm"),
    "dino": (True, "learned", "timm"),
    "lejepa": (True, "learned", "timm"),
    "supervised": (True, "learned", "mae"),
}
SIDES = {"jigsaw": (240, 274), "context": (256, 292)}  # of the crop, before it


def get_config(choice="mae"):
    method, _, device = choice.partition(",")
    method = method or "mae"
    if method not in METHODS or device not in SIZES:
        raise ValueError(
            f"own.py:{choice}: say own.py:METHOD or own.py:METHOD,SIZE with METHOD one of "
            f"{', '.join(METHODS)} and SIZE one of {', '.join(SIZES[1:])}"
        )
    cls, posemb, init = VIT.get(method, (False, "sincos", "timm"))
    side, resize = SIDES.get(method, (224, 256))
    cuts = "local_crops" in METHODS[method]  # by itself, of larger images
    config = ConfigDict()
    config.recipe = f"own:{method}"
    config.seed = 0
    config.own = dict(
        device=device,  # class of the device that choices are for; "": what is at hand
    )
    config.batch_size = 0  # 0: by the number of images
    config.accum = 1
    config.epochs = 0.0  # 0: by the number of images
    config.steps = 0  # 0: by epochs
    config.log_every = 50
    config.checkpoint_every = 500
    config.keep = 2
    config.keep_every = 0  # steps: these checkpoints stay for good; 0: none
    config.keep_best = ""  # "max METRIC" or "min METRIC": the best one, too
    config.init_from = ""
    # what KEY is where it is None here and no encoder to start from has it
    config.otherwise = dict(
        vit=dict(posemb=posemb, cls=cls, norm_eps=1e-6, gelu="exact"),
        data=dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    )
    config.summary = True
    config.track = ""  # "wandb:PROJECT" or "mlflow:EXPERIMENT"
    config.method = dict(name=method, **METHODS[method])
    config.vit = dict(
        variant="",  # "": that of `init_from`, or by the device: Ti/16, S/16 or B/16
        posemb=config_dict.placeholder(
            str
        ),  # None, as below: that of `init_from`, or `otherwise`
        cls=config_dict.placeholder(bool),
        droppath=0.0,
        dropout=0.0,
        dtype="",  # "": bfloat16, on a CPU float32
        norm_eps=config_dict.placeholder(float),
        gelu=config_dict.placeholder(str),
        init=init,
        remat="none",
        unroll=1,
        kernels="auto",
    )
    config.optim = dict(
        name="adamw",
        schedule="cosine",
        layer_decay=1.0,
        train_blocks=-1,  # the last so many of the encoder; -1: all of it
        lr=0.0,  # 0: by the batch, absolute
        lr_batch=0,
        lr_start=0.0,
        lr_end=0.0,
        warmup_epochs=0.0,  # 0: a tenth of the epochs
        first_step=0,
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
        name="folder",
        dir="",  # the folder of your images
        split="train",
        mix=(),  # further sets: (name, dir, split, weight beside 1)
        labels=True,
        label="",
        labels_file="",  # of a folder: CSV or JSON, file and label
        list="",  # a file of the names of the images to train on; "": all
        extra_classes="error",  # of a folder, not in train: "skip" or "keep"
        alpha="white",  # what lies behind transparent images: or "black"
        cache_gib=1.0,  # of decoded images of a folder, where all fit; 0: none
        num_examples=10_000,  # counted when it starts; this is what `plan` goes by
        num_classes=10 if method == "supervised" else 0,
        size=(side, side),
        pad=0,
        crop=() if cuts else (0.2, 1.0),
        ratio=(3 / 4, 4 / 3),
        flip=not cuts and method not in ("ijepa", "jigsaw"),
        randaugment="rand-m9-mstd0.5-inc1" if method == "supervised" else "",
        interpolation="bicubic",
        resize=resize,
        squash=False,
        train_resize=384 if cuts else 0,
        train_size=(384, 384) if cuts else (),  # crops are cut of it
        mean=config_dict.placeholder(tuple),
        std=config_dict.placeholder(tuple),
        threads=0,
        workers=-1,  # processes; -1 by the number of cores, 0 threads alone
        stream=2,  # how augmentations are drawn, see data/draws.py
        pixels="near",  # resizing; "pillow": to the bit; "fast"
        device_cache=False,  # keep a small set on the devices
        max_broken=0.25,  # part of the images that may be broken
        max_pixels=178_956_970,  # of an image; more is refused, a JPEG read smaller
        retry_seconds=300,  # of waiting for a mount whose images are gone
        # LeJEPA's loss is one of whole batches, so a small test split must fill one.
        eval_batch_size=16 if method == "lejepa" else 64,
    )
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.online = dict(share=0.0, lr=0.01, queue=4096, k=20, temperature=0.07)
    config.health = dict(every=100, images=64, policy="warn")
    # At both ends and so often between. 0: at the end alone
    config.pictures = dict(every_epochs=25.0, count=8, split="")
    config.nonfinite = dict(policy="stop", most=10)  # or "skip", up to most in a row
    config.spike = dict(policy="off", deviations=6.0, most=3)  # of gradient norms
    config.evals = dict(
        pretext=dict(every_epochs=0.0, split="test"),
        knn=dict(
            every_epochs=0.0,
            bank="train",
            queries="test",
            pool="mean",
            k=(20,),
            temperature=0.07,
            standardize=True,
        ),
        linear=dict(
            every_epochs=0.0,
            bank="train",
            queries="test",
            pool="mean",
            c=0.1,
            iterations=200,
        ),
    )
    if method == "supervised":
        config.evals = dict(
            classify=dict(
                every_epochs=0.0,
                set="",
                dir="",
                split="test",
                label="",
                label_map=(),
                only_present=False,
                metric="top1",
            )
        )
    return config
