"""CIFAR-10/100, Oxford Pets and Flowers-102 with a frozen encoder.

python -m vit_ssl_jax.evaluate --config=configs/eval_small.py --checkpoint=DIR

k-NN, few-shot least squares and logistic regression. CIFAR's images are resized to the
size that the encoder was trained with; pets and flowers as ImageNet's: the short side to
256 px, the centre of 224. Flowers trains on its 1,020 training images alone. For pets and
flowers the literature reports the mean per class.
"""

from ml_collections import ConfigDict

TASKS = {  # name: TFDS set, size, resize, metric
    "cifar10": ("cifar10", (), 0, "top1"),
    "cifar100": ("cifar100", (), 0, "top1"),
    "pets": ("oxford_iiit_pet", (224, 224), 256, "mean_per_class"),
    "flowers": ("oxford_flowers102", (224, 224), 256, "mean_per_class"),
}


def get_config():
    config = ConfigDict()
    config.recipe = "eval_small"
    config.variant = ""  # the ViT that is expected; "": any
    config.eval_batch_size = 256  # images a batch, on all devices together
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.tasks = {
        name: dict(
            set=data,  # named as config.data.name
            dir="",  # where it is; "": ~/tensorflow_datasets
            label="",  # which of several labels; "": the first class label
            list="",  # a file of the names of the images to learn from; "": all
            train="train",  # split that is learned from
            select="",  # split that the best head of a probe is chosen on; "": none
            test="test",  # split that accuracies are of
            size=size,  # of an image, pixels; (): as the encoder was trained
            # short side before the center is cut; 0: that of `size`; -1: as in training
            resize=resize,
            squash=False,  # both sides get `resize`, whatever the aspect
            interpolation="bicubic",  # of resizing; "": as in training
            metric=metric,  # "top1" or "mean_per_class"
            group="",  # tasks of one group get a mean; "": by itself
        )
        for name, (data, size, resize, metric) in TASKS.items()
    }
    config.evals = dict(
        knn=dict(
            pool="mean", k=(10, 20, 100, 200), temperature=0.07, standardize=False
        ),
        fewshot=dict(pool="mean", shots=(1, 5, 10), seeds=(0, 1, 2), ridge=1024.0),
        linear=dict(pool="mean", c=0.1, iterations=1000),
    )
    return config
