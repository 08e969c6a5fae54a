"""ViT-L/16 fine-tuned on 1 % or 10 % of ImageNet, after I-JEPA (Assran et al., 2023).

python -m vit_ssl_jax.main --config=configs/lowshot_vitl.py:1pct --workdir=DIR \
    --config.init_from=PRE

PRE is the workdir of the pre-training run, configs/ijepa_vitl.py. The
images are those of SimCLR's lists: TFDS has them as imagenet2012_subset/1pct and /10pct.
Of ImageNet in another form, a folder or shards of `data.prepare`, they are the ones that
the files imagenet_subsets/1percent.txt and 10percent.txt of the repository
google-research/simclr name, 12,811 and 128,116:
    --config.data.name=imagenet2012 --config.data.dir=DIR --config.data.list=1percent.txt

Result: not yet run. Published top-1 with 1 %: 69.4 (MAE 67.1, data2vec 73.3);
with 10 % none. The paper takes fine-tuning or a linear probe (probe_lowshot.py), whichever
is better. Of it are 50 epochs, AdamW, a cosine, batches of 512, layer decay 0.75, rate
3e-5, weight decay 0.05, label smoothing 0.1, MAE's RandAugment, and that there is no
mixup, CutMix, erasing or drop path. What it leaves open is as in MAE's fine-tuning:
warm-up, the rate at the end, crops, the classifier's start, positions that are trained.
"""

from ml_collections import ConfigDict

RECIPES = ("1pct", "10pct")


def get_config(recipe="1pct"):
    if recipe not in RECIPES:
        raise ValueError(
            f"lowshot_vitl.py:{recipe}: choose one of {', '.join(RECIPES)}"
        )
    images = {"1pct": 12_811, "10pct": 128_116}[recipe]
    config = ConfigDict()
    config.recipe = f"lowshot_vitl:{recipe}"
    config.seed = 0
    config.batch_size = 512
    config.accum = 1
    config.epochs = 50.0
    config.steps = 0  # 0: by epochs
    config.log_every = 25
    config.checkpoint_every = 250
    config.keep = 3
    config.keep_every = 0  # steps: these checkpoints stay for good; 0: none
    config.keep_best = ""  # "max METRIC" or "min METRIC": the best one, too
    config.init_from = "PRETRAINED"  # give the workdir of the pre-training run
    config.summary = False
    config.track = ""  # "wandb:PROJECT" or "mlflow:EXPERIMENT"
    config.method = dict(
        name="supervised",
        pool="normed_mean",  # I-JEPA's features
        loss="softmax",
        label_smoothing=0.1,
        representation=0,
        head_bias=0.0,
        head_std=2e-5,
        ema=0.0,
        mixup=0.0,
        cutmix=0.0,
        mix_prob=1.0,
        mix_switch=0.5,
        erase=0.0,
    )
    config.vit = dict(
        variant="L/16",
        posemb="learned",  # from the fixed table of pre-training
        cls=False,
        droppath=0.0,
        dropout=0.0,
        dtype="bfloat16",
        norm_eps=1e-6,
        gelu="exact",
        init="timm",  # only the head is new
        remat="dots",
        unroll=1,
        kernels="auto",
    )
    config.optim = dict(
        name="adamw",
        schedule="cosine",
        layer_decay=0.75,
        train_blocks=-1,  # the last so many of the encoder; -1: all of it
        lr=3e-5,  # taken as it is, not for so many images
        lr_batch=0,
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
        name=f"imagenet2012_subset/{recipe}",
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
        num_examples=images,
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
    return config
