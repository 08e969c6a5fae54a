"""Supervised ViT-L/16, ImageNet-1k from scratch, 300 epochs (Dosovitskiy et al., 2021).

python -m vit_ssl_jax.main --config=configs/supervised_vitl.py --workdir=DIR

Result: not yet run. Published: 76.53 (fine-tuned at 384 px), 72.59 at 224 px
(paper, table 5; the authors' logs). The recipe is the paper's table 3, row ImageNet-1k:
Adam with a large weight decay, dropout, no further augmentation than crop and flip.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.recipe = "supervised_vitl"
    config.seed = 0
    config.batch_size = 4096
    config.accum = 1
    config.epochs = 300.0
    config.steps = 0  # 0: by epochs
    config.log_every = 100
    config.checkpoint_every = 5000
    config.keep = 3
    config.init_from = ""
    config.summary = False
    config.method = dict(
        name="supervised",
        pool="cls",
        loss="softmax",  # ImageNet-21k, and big_vision on ImageNet-1k: "sigmoid"
        label_smoothing=0.0,
        representation=1024,  # the paper's tanh layer, dropped for fine-tuning
        head_bias=0.0,  # with "sigmoid": -10 (ImageNet-21k), -6.9 (ImageNet-1k)
        head_std=0.0,
        ema=0.0,
        mixup=0.0,
        cutmix=0.0,
        mix_prob=1.0,
        mix_switch=0.5,
        erase=0.0,
    )
    config.vit = dict(
        variant="L/16",
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
    )
    config.optim = dict(
        name="adamw",
        schedule="cosine",  # JFT and ImageNet-21k: "linear" to 1e-5
        layer_decay=1.0,
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
    )
    config.data = dict(
        name="imagenet2012",
        dir="",  # "": ~/tensorflow_datasets
        split="train",
        labels=True,
        label="",  # its feature or rule; "": the first class label
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
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        threads=0,  # 0: by the number of cores
        eval_batch_size=1024,
    )
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.online = dict(share=0.0, lr=0.01, queue=4096, k=20, temperature=0.07)
    config.health = dict(every=0, images=512, policy="warn")
    config.evals = dict(
        pretext=dict(every_epochs=10.0, split="validation"),
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
    return config
