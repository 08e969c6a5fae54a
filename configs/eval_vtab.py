"""VTAB-1k (Zhai et al., 2019) with a frozen encoder: 19 tasks of 1,000 images.

python -m vit_ssl_jax.evaluate --config=configs/eval_vtab.py --checkpoint=DIR

800 images to train, 200 to choose with, the whole test split to report: linear heads on
features of plain images, of which the 200 choose one, and k-NN. Means over the 19 tasks
and over the groups are given where all of them are there. The published protocol
fine-tunes the network: transfer_vtab.py. Images are squeezed to the encoder's size, as there. Clevr-count takes
1,000 training images in the published code, by a slip; here it is 800, as elsewhere.
"""

from ml_collections import ConfigDict

NATURAL, SPECIALISED, STRUCTURED = "natural", "specialised", "structured"
TASKS = {  # name: group, TFDS set, label, split of the 800, of the 200, of the test
    "caltech101": (NATURAL, "caltech101", "", "train", "train[2754:2954]", "test"),
    "cifar100": (NATURAL, "cifar100", "label", "train", "train[45000:45200]", "test"),
    "dtd": (NATURAL, "dtd", "", "train", "validation[:200]", "test"),
    "flowers102": (
        NATURAL,
        "oxford_flowers102",
        "",
        "train",
        "validation[:200]",
        "test",
    ),
    "pets": (NATURAL, "oxford_iiit_pet", "label", "train", "train[2944:3144]", "test"),
    "svhn": (NATURAL, "svhn_cropped", "", "train", "train[65931:66131]", "test"),
    "sun397": (NATURAL, "sun397", "", "train", "validation[:200]", "test"),
    "camelyon": (
        SPECIALISED,
        "patch_camelyon",
        "",
        "train",
        "validation[:200]",
        "test",
    ),
    "eurosat": (
        SPECIALISED,
        "eurosat/rgb",
        "",
        "train",
        "train[16200:16400]",
        "train[21600:]",
    ),
    "resisc45": (
        SPECIALISED,
        "resisc45",
        "",
        "train",
        "train[18900:19100]",
        "train[25200:]",
    ),
    "retinopathy": (
        SPECIALISED,
        "diabetic_retinopathy_detection/btgraham-300",
        "",
        "train",
        "validation[:200]",
        "test",
    ),
    "clevr_count": (
        STRUCTURED,
        "clevr",
        "clevr_count",
        "train",
        "train[63000:63200]",
        "validation",
    ),
    "clevr_distance": (
        STRUCTURED,
        "clevr",
        "clevr_distance",
        "train",
        "train[63000:63200]",
        "validation",
    ),
    "dmlab": (STRUCTURED, "dmlab", "", "train", "validation[:200]", "test"),
    "kitti_distance": (
        STRUCTURED,
        "kitti",
        "kitti_distance",
        "train",
        "validation[:200]",
        "test",
    ),
    "dsprites_location": (
        STRUCTURED,
        "dsprites",
        "dsprites_location",
        "train",
        "train[589824:590024]",
        "train[663552:]",
    ),
    "dsprites_orientation": (
        STRUCTURED,
        "dsprites",
        "dsprites_orientation",
        "train",
        "train[589824:590024]",
        "train[663552:]",
    ),
    "smallnorb_azimuth": (
        STRUCTURED,
        "smallnorb",
        "label_azimuth",
        "train",
        "test[:200]",
        "test[50%:]",
    ),
    "smallnorb_elevation": (
        STRUCTURED,
        "smallnorb",
        "label_elevation",
        "train",
        "test[:200]",
        "test[50%:]",
    ),
}


def get_config():
    config = ConfigDict()
    config.recipe = "eval_vtab"
    config.variant = ""  # the ViT that is expected; "": any
    config.eval_batch_size = 256
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.tasks = {
        name: dict(
            set=data,
            dir="",  # "": ~/tensorflow_datasets
            label=label,
            list="",  # a file of the names of the images to learn from; "": all
            train=f"{train}[:800]",
            select=select,
            test=test,
            size=(),  # (): as the encoder was trained
            resize=0,  # 0: the short side of `size`
            squash=True,
            interpolation="bilinear",
            metric="top1",
            group=group,
        )
        for name, (group, data, label, train, select, test) in TASKS.items()
    }
    config.evals = dict(
        knn=dict(
            pool="mean", k=(10, 20, 100, 200), temperature=0.07, standardize=False
        ),
        probe=dict(
            readouts=((1, "mean"), (4, "mean")),
            batch_norm=(True,),
            norm_group=0,  # images that are normalised together; 0: the batch
            optimizer="sgd",
            momentum=0.9,
            nesterov=False,
            rates=(0.01, 0.03, 0.1, 0.3, 1.0),
            rate_batch=0,  # 0: for any batch
            decays=(0.0, 1e-4, 1e-2),
            decay_bias=False,  # weight decay of kernels alone
            schedule="cosine",
            step_epochs=0.0,
            milestones=(),
            rate_end=0.0,  # of "cosine", as a share of the peak
            warmup_epochs=0.0,
            epochs=100.0,
            epoch_steps=0,  # 0: a pass over the images
            batch_size=200,
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
