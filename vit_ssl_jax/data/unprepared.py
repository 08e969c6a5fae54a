"""What to do where a set is not prepared yet."""

import difflib

IMAGENET = (
    "ImageNet comes from image-net.org, for those who register: put "
    "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar into SRC as they are, then "
    "python -m vit_ssl_jax.data.prepare SRC DST --name=imagenet2012 "
    "--labels=ILSVRC2012_validation_ground_truth.txt (meta.mat of the development kit "
    "beside it) and --config.data.dir=DST; or unpack them to DIR/train/CLASS and "
    "DIR/val, then --config.data.name=folder --config.data.dir=DIR"
)


def how_to_prepare(name: str, top) -> str:
    """What to do for a set that isn't there, as the end of a message."""
    import tensorflow_datasets as tfds

    base = name.split("/")[0]
    if base == "imagenet2012":
        return IMAGENET
    known = tfds.list_builders(with_community_datasets=False)
    if base not in known:
        close = difflib.get_close_matches(base, known, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return f"TFDS knows no set of that name{hint}"
    try:
        manual = tfds.builder_cls(base).MANUAL_DOWNLOAD_INSTRUCTIONS
    except ImportError:  # of TensorFlow
        manual = None
    if manual:
        return (
            "It has to be downloaded by hand first (tensorflow.org/datasets/catalog/"
            f"{base}); as a folder of images it needs no preparing: "
            "--config.data.name=folder --config.data.dir=DIR"
        )
    return (
        "To download and prepare a TFDS set (some need TensorFlow for it): python -c "
        f'\'import tensorflow_datasets as tfds; tfds.data_source("{name}", '
        f'data_dir="{top}")\''
    )
