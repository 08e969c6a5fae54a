"""RelViT upstream, ViT-H/14, ImageNet-1k: ours, after Camporese et al. (2022).

python -m vit_ssl_jax.main --config=configs/relvit_vith.py --workdir=DIR

Result: not yet run. Published: nothing at this size; published figures end at ViT-S/32
on ImageNet-100 (relvit_upstream.py:imagenet100). From the paper and its code: the
tasks, patch augmentation, learning rate, schedule, weight decay, clipping, drop-path,
epochs, crop and flip. Ours: batch, bfloat16 and ImageNet's usual mean and deviation.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.recipe = "relvit_vith"
    config.seed = 0
    config.batch_size = 1024  # published: 256
    config.accum = 1
    config.epochs = 100.0
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
        name="relvit",
        relations=1.0,
        distances=0.0,  # paper's ablations: 1.0
        angles=0.0,  # paper's ablations: 1.0
        positions=1.0,
        labels=0.0,
        smoothing=0.0,
        shuffle=False,  # changes nothing without a position table
        patch_augment=True,
        mega=0,
        add_cls=False,
        compat="none",  # "official": patches jittered after standardising
    )
    config.vit = dict(
        variant="H/14",
        posemb="none",  # upstream patches have no positions
        cls=True,
        droppath=0.1,  # script's default: 0.0
        dropout=0.0,  # script's default: 0.1
        dtype="bfloat16",  # published: float32
        norm_eps=1e-6,
        gelu="exact",
        init="timm",
        remat="full",
        unroll=1,
        kernels="auto",
    )
    config.optim = dict(
        name="adamw",
        schedule="quarter_cosine",
        layer_decay=1.0,
        train_blocks=-1,  # the last so many of the encoder; -1: all of it
        lr=5e-4,
        lr_batch=0,  # 0: absolute, not scaled by the batch
        lr_start=0.0,
        lr_end=1.25e-6,
        warmup_epochs=10.0,
        first_step=0,  # the first update has rate 0, as in the code
        ipe_scale=1.0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        wd=0.1,  # script's default: 0.0
        wd_end=0.1,
        no_decay=(),  # biases, norms and tokens are decayed, too
        clip=1.0,
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
        crop=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        flip=True,
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
    config.pictures = dict(every_epochs=25.0, count=8, split="")
    config.nonfinite = dict(policy="stop", most=10)  # or "skip", up to most in a row
    config.spike = dict(policy="off", deviations=6.0, most=3)  # of gradient norms
    config.evals = dict(
        pretext=dict(every_epochs=5.0, split="validation"),
        knn=dict(
            every_epochs=10.0,
            bank="train[:10%]",
            queries="validation",
            pool="mean",
            k=(10, 20, 100, 200),
            temperature=0.07,
            standardize=False,
        ),
    )
    return config
