"""The embedded photo patches: what is a small encoder worth?

python -m vit_ssl_jax.evaluate --config=configs/eval_quickstart.py --checkpoint=runs/quickstart

k-NN, few-shot least squares and logistic regression on the frozen encoder; the data ships
with scikit-image. 1,300 test images: a figure is known to about one point.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.recipe = "eval_quickstart"
    config.variant = ""  # the ViT that is expected; "": any
    config.eval_batch_size = 256
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.tasks = dict(
        embedded=dict(
            set="embedded",
            dir="",
            label="",
            list="",  # a file of the names of the images to learn from; "": all
            train="train",
            select="",
            test="test",
            size=(),  # (): as the encoder was trained
            resize=0,  # 0: the short side of `size`
            squash=False,
            interpolation="bilinear",
            metric="top1",
            group="",
        ),
    )
    config.evals = dict(
        knn=dict(pool="mean", k=(10, 20, 100, 200), temperature=0.07, standardize=True),
        fewshot=dict(pool="mean", shots=(1, 5, 10), seeds=(0, 1, 2), ridge=1024.0),
        linear=dict(pool="mean", c=0.1, iterations=200),
    )
    return config
