"""Linear probes of a frozen encoder on 1 % or 10 % of ImageNet's training images.

python -m vit_ssl_jax.evaluate --config=configs/probe_lowshot.py:1pct --checkpoint=DIR

The images are those of SimCLR's lists, as TFDS's imagenet2012_subset has them; of ImageNet
in another form (configs/lowshot_vitl.py says where the lists are):
    --config.tasks.imagenet.set=imagenet2012 --config.tasks.imagenet.dir=DIR
    --config.tasks.imagenet.list=1percent.txt

Result: not yet run. Published top-1 with 1 %, the better one of this and of fine-tuning
(lowshot_vit{l,h}.py): I-JEPA 69.4 L/16, 73.3 H/14, 77.3 H/16 at 448 px; MAE 67.1 L/16, 71.5
H/14 (Assran et al., 2023, table 2). I-JEPA's ablations, B/16 for 300 epochs, have 54.2 with a
linear head. How it was trained isn't told; MSN's code for such lists, by the same authors,
is logistic regression on features of plain images. Here too: means of the last layer and
of the last four, with and without batch norm, a sweep of rates and decays. The best head
is chosen on a tenth of the images that no head saw.
"""

from ml_collections import ConfigDict

RECIPES = ("1pct", "10pct")


def get_config(recipe="1pct"):
    if recipe not in RECIPES:
        raise ValueError(
            f"probe_lowshot.py:{recipe}: choose one of {', '.join(RECIPES)}"
        )
    config = ConfigDict()
    config.recipe = f"probe_lowshot:{recipe}"
    config.variant = ""  # the ViT that is expected; "": any
    config.eval_batch_size = 1024
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.tasks = dict(
        imagenet=dict(
            set=f"imagenet2012_subset/{recipe}",
            dir="",  # "": ~/tensorflow_datasets
            label="",
            list="",  # a file of the names of the images to learn from; "": all
            train="train[:90%]",
            select="train[90%:]",
            test="validation",
            size=(224, 224),  # (): as the encoder was trained
            resize=256,  # 0: the short side of `size`
            squash=False,
            interpolation="bicubic",
            metric="top1",
            group="",
        ),
    )
    config.evals = dict(
        probe=dict(
            readouts=((1, "mean"), (4, "mean")),
            batch_norm=(False, True),
            norm_group=0,  # images that are normalised together; 0: the batch
            optimizer="sgd",
            momentum=0.9,
            nesterov=False,
            rates=(0.01, 0.03, 0.1, 0.3, 1.0),
            rate_batch=256,  # rates are for so many images; 0: for any batch
            decays=(0.0, 1e-4, 1e-3, 1e-2),
            decay_bias=False,  # weight decay of kernels alone
            schedule="cosine",
            step_epochs=0.0,
            milestones=(),
            rate_end=0.0,  # of "cosine", as a share of the peak
            warmup_epochs=0.0,
            epochs=100.0,
            epoch_steps=0,  # 0: a pass over the images
            batch_size=256,
            accum=1,
            augment=False,  # True: augmented images through the encoder at every step
            crop=(),
            ratio=(3 / 4, 4 / 3),
            single_draw=False,
            flip=False,
            checkpoint_every=1000,
            seed=0,
        ),
    )
    return config
