"""Linear transfer of a frozen encoder to five sets by VISSL's protocol, as I-JEPA's table 3.

python -m vit_ssl_jax.evaluate --config=configs/probe_transfer.py:cifar100 --checkpoint=DIR

The argument is one of TASKS. Places205 is no set of TFDS: a folder with train/CLASS and
val/CLASS, --config.tasks.places205.dir=FOLDER.

Result: not yet run. Published top-1 on CIFAR-100, Places205, iNat18, Clevr/Count,
Clevr/Dist: I-JEPA H/14 87.5, 58.4, 47.6, 86.7, 72.4; g/16 from ImageNet-22k 89.5, 59.1,
55.3, 86.7, 73.0; MAE H/14 77.3, 55.0, 32.9, 90.5, 72.4; data2vec L/16 81.6, 54.6, 28.1,
85.3, 71.3. An outsider's plain SGD probe of the released H/14 had 77 (last layer) and 80.8
(last four) on CIFAR-100 (ijepa, issue 47).

Values are those of VISSL's configs of these sets, benchmark/linear_image_classification,
with its heads for a ViT without class token (models/vit_*_no_cls.yaml): the mean of the
last layer and the last four side by side, each with and without batch norm. All learn at
once, with SGD, Nesterov's momentum, weight decay 5e-4 of biases too, 256 images of eight
GPUs that normalise together, random crops and flips; of CLEVR whole images squeezed to
224 px and flips (the paper says centre crop, which cuts off objects that are counted).
CLEVR's classes are VTAB's, and VISSL's thresholds are the same.

Different here: batch norm without scale and shift, eps 1e-6 (1e-5), kernels that start
with a deviation of 0.01 (uniform), a cosine by the step (epoch). The best head is chosen on
1 % of the training images that no head saw; theirs is the best on the test images.
"""

from ml_collections import ConfigDict

# TFDS set, label, test split, interpolation, epochs, milestones at which the rate falls to
# a tenth; () is a cosine to a hundredth
TASKS = {
    "cifar100": ("cifar100", "label", "test", "bicubic", 28.0, (8.0, 16.0, 24.0)),
    "places205": ("folder", "", "val", "bilinear", 14.0, (4.0, 8.0, 12.0)),
    "inat18": (
        *("i_naturalist2018", "", "validation", "bilinear"),
        *(84.0, (24.0, 48.0, 72.0)),
    ),
    "clevr_count": ("clevr", "clevr_count", "validation", "bilinear", 50.0, ()),
    "clevr_distance": ("clevr", "clevr_distance", "validation", "bilinear", 100.0, ()),
}
RECIPES = tuple(TASKS)


def get_config(task=""):
    if task not in TASKS:
        raise ValueError(f"probe_transfer.py:{task}: choose one of {', '.join(TASKS)}")
    data, label, test, interpolation, epochs, milestones = TASKS[task]
    clevr = data == "clevr"
    config = ConfigDict()
    config.recipe = f"probe_transfer:{task}"
    config.variant = ""  # the ViT that is expected; "": any
    config.eval_batch_size = 1024
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.tasks = {
        task: dict(
            set=data,
            dir="",  # "": ~/tensorflow_datasets; a folder's has to be given
            label=label,
            list="",  # a file of the names of the images to learn from; "": all
            train="train[:99%]",
            select="train[99%:]",
            test=test,
            size=(224, 224),  # (): as the encoder was trained
            resize=224 if clevr else 256,  # 0: the short side of `size`
            squash=clevr,  # whole images, their sides as long
            interpolation=interpolation,
            metric="top1",
            group="",
        )
    }
    config.evals = dict(
        probe=dict(
            readouts=((1, "mean"), (4, "mean")),
            batch_norm=(False, True),
            norm_group=0,  # images that are normalised together; 0: the batch
            optimizer="sgd",
            momentum=0.9,
            nesterov=True,
            rates=(0.01,),
            rate_batch=256,  # rates are for so many images; 0: for any batch
            decays=(5e-4,),
            decay_bias=True,
            schedule="milestones" if milestones else "cosine",
            step_epochs=0.0,
            milestones=milestones,
            rate_end=0.0 if milestones else 0.01,  # of "cosine", share of the peak
            warmup_epochs=0.0,
            epochs=epochs,
            epoch_steps=0,  # 0: a pass over the images
            batch_size=256,
            accum=1,  # pieces in which a batch goes through the encoder
            augment=True,  # False: features of plain images, kept
            crop=() if clevr else (0.08, 1.0),
            ratio=(3 / 4, 4 / 3),
            single_draw=False,
            flip=True,
            checkpoint_every=1000,
            seed=0,
        ),
    )
    return config
