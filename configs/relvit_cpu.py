"""RelViT's claim at a CPU's scale: 2,500 images of CIFAR-10, a ViT of 1 M parameters.

python -m vit_ssl_jax.main --config=configs/relvit_cpu.py:upstream --config.data.dir=DIR --workdir=UP
python -m vit_ssl_jax.main --config=configs/relvit_cpu.py:finetune --config.data.dir=DIR \
    --config.init_from=UP --workdir=FT
python -m vit_ssl_jax.main --config=configs/relvit_cpu.py:scratch --config.data.dir=DIR --workdir=SC
python -m vit_ssl_jax.main --config=configs/relvit_cpu.py:supervised --config.data.dir=DIR --workdir=SUP

`upstream` solves relations and positions without labels, `finetune` goes on from it with
labels; `scratch` is the same fine-tuning without pre-training, `supervised` has the images
of both phases with labels. `python -m tests.studies.relvit_cpu` runs all with three seeds and
prints the table of docs/results/relvit_cpu.md. Not a published recipe: that is
relvit_*.py:cifar10; losses, augmentation, schedule and epochs (100 + 100) are its, the
network, the rate, the batch and the number of images are what two hours of a CPU allow.
"""

from ml_collections import ConfigDict

RECIPES = ("upstream", "finetune", "scratch", "supervised")
EPOCHS = dict(upstream=100.0, finetune=100.0, scratch=100.0, supervised=200.0)


def get_config(recipe="upstream"):
    if recipe not in RECIPES:
        raise ValueError(f"relvit_cpu.py:{recipe}: choose one of {', '.join(RECIPES)}")
    upstream = recipe == "upstream"
    config = ConfigDict()
    config.recipe = f"relvit_cpu:{recipe}"
    config.seed = 0
    config.batch_size = 64
    config.accum = 1
    config.epochs = EPOCHS[recipe]
    config.steps = 0  # 0: by epochs
    config.log_every = 500
    config.checkpoint_every = 1300
    config.keep = 1
    config.keep_every = 0  # steps: these checkpoints stay for good; 0: none
    config.keep_best = ""  # "max METRIC" or "min METRIC": the best one, too
    config.init_from = "UPSTREAM" if recipe == "finetune" else ""  # its workdir
    config.summary = False
    config.track = ""  # "wandb:PROJECT" or "mlflow:EXPERIMENT"
    config.method = (
        dict(
            name="relvit",
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
        )
        if upstream
        else dict(
            name="supervised",
            pool="cls",
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
        )
    )
    config.vit = dict(
        variant="5x128x4/8",
        posemb="none" if upstream else "learned",
        cls=True,
        droppath=0.0,
        dropout=0.0,
        dtype="bfloat16",
        norm_eps=1e-6,
        gelu="exact",
        init="mae",
        remat="none",
        unroll=5,
        kernels="auto",
    )
    config.optim = dict(
        name="adamw",
        schedule="quarter_cosine",
        layer_decay=1.0,
        train_blocks=-1,  # the last so many of the encoder; -1: all of it
        lr=1e-3,
        lr_batch=0,
        lr_start=0.0,
        lr_end=1.25e-6,
        warmup_epochs=EPOCHS[recipe] / 10,
        first_step=0,
        ipe_scale=1.0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        wd=0.1,
        wd_end=0.1,
        no_decay=(),
        clip=1.0,
        clip_each=0.0,  # norm of each parameter's gradient; 0: any
    )
    config.data = dict(
        name="cifar10",
        dir="",
        split="train[:2500]",
        mix=(),  # further sets: (name, dir, split, weight beside 1)
        labels=True,
        label="",
        labels_file="",  # of a folder: CSV or JSON, file and label
        list="",  # a file of the names of the images to train on; "": all
        extra_classes="error",  # of a folder, not in train: "skip" or "keep"
        alpha="white",  # what lies behind transparent images: or "black"
        cache_gib=1.0,  # of decoded images of a folder, where all fit; 0: none
        num_examples=2_500,
        num_classes=10,
        size=(32, 32),
        pad=4,
        crop=(),
        ratio=(3 / 4, 4 / 3),
        flip=True,
        randaugment="",
        interpolation="bilinear",
        resize=32,
        squash=False,
        train_resize=0,
        train_size=(),  # of training's images, where crops are cut of them; (): size
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        threads=0,
        workers=-1,  # processes; -1 by the number of cores, 0 threads alone
        stream=1,  # how augmentations are drawn; 1: as in the recorded figures
        pixels="pillow",  # resizing to the bit; "near", "fast"
        device_cache=True,  # keep a small set on the devices
        max_broken=0.01,  # part of the images that may be broken
        max_pixels=178_956_970,  # of an image; more is refused, a JPEG read smaller
        retry_seconds=300,  # of waiting for a mount whose images are gone
        eval_batch_size=512,
    )
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.online = dict(share=0.0, lr=0.01, queue=4096, k=20, temperature=0.07)
    config.health = dict(every=0, images=512, policy="warn")
    config.pictures = dict(every_epochs=0.0, count=8, split="")  # 0: at the end alone
    config.nonfinite = dict(policy="stop", most=10)  # or "skip", up to most in a row
    config.spike = dict(policy="off", deviations=6.0, most=3)  # of gradient norms
    labelled = dict(
        set="",
        dir="",
        split="test",
        label="",
        label_map=(),
        only_present=False,
        metric="top1",
    )
    config.evals = (
        dict(pretext=dict(every_epochs=0.0, split="test"))
        if upstream
        else dict(classify=dict(every_epochs=0.0, **labelled))
    )
    return config
