"""A fine-tuned or supervised classifier on ImageNet's validation images, ReaL and V2.

python -m vit_ssl_jax.evaluate --config=configs/eval_classifier.py --checkpoint=DIR

Top-1 and top-5, of the averaged weights too where the run kept them. ReaL (Beyer et al.,
2020) has new labels for the validation images: any of an image's set is right, the 3,163
images without one don't count. V2 (Recht et al., 2019) is "matched frequency". Images are
resized and cut as the model's training evaluated them (its `config.data`: size, resize,
squash, interpolation), which a line says; of a file of weights as the file tells, else
bicubic, to 256 px on the short side for 224. To choose, of each task: size, resize, and
interpolation ("bicubic" or "bilinear").
"""

from ml_collections import ConfigDict

TASKS = {  # name: TFDS set, split, label
    "validation": ("imagenet2012", "validation", ""),
    "real": ("imagenet2012_real", "validation", "real_label"),
    "v2": ("imagenet_v2/matched-frequency", "test", ""),
}


def get_config():
    config = ConfigDict()
    config.recipe = "eval_classifier"
    config.variant = ""  # the ViT that is expected; "": any
    config.eval_batch_size = 1024
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.tasks = {
        name: dict(
            set=data,
            dir="",  # "": ~/tensorflow_datasets
            label=label,
            list="",  # a file of the names of the images to learn from; "": all
            train="",
            select="",
            test=split,
            size=(),  # (): as the model was trained
            resize=-1,  # of the short side; -1: as in training; 0: that of `size`
            squash=False,
            interpolation="",  # "": as in training
            metric="top1",
            group="",
        )
        for name, (data, split, label) in TASKS.items()
    }
    config.evals = dict(
        classify=dict(
            label_map=(),  # the head's class of each class of the data
            only_present=False,  # True: only classes that occur compete
        ),
    )
    return config
