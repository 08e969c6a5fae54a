"""RelViT's baseline, supervised ViT-S/8, Tiny-ImageNet (Camporese et al., 2022).

python -m vit_ssl_jax.main --config=configs/relvit_tinyimagenet_supervised.py \
    --workdir=DIR

--config.data.dir=PATH: the images, sorted into train/CLASS/*.JPEG and val/CLASS/*.JPEG
(the archive keeps them in train/CLASS/images, and val's classes in a text file).

Result: not yet run. Published top-1: 43.19 +- 0.78; after RelViT 51.98 +- 0.20 (the
authors' slides). Values are those of the released code's README; where its scripts or
the paper differ, a comment says so. Published figures are of the validation split's
best epoch, chosen on that split; here the last one counts.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.recipe = "relvit_tinyimagenet_supervised"
    config.seed = 0
    config.batch_size = 256
    config.accum = 1
    config.epochs = 100.0
    config.steps = 0  # 0: by epochs of whole batches; theirs use the rest, too
    config.log_every = 100
    config.checkpoint_every = 2000
    config.keep = 3
    config.init_from = ""
    config.summary = False
    config.method = dict(
        name="supervised",
        pool="cls",
        loss="softmax",
        label_smoothing=0.0,
        representation=0,
        head_bias=0.0,  # theirs: drawn like the kernel
        head_std=0.0295,  # theirs: U(-1, 1) / sqrt(384), the same deviation
        ema=0.0,
        mixup=0.0,
        cutmix=0.0,
        mix_prob=1.0,
        mix_switch=0.5,
        erase=0.0,
    )
    config.vit = dict(
        variant="S/8",
        posemb="learned",
        cls=True,
        droppath=0.1,  # script's default: 0.0
        dropout=0.0,  # script's default: 0.1
        dtype="float32",
        norm_eps=1e-6,
        gelu="exact",
        init="timm",
        remat="none",
        unroll=1,
    )
    config.optim = dict(
        name="adamw",
        schedule="quarter_cosine",
        layer_decay=1.0,
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
    )
    config.data = dict(
        name="folder",
        dir="",
        split="train",
        labels=True,
        label="",  # its feature or rule; "": the first class label
        num_examples=100_000,
        num_classes=200,
        size=(64, 64),
        pad=4,
        crop=(),
        ratio=(3 / 4, 4 / 3),
        flip=True,
        randaugment="",
        interpolation="bilinear",
        resize=64,
        squash=False,
        train_resize=0,
        mean=(0.4802, 0.4481, 0.3975),
        std=(0.2770, 0.2691, 0.2821),
        threads=0,  # 0: by the number of cores
        eval_batch_size=1024,
    )
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.online = dict(share=0.0, lr=0.01, queue=4096, k=20, temperature=0.07)
    config.health = dict(every=0, images=512, policy="warn")
    config.evals = dict(
        classify=dict(
            every_epochs=5.0,
            set="",
            dir="",
            split="val",
            label="",
            label_map=(),
            metric="top1",
        ),
    )
    return config
