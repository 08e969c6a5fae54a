"""ImageNet-1k with a frozen encoder: k-NN and few-shot least squares.

python -m vit_ssl_jax.evaluate --config=configs/eval_imagenet.py --checkpoint=DIR

k-NN is DINO's: a weighted vote, cosine, k = 20 the headline, features neither standardised
nor whitened; DINO takes the class token, MAE and I-JEPA have only the mean of the patches
(`--config.evals.knn.pool=cls` for DINO's). Few-shot is big_vision's ridge regression, its
shots drawn from all training images (theirs: the first 65,000), 10 shots the headline.
Linear probes: probe_vit{b,l,h}.py.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.recipe = "eval_imagenet"
    config.variant = ""  # the ViT that is expected; "": any
    config.eval_batch_size = 1024
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.tasks = dict(
        imagenet=dict(
            set="imagenet2012",
            dir="",  # "": ~/tensorflow_datasets
            label="",
            list="",  # a file of the names of the images to learn from; "": all
            train="train",
            select="",
            test="validation",
            size=(224, 224),  # (): as the encoder was trained
            resize=256,  # 0: the short side of `size`
            squash=False,  # big_vision's few-shot: True
            interpolation="bicubic",
            metric="top1",
            group="",
        ),
    )
    config.evals = dict(
        knn=dict(
            pool="mean", k=(10, 20, 100, 200), temperature=0.07, standardize=False
        ),
        fewshot=dict(pool="mean", shots=(1, 5, 10), seeds=(0, 1, 2), ridge=1024.0),
    )
    return config
