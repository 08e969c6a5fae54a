"""Supervised ViT-B/16 from scratch, ImageNet-1k.

python -m vit_ssl_jax.main --config=configs/supervised_vitb.py --workdir=DIR
python -m vit_ssl_jax.main --config=configs/supervised_vitb.py:modern --workdir=DIR

"original" is the recipe of Dosovitskiy et al. (2021), table 3, row ImageNet-1k: Adam
with a large weight decay, dropout, no further augmentation than crop and flip; 300
epochs. Result: not yet run. Published: 77.91 (fine-tuned at 384 px), 74.79 at 224 px
(paper, table 5; the authors' logs).

"modern" is the baseline that MAE is compared with (He et al., 2022, appendix A.2), in
the manner of DeiT, 300 epochs. Result: not yet run. Published: 82.3 with averaged
weights.
"""

from ml_collections import ConfigDict

RECIPES = ("original", "modern")


def get_config(recipe="original"):
    if recipe not in RECIPES:
        raise ValueError(
            f"supervised_vitb.py:{recipe}: choose one of {', '.join(RECIPES)}"
        )
    config = ConfigDict()
    config.recipe = f"supervised_vitb:{recipe}"
    config.seed = 0
    config.batch_size = 4096
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
        name="supervised",
        pool="cls",
        loss="softmax",  # ImageNet-21k, and big_vision on ImageNet-1k: "sigmoid"
        label_smoothing=0.0,
        representation=768,  # the paper's tanh layer, dropped for fine-tuning
        head_bias=0.0,  # with "sigmoid": -10 (ImageNet-21k), -6.9 (ImageNet-1k)
        head_std=0.0,
        ema=0.0,
        mixup=0.0,
        cutmix=0.0,
        mix_prob=1.0,
        mix_switch=0.5,
        mix_groups=1,
        erase=0.0,
    )
    config.vit = dict(
        variant="B/16",
        posemb="learned",
        cls=True,
        droppath=0.0,
        dropout=0.1,
        dtype="bfloat16",
        norm_eps=1e-6,
        gelu="tanh",  # flax's default, so the original code's
        init="big_vision",
        remat="dots",
        unroll=1,
        kernels="auto",
    )
    config.optim = dict(
        name="adamw",
        schedule="cosine",  # JFT and ImageNet-21k: "linear" to 1e-5
        layer_decay=1.0,
        train_blocks=-1,  # the last so many of the encoder; -1: all of it
        lr=3e-3,
        lr_batch=0,
        lr_start=0.0,
        lr_end=0.0,
        warmup_epochs=10_000 / 312,  # 10,000 steps
        first_step=0,
        ipe_scale=1.0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        wd=0.3,  # big_vision: 1e-4, not multiplied by the rate
        wd_end=0.3,
        no_decay=("bias", "scale"),  # class token and positions are decayed
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
        crop=(0.05, 1.0),
        ratio=(3 / 4, 4 / 3),
        flip=True,
        randaugment="",
        interpolation="bilinear",
        resize=256,  # the original evaluates on squeezed images, here the centre is cut
        squash=False,
        train_resize=0,
        train_size=(),  # of training's images, where crops are cut of them; (): size
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
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
    config.online = dict(share=0.0, lr=0.01, queue=4096, k=20, temperature=0.07)
    config.health = dict(every=0, images=512, policy="warn")
    config.pictures = dict(every_epochs=0.0, count=8, split="")  # 0: at the end alone
    config.nonfinite = dict(policy="stop", most=10)  # or "skip", up to most in a row
    config.spike = dict(policy="off", deviations=6.0, most=3)  # of gradient norms
    config.evals = dict(
        classify=dict(
            every_epochs=10.0,
            set="",
            dir="",
            split="validation",
            label="",
            label_map=(),
            only_present=False,
            metric="top1",
        ),
        classify_real=dict(
            every_epochs=0.0,  # 0: at the end
            set="imagenet2012_real",
            dir="",
            split="validation",
            label="real_label",
            label_map=(),
            only_present=False,
            metric="top1",
        ),
        classify_v2=dict(
            every_epochs=0.0,
            set="imagenet_v2/matched-frequency",
            dir="",
            split="test",
            label="label",
            label_map=(),
            only_present=False,
            metric="top1",
        ),
        knn=dict(
            every_epochs=50.0,
            bank="train[:10%]",
            queries="validation",
            pool="cls",
            k=(10, 20, 100, 200),
            temperature=0.07,
            standardize=False,
        ),
    )
    if recipe == "modern":
        config.epochs = 300.0
        config.method.update(
            pool="mean",  # as in MAE's fine-tuning: the appendix doesn't say
            label_smoothing=0.1,
            representation=0,
            head_std=0.0336,  # Xavier's of the classifier
            ema=0.9999,
            mixup=0.8,
            cutmix=1.0,
            mix_groups=128,  # of 32 images, those of a GPU in MAE's code
        )
        config.vit.update(droppath=0.1, dropout=0.0, gelu="exact", init="mae")
        config.optim.update(
            lr=1e-4,  # of lr_batch images: 1.6e-3 at 4096
            lr_batch=256,
            warmup_epochs=20.0,
            b2=0.95,
            no_decay=("bias", "scale", "cls", "posemb"),
            clip=0.0,
            clip_each=0.0,  # norm of each parameter's gradient; 0: any
        )
        config.data.update(
            crop=(0.08, 1.0),
            randaugment="rand-m9-mstd0.5-inc1",
            interpolation="bicubic",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
        config.evals.knn.pool = "mean"
    return config
