"""Fine-tuning on iNaturalist and Places after MAE, ViT-B, L and H (He et al., 2022).

python -m vit_ssl_jax.main --config=configs/finetune_transfer.py:inat18,l --workdir=DIR \
    --config.init_from=PRE

The argument is one of TASKS and b, l or h (without it: l); PRE is the workdir of the
pre-training run, configs/mae_vit{b,l,h}.py. iNaturalist 2019 and Places205 are no sets of
TFDS: --config.data.dir=DIR is a folder with train/CLASS and val/CLASS.

Result: not yet run. Published top-1 of B, L, H (H at 448 px; table 6 and the code's
README): iNat17 70.5, 75.7, 79.3 (83.4); iNat18 75.4, 80.1, 83.0 (86.8); iNat19 80.5, 83.4,
85.7 (88.3); Places205 63.9, 65.8, 65.9 (66.8); Places365 57.9, 59.4, 59.8 (60.3). 448 px are
--config.data.size="(448, 448)" --config.data.resize=448.
Rates and epochs are those of the ImageNet recipe, configs/finetune_vit{b,l,h}.py: the paper
says only that it adjusts both for each set (appendix A.5). Numbers of images are from
memory; the data's own replace them.
"""

from ml_collections import ConfigDict

TASKS = {  # TFDS set or folder, training images, classes
    "inat17": ("i_naturalist2017", 579_184, 5089),
    "inat18": ("i_naturalist2018", 437_513, 8142),
    "inat19": ("folder", 265_213, 1010),
    "places205": ("folder", 2_448_873, 205),
    "places365": ("places365_small", 1_803_460, 365),
}
SIZES = {  # ViT, epochs, drop path, layer decay, rate
    "b": ("B/16", 100.0, 0.1, 0.65, 5e-4),
    "l": ("L/16", 50.0, 0.2, 0.75, 1e-3),
    "h": ("H/14", 50.0, 0.3, 0.75, 1e-3),
}
RECIPES = tuple(f"{task},{size}" for task in TASKS for size in SIZES)


def get_config(choice=""):
    task, _, size = choice.partition(",")
    size = size or "l"
    if f"{task},{size}" not in RECIPES:
        raise ValueError(
            f"finetune_transfer.py:{choice}: choose one of {', '.join(TASKS)}, and after a "
            f"comma one of {', '.join(SIZES)}"
        )
    name, images, classes = TASKS[task]
    variant, epochs, droppath, layer_decay, rate = SIZES[size]
    config = ConfigDict()
    config.recipe = f"finetune_transfer:{task},{size}"
    config.seed = 0
    config.batch_size = 1024
    config.accum = 1
    config.epochs = epochs
    config.steps = 0  # 0: by epochs
    config.log_every = 100
    config.checkpoint_every = 2500
    config.keep = 3
    config.keep_every = 0  # steps: these checkpoints stay for good; 0: none
    config.keep_best = ""  # "max METRIC" or "min METRIC": the best one, too
    config.init_from = "PRETRAINED"  # give the workdir of the pre-training run
    config.summary = False
    config.track = ""  # "wandb:PROJECT" or "mlflow:EXPERIMENT"
    config.method = dict(
        name="supervised",
        pool="mean",  # of the patches, then a new LayerNorm
        loss="softmax",
        label_smoothing=0.1,
        representation=0,
        head_bias=0.0,
        head_std=2e-5,
        ema=0.0,
        mixup=0.8,
        cutmix=1.0,
        mix_groups=64 if size == "h" else 32,  # published: of the images of a GPU
        mix_prob=1.0,
        mix_switch=0.5,
        erase=0.25,
    )
    config.vit = dict(
        variant=variant,
        posemb="learned",  # from the table of pre-training, MAE's fixed one, too
        cls=True,
        droppath=droppath,
        dropout=0.0,
        dtype="bfloat16",  # the code: float16 with loss scaling
        norm_eps=1e-6,
        gelu="exact",
        init="timm",  # only the head and its norm are new
        remat="full" if size == "h" else "dots",
        unroll=1,
        kernels="auto",
    )
    config.optim = dict(
        name="adamw",
        schedule="cosine",
        layer_decay=layer_decay,
        train_blocks=-1,  # the last so many of the encoder; -1: all of it
        lr=rate,  # of lr_batch images
        lr_batch=256,
        lr_start=0.0,
        lr_end=1e-6,  # times the layer's factor, too
        warmup_epochs=5.0,
        first_step=0,  # the first update has rate 0, as in the code
        ipe_scale=1.0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        wd=0.05,
        wd_end=0.05,
        no_decay=("bias", "scale", "cls", "posemb"),
        clip=0.0,
        clip_each=0.0,  # norm of each parameter's gradient; 0: any
    )
    config.data = dict(
        name=name,
        dir="",  # "": ~/tensorflow_datasets; a folder's has to be given
        split="train",
        mix=(),  # further sets: (name, dir, split, weight beside 1)
        labels=True,
        label="",  # its feature or rule; "": the first class label
        labels_file="",  # of a folder: CSV or JSON, file and label
        list="",  # a file of the names of the images to train on; "": all
        extra_classes="error",  # of a folder, not in train: "skip" or "keep"
        alpha="white",  # what lies behind transparent images: or "black"
        cache_gib=1.0,  # of decoded images of a folder, where all fit; 0: none
        num_examples=images,
        num_classes=classes,
        size=(224, 224),
        pad=0,
        crop=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        flip=True,
        randaugment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
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
    config.online = dict(share=0.0, lr=0.01, queue=4096, k=20, temperature=0.07)
    config.health = dict(every=0, images=512, policy="warn")
    config.pictures = dict(every_epochs=0.0, count=8, split="")  # 0: at the end alone
    config.nonfinite = dict(policy="stop", most=10)  # or "skip", up to most in a row
    config.spike = dict(policy="off", deviations=6.0, most=3)  # of gradient norms
    config.evals = dict(
        classify=dict(
            every_epochs=5.0,
            set="",
            dir="",
            split="validation",
            label="",
            label_map=(),
            only_present=False,
            metric="top1",
        ),
    )
    return config
