"""Linear probes of a frozen ViT-L/16 on ImageNet-1k, by three published protocols.

python -m vit_ssl_jax.evaluate --config=configs/probe_vitl.py:mae --checkpoint=DIR
python -m vit_ssl_jax.evaluate --config=configs/probe_vitl.py:ijepa --checkpoint=DIR
python -m vit_ssl_jax.evaluate --config=configs/probe_vitl.py:dinov2 --checkpoint=DIR

Result: not yet run. Published: MAE 75.8 (1600 epochs), I-JEPA 77.5. All heads of a
protocol's grid train at once on one pass of the encoder over the augmented images. The
best head of a sweep is chosen on 1 % of the training images that no head saw; the papers
choose on the validation images. MAE's one head learns from all of them.

mae: class token, batch norm without affine by each 512 images, a GPU's, LARS (He et al.,
    2022, table 10). `config.evals.probe.norm_group=0` is by the whole batch.
ijepa: mean of the last layer and of the last four side by side, with and without batch
    norm, LARS, the sweep of its appendix A.2. `config.evals.probe.batch_norm=(False,)` is
    the plain linear head alone.
dinov2: class tokens of the last one and four layers, with and without the last mean, SGD,
    13 rates (Oquab et al., 2023, appendix B.3). An encoder without a class token:
    --config.evals.probe.readouts="((1,'mean'),(4,'mean'))".
"""

from ml_collections import ConfigDict

RECIPES = ("mae", "ijepa", "dinov2")
GRIDS = {
    "mae": dict(
        readouts=((1, "cls"),),
        batch_norm=(True,),
        norm_group=512,  # images normalised together: those of a GPU; 0: the batch
        optimizer="lars",
        rates=(0.1,),
        decays=(0.0,),
        schedule="cosine",
        step_epochs=0.0,
        milestones=(),
        warmup_epochs=10.0,
        epochs=90.0,  # 50 suffice for L and H, the code says
        epoch_steps=0,  # 0: a pass over the images
        batch_size=16384,
        accum=1,  # pieces in which a batch goes through the encoder
        single_draw=True,  # its own random crop, drawn once and clamped
    ),
    "ijepa": dict(
        readouts=((1, "mean"), (4, "mean")),
        batch_norm=(False, True),
        norm_group=0,
        optimizer="lars",
        rates=(0.01, 0.05, 0.001),
        decays=(5e-4, 0.0),
        schedule="step",  # a tenth every step_epochs
        step_epochs=15.0,
        milestones=(),
        warmup_epochs=0.0,
        epochs=50.0,
        epoch_steps=0,
        batch_size=16384,
        accum=1,
        single_draw=False,
    ),
    "dinov2": dict(
        readouts=((1, "cls"), (4, "cls"), (1, "cls+mean"), (4, "cls+mean")),
        batch_norm=(False,),
        norm_group=0,
        optimizer="sgd",
        rates=(
            *(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4),
            *(1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1),
        ),
        decays=(0.0,),
        schedule="cosine",
        step_epochs=0.0,
        milestones=(),
        warmup_epochs=0.0,
        epochs=10.0,
        epoch_steps=1250,
        batch_size=1024,  # theirs: 128 on each of eight GPUs
        accum=1,
        single_draw=False,
    ),
}


def get_config(recipe="mae"):
    if recipe not in RECIPES:
        raise ValueError(f"probe_vitl.py:{recipe}: choose one of {', '.join(RECIPES)}")
    sweep = recipe != "mae"
    config = ConfigDict()
    config.recipe = f"probe_vitl:{recipe}"
    config.variant = "L/16"  # the ViT that is expected; "": any
    config.eval_batch_size = 1024
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.tasks = dict(
        imagenet=dict(
            set="imagenet2012",
            dir="",  # "": ~/tensorflow_datasets
            label="",
            list="",  # a file of the names of the images to learn from; "": all
            train="train[:99%]" if sweep else "train",
            select="train[99%:]" if sweep else "",
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
            **GRIDS[recipe],
            momentum=0.9,
            nesterov=False,
            decay_bias=False,  # weight decay of kernels alone
            rate_end=0.0,  # of "cosine", as a share of the peak
            rate_batch=256,  # rates are for so many images; 0: for any batch
            augment=True,  # False: features of plain images, kept
            crop=(0.08, 1.0),
            ratio=(3 / 4, 4 / 3),
            flip=True,
            checkpoint_every=200,
            seed=0,
        ),
    )
    return config
