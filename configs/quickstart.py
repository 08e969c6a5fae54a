"""A first run: a small ViT learns from 6,500 photo patches without labels, on a CPU.

python -m vit_ssl_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
python -m vit_ssl_jax.main --config=configs/quickstart.py:mae --workdir=runs/quickstart_mae

I-JEPA unless `:mae` is given. The data ships with scikit-image: 32x32 patches of
thirteen photographs, the class is the photograph, training and test patches come from
different parts of it. It is texture recognition, not objects.

Small networks on textures want a recipe of their own. Against the published ones: a rate
of 1e-3 for every batch, xavier initialisation, and for I-JEPA smaller and more steps, a
faster teacher, hardly any crop, a weak predictor that sees few tokens, and an encoder
without positions (the predictor has them): a texture looks the same everywhere, and with
fixed positions in its input the small teacher's features were mostly positions.
"""

from ml_collections import ConfigDict

METHODS = {
    "ijepa": dict(
        name="ijepa",
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
        max_context=16,  # of 24 on average; for the 8x8 grid, 0 (no bound) fits any
        compat="none",
        trim_batch=128,
        ema_start=0.99,
        ema_end=1.0,
        ipe_scale=1.0,
    ),
    "mae": dict(
        name="mae",
        mask_ratio=0.75,
        decoder_width=64,
        decoder_depth=1,
        decoder_heads=4,
        decoder_posemb="sincos",  # "learned": of weights with another table
        norm_pixels=True,
    ),
}


def get_config(method="ijepa"):
    if method not in METHODS:
        raise ValueError(f"quickstart.py:{method}: choose one of {', '.join(METHODS)}")
    mae = method == "mae"
    config = ConfigDict()
    config.recipe = f"quickstart:{method}"
    config.seed = 0
    config.batch_size = 128 if mae else 32
    config.accum = 1
    config.epochs = 16.0 if mae else 10.0
    config.steps = 800 if mae else 2000
    config.log_every = 100
    config.checkpoint_every = 500
    config.keep = 2
    config.keep_every = 0  # steps: these checkpoints stay for good; 0: none
    config.keep_best = ""  # "max METRIC" or "min METRIC": the best one, too
    config.init_from = ""
    config.summary = True
    config.track = ""  # "wandb:PROJECT" or "mlflow:EXPERIMENT"
    config.method = METHODS[method]
    config.vit = dict(
        variant="4x128x4/4" if mae else "3x96x3/4",
        posemb="sincos" if mae else "none",
        cls=mae,
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
        warmup_epochs=1.6 if mae else 1.0,
        first_step=1,
        ipe_scale=1.0,
        b1=0.9,
        b2=0.95 if mae else 0.999,
        eps=1e-8,
        wd=0.05 if mae else 0.04,
        wd_end=0.05 if mae else 0.04,
        no_decay=("bias", "scale"),
        clip=0.0,
        clip_each=0.0,  # norm of each parameter's gradient; 0: any
    )
    config.data = dict(
        name="embedded",
        dir="",
        split="train",
        mix=(),  # further sets: (name, dir, split, weight beside 1)
        labels=True,
        label="",  # its feature or rule; "": the first class label
        labels_file="",  # of a folder: CSV or JSON, file and label
        list="",  # a file of the names of the images to train on; "": all
        extra_classes="error",  # of a folder, not in train: "skip" or "keep"
        alpha="white",  # what lies behind transparent images: or "black"
        cache_gib=1.0,  # of decoded images of a folder, where all fit; 0: none
        num_examples=6500,
        num_classes=13,
        size=(32, 32),
        pad=0,
        crop=(0.3, 1.0) if mae else (0.8, 1.0),
        ratio=(3 / 4, 4 / 3),
        flip=True,
        randaugment="",
        interpolation="bilinear",
        resize=32,
        squash=False,
        train_resize=0,
        train_size=(),  # of training's images, where crops are cut of them; (): size
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        threads=0,
        workers=-1,  # processes; -1 by the number of cores, 0 threads alone
        stream=1,  # how augmentations are drawn; 1: as in the recorded figures
        pixels="pillow",  # resizing to the bit; "near", "fast"
        device_cache=False,  # keep a small set on the devices
        max_broken=0.25,  # part of the images that may be broken
        max_pixels=178_956_970,  # of an image; more is refused, a JPEG read smaller
        retry_seconds=300,  # of waiting for a mount whose images are gone
        eval_batch_size=256,
    )
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.online = dict(share=0.0, lr=0.01, queue=4096, k=20, temperature=0.07)
    config.health = dict(every=100, images=512, policy="warn")
    # 5 times in all, a pass of 8 images each: next to nothing. 0: at the end alone
    config.pictures = dict(every_epochs=4.0 if mae else 2.5, count=8, split="test")
    config.nonfinite = dict(policy="stop", most=10)  # or "skip", up to most in a row
    config.spike = dict(policy="off", deviations=6.0, most=3)  # of gradient norms
    config.evals = dict(
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
    return config
