"""A classifier of ImageNet-1k on ImageNet-A, -R, -Sketch and -C, as it was trained.

python -m vit_ssl_jax.evaluate --config=configs/eval_robust.py --checkpoint=DIR
python -m vit_ssl_jax.evaluate --config=configs/eval_robust.py:FOLDERS --checkpoint=DIR

Without FOLDERS the sets are TFDS's (imagenet_a, imagenet_r, imagenet_sketch,
imagenet2012_corrupted/CORRUPTION_SEVERITY, which TFDS corrupts anew); with it those that
people download and unpack: FOLDERS/imagenet-a, imagenet-r, sketch and
imagenet-c/CORRUPTION/SEVERITY, each with a folder a class by its WordNet id. What isn't
there is left out with a line. Classes are matched by WordNet id, and only those of a set
compete (200 of A and R), as in their authors' code. Images are resized as the model's
training evaluated them; those of C are 224 px already, and are cut or scaled to the
model's size alone. `imagenet_c/classify/mce` is the mean corruption error over all 75
sets, see results/robustness.py.

Published, MAE fine-tuned (He et al., 2022, table 13; H at 448 px): A 35.9, 57.1, 68.2
(76.7) for B, L, H; R 48.3, 59.9, 64.4 (66.5); Sketch 34.5, 45.3, 49.6 (50.9); mCE 51.7,
41.8, 33.8 (36.8). Supervised (supervised_vit{b,l,h}.py:modern): A 27.2, 29.6, 33.1; R
49.4, 50.9, 50.3; Sketch 35.6, 37.5, 38.0; mCE 45.8, 42.3, 41.3.
"""

from ml_collections import ConfigDict

CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
TASKS = {  # name: TFDS set, its split, folder, whether resized as in training, group
    "imagenet_a": ("imagenet_a", "test", "imagenet-a", True, ""),
    "imagenet_r": ("imagenet_r", "test", "imagenet-r", True, ""),
    "imagenet_sketch": ("imagenet_sketch", "test", "sketch", True, ""),
    **{
        f"{corruption}_{severity}": (
            f"imagenet2012_corrupted/{corruption}_{severity}",
            "validation",
            f"imagenet-c/{corruption}/{severity}",
            False,
            "imagenet_c",
        )
        for corruption in CORRUPTIONS
        for severity in range(1, 6)
    },
}


def get_config(folders=""):
    config = ConfigDict()
    config.recipe = "eval_robust"
    config.variant = ""  # the ViT that is expected; "": any
    config.eval_batch_size = 1024
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.tasks = {
        name: dict(
            set="folder" if folders else data,
            dir=f"{folders}/{folder}" if folders else "",  # "": ~/tensorflow_datasets
            label="",
            list="",  # a file of the names of the images to learn from; "": all
            train="",
            select="",
            test="train" if folders else split,  # a folder without splits: all of it
            size=(),  # (): as the model was trained
            resize=-1 if resized else 0,  # -1: as in training; 0: short side of `size`
            squash=False,
            interpolation="",  # "": as in training
            metric="top1",
            group=group,
        )
        for name, (data, split, folder, resized, group) in TASKS.items()
    }
    config.evals = dict(
        classify=dict(
            label_map=(),  # the head's class of each class; (): by WordNet id
            only_present=True,  # only classes that occur compete
        ),
    )
    return config
