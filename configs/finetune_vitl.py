"""ViT-L/16 fine-tuned on ImageNet-1k, end to end, after MAE or MaskFeat.

python -m vit_ssl_jax.main --config=configs/finetune_vitl.py --workdir=DIR \
    --config.init_from=PRE

PRE is the workdir of the pre-training run, configs/mae_vitl.py; with
finetune_vitl.py:maskfeat that of configs/maskfeat_vitl.py. finetune_vitl.py:partial trains
the last blocks and the classifier alone, one block or --config.optim.train_blocks=N.

Result: not yet run. Published top-1: MAE 85.9 (1600 epochs; four seeds of the code
85.95, 85.87, 85.76, 85.88), 85.1 with pixels that aren't normalised; MaskFeat 85.7
(1600 epochs, SlowFast); partial, one block 81.0, none (the linear probe) 73.5, all 84.9
(800 epochs, pixels that aren't normalised, figure 9). Values of "mae" are those of MAE's
FINETUNE.md, those of "partial" of the paper's table 9, those of "maskfeat" of SlowFast's
in1k_VIT_L_MaskFeat_FT.yaml; where the paper or mmpretrain differs, a comment says so. He
et al. (2022), Wei et al. (2022).
"""

from ml_collections import ConfigDict

RECIPES = ("mae", "maskfeat", "partial")


def get_config(recipe="mae"):
    if recipe not in RECIPES:
        raise ValueError(
            f"finetune_vitl.py:{recipe}: choose one of {', '.join(RECIPES)}"
        )
    config = ConfigDict()
    config.recipe = f"finetune_vitl:{recipe}"
    config.seed = 0
    config.batch_size = 1024
    config.accum = 1
    config.epochs = 50.0
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
        mix_groups=32,  # published: of 32 images, those of a GPU
        mix_prob=1.0,
        mix_switch=0.5,
        erase=0.25,
    )
    config.vit = dict(
        variant="L/16",
        posemb="learned",  # from the table of pre-training, MAE's fixed one, too
        cls=True,
        droppath=0.2,  # paper, table 9: 0.1
        dropout=0.0,
        dtype="bfloat16",  # the codes: float16 with loss scaling, MaskFeat's float32
        norm_eps=1e-6,
        gelu="exact",
        init="timm",  # only the head and its norm are new
        remat="dots",
        unroll=1,
        kernels="auto",
    )
    config.optim = dict(
        name="adamw",
        schedule="cosine",
        layer_decay=0.75,
        train_blocks=-1,  # the last so many of the encoder; -1: all of it
        lr=1e-3,  # of lr_batch images
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
        classify_real=dict(
            every_epochs=0.0,
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
    )
    if recipe == "partial":  # table 9's values
        config.epochs = 100.0  # the best of 50, 100, 200; fewer blocks take longer
        config.vit.droppath = 0.1
        config.optim.train_blocks = 1
    if recipe == "maskfeat":
        config.batch_size = 256  # of a node, the code has one; mmpretrain: 2048
        config.method.head_bias = 2e-5  # the code: all of the head times 0.001
        config.method.mix_groups = 8  # of 32 images, those of a GPU
        config.vit.droppath = 0.1
        config.optim.lr = 1e-3  # of 256 images
        config.optim.lr_start = 1e-8
        config.optim.warmup_epochs = 5.0
        config.optim.no_decay = ("bias", "scale")  # mmpretrain: tokens, too
    return config
