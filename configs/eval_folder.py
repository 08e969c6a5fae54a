"""A labelled folder of your own with a frozen encoder: k-NN, few-shot, linear probe.

python -m vit_ssl_jax.evaluate --config=configs/eval_folder.py:DIR --checkpoint=RUN

DIR has class folders, in split folders (train, test) or not: a tenth of the images is
held out then, by the hash of their paths. Beside the encoder stand the same network
untrained, and raw pixels. Metrics go by the folder's name.
"""

from ml_collections import ConfigDict


def get_config(directory=""):
    if not directory:
        raise ValueError(
            "eval_folder.py needs the folder: --config=configs/eval_folder.py:DIR"
        )
    name = directory.rstrip("/").rpartition("/")[2].replace(".", "_") or "folder"
    config = ConfigDict()
    config.recipe = f"eval_folder:{name}"
    config.variant = ""  # the ViT that is expected; "": any
    config.eval_batch_size = 64
    config.baselines = True  # rows of the untrained encoder and of raw pixels
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.tasks = {
        name: dict(
            set="folder",
            dir=directory,
            label="",
            list="",  # a file of the names of the images to learn from; "": all
            train="train",
            select="",
            test="test",
            size=(),  # (): as the encoder was trained
            resize=0,  # 0: the short side of `size`
            squash=False,
            interpolation="bicubic",
            metric="top1",
            group="",
        )
    }
    config.evals = dict(
        knn=dict(pool="mean", k=(1, 5, 20), temperature=0.07, standardize=True),
        fewshot=dict(pool="mean", shots=(1, 5), seeds=(0, 1, 2), ridge=1024.0),
        linear=dict(pool="mean", c=0.1, iterations=1000),
    )
    return config
