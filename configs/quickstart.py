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
    # the recipe's name, by which `results` collects runs
    config.recipe = f"quickstart:{method}"
    # seed of the initial weights, of the order of images and of all that is drawn
    config.seed = 0
    config.batch_size = 128 if mae else 32  # images a step, on all devices together
    # micro-batches that a step's gradient is the mean of; less memory, same result
    config.accum = 1
    config.epochs = 16.0 if mae else 10.0  # passes over the training images
    # length of the run in steps; 0: `epochs` of them
    config.steps = 800 if mae else 2000
    config.log_every = 100  # steps between two rows of metrics.jsonl
    config.checkpoint_every = 500  # steps between two checkpoints
    config.keep = 2  # newest checkpoints that stay
    config.keep_every = 0  # of every so many steps a checkpoint stays for good; 0: none
    # "max METRIC" or "min METRIC": the best one stays, too, in best/
    config.keep_best = ""
    # a run's workdir or a file of weights to start from; "": random weights
    config.init_from = ""
    # end with the table beside the untrained encoder and raw pixels
    config.summary = True
    # "wandb:PROJECT" or "mlflow:EXPERIMENT" gets the metrics, too; "": none
    config.track = ""
    config.method = METHODS[method]
    config.vit = dict(
        # NAME/PATCH or DEPTHxWIDTHxHEADS/PATCH, and what else the ViT has
        variant="4x128x4/4" if mae else "3x96x3/4",
        # positions: what is added to the patches, or rotary ones
        posemb="sincos" if mae else "none",
        cls=mae,  # whether it has a class token
        # stochastic depth: how often the last block's branches are left out
        droppath=0.0,
        dropout=0.0,  # share of dropped activations
        dtype="float32",  # type of matrix products; sums, norms and weights are float32
        norm_eps=1e-6,  # epsilon of the LayerNorms
        gelu="exact",  # the activation, by the error function or its tanh approximation
        init="mae",  # initial weights as this published code has them
        # what is computed again to save memory: nothing, all but products, all
        remat="none",
        # blocks per iteration of the scan: slower to compile, at times faster to run
        unroll=4,
        # fused blocks and attention where they can be, never, or else an error
        kernels="auto",
    )
    config.optim = dict(
        name="adamw",  # the optimizer
        schedule="cosine",  # the learning rate after warm-up
        # factor of the rate from a block to the one before it; 1: one rate
        layer_decay=1.0,
        # the last so many blocks of the encoder are trained; -1: all of it
        train_blocks=-1,
        lr=1e-3,  # peak learning rate; of `lr_batch` images where that is given
        # batch that `lr` is for, scaled linearly to another; 0: `lr` as it is
        lr_batch=0,
        lr_start=0.0,  # learning rate at the start of warm-up
        lr_end=0.0,  # learning rate at the end
        # length of warm-up; of a run cut by `steps` the same share
        warmup_epochs=1.6 if mae else 1.0,
        # what the schedules count the first step as: 0, or 1 as in I-JEPA
        first_step=1,
        ipe_scale=1.0,  # length of the schedules as a multiple of the run's
        b1=0.9,  # decay of the mean of gradients; the momentum of SGD and LARS
        b2=0.95 if mae else 0.999,  # decay of the mean of their squares (AdamW)
        eps=1e-8,  # epsilon of AdamW
        wd=0.05 if mae else 0.04,  # weight decay at the start
        # weight decay at the end, reached by half a cosine
        wd_end=0.05 if mae else 0.04,
        no_decay=("bias", "scale"),  # last names of parameters that are not decayed
        clip=0.0,  # largest norm of the whole gradient; 0: any
        clip_each=0.0,  # largest norm of each parameter's gradient; 0: any
    )
    config.data = dict(
        # "embedded", "folder", "tars", "huggingface", "fake" or a prepared TFDS set
        name="embedded",
        dir="",  # folder or file of the set; "": ~/tensorflow_datasets
        split="train",  # training images, with slices and sums: "train[:90%]+extra"
        mix=(),  # further sets: (name, dir, split, weight beside 1)
        labels=True,  # whether its labels are used; False: as if it had none
        # which of several labels: a feature or a rule; "": the first class label
        label="",
        # of a folder: CSV, JSON or text with each file's label; "": by folders
        labels_file="",
        list="",  # a file of the names of the images to train on; "": all
        # of a folder, classes not in train: "error", "skip" or "keep"
        extra_classes="error",
        alpha="white",  # color behind transparent images: "white" or "black"
        # memory for decoded images of a folder, used where all fit; 0: none
        cache_gib=1.0,
        # training images, for the number of steps; the data's own count wins
        num_examples=6500,
        num_classes=13,  # classes of the labels; the data's own count wins
        size=(32, 32),  # (height, width) of an image as the encoder gets it
        pad=0,  # without `crop`: the image is moved by up to so many pixels
        # share of the image that a random crop has; (): the center
        crop=(0.3, 1.0) if mae else (0.8, 1.0),
        ratio=(3 / 4, 4 / 3),  # width / height of a random crop
        flip=True,  # half of the training images are mirrored
        # timm's name of a RandAugment, "rand-m9-mstd0.5-inc1"; "": none
        randaugment="",
        interpolation="bilinear",  # how images are resized
        resize=32,  # short side in pixels before the center is cut, in evaluation
        squash=False,  # both sides get `resize`, whatever the aspect
        # without `crop`: short side before a random window is cut; 0: center
        train_resize=0,
        train_size=(),  # of training's images where crops are cut of them; (): `size`
        mean=(0.485, 0.456, 0.406),  # mean of the channels, subtracted
        std=(0.229, 0.224, 0.225),  # deviation of the channels, divided by
        threads=0,  # threads that decode where no processes do; 0: by the cores
        workers=-1,  # processes that decode; -1: by the cores; 0: threads alone
        # how augmentations are drawn; 1: as in the recorded figures; 2: faster
        stream=1,
        # resizing as Pillow's, to the bit; "near" it, faster; "fast" decodes coarser, too
        pixels="pillow",
        device_cache=False,  # keep a small set of images of one size on the devices
        max_broken=0.25,  # share of images that may be broken before the run ends
        # pixels of the largest image: a larger one is refused, a JPEG read smaller
        max_pixels=178_956_970,
        # seconds of waiting for a folder, or a mount, whose images are gone
        retry_seconds=300,
        eval_batch_size=256,  # images a batch of evaluation, on all devices together
    )
    config.mesh = dict(
        data=-1,  # devices that share a batch; -1: all that are left
        fsdp=1,  # devices that share the parameters and a batch; -1: all that are left
        tensor=1,  # devices that share heads and MLPs
    )
    config.online = dict(
        # model FLOPs of a step that online probes may add, as a share; 0: off
        share=0.0,
        lr=0.01,  # learning rate of the linear head
        queue=4096,  # newest images that k-NN votes over and the metrics are means of
        k=20,  # neighbors of k-NN
        temperature=0.07,  # temperature of k-NN's vote
    )
    config.health = dict(
        every=100,  # steps between two readings; 0: never
        images=512,  # images of a batch that are read
        policy="warn",  # on a collapse: say so, or end the run
    )
    config.pictures = dict(
        # epochs between two pictures; 0: one at the end alone
        every_epochs=4.0 if mae else 2.5,
        count=8,  # images in a picture
        split="test",  # split of the images; "": that of training
    )
    config.nonfinite = dict(
        policy="stop",  # a step that is not finite: end the run, or leave the step out
        most=10,  # steps left out in a row that end the run
    )
    config.spike = dict(
        # a gradient norm far above the last: take it, end the run, leave it out
        policy="off",
        deviations=6.0,  # how far above the median of the last norms one is a spike
        most=3,  # spikes left out in a row that end the run
    )
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
