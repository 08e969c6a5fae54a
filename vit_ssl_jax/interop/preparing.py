"""How images were prepared, as timm and transformers write it beside their weights.

Facts of it, keys of `Found.facts`: mean, std; crop_pct, the side of an evaluated crop over
the short side of the image that it is cut from; interpolation; squash, whether an image is
resized without regard to its aspect.
"""

import math

from vit_ssl_jax.errors import UserError

CROP_PCT = 0.875  # 224 of 256, as of ImageNet
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def from_timm(config) -> dict:
    """Facts of a `pretrained_cfg`."""
    facts = {key: tuple(config[key]) for key in ("mean", "std") if config.get(key)}
    if config.get("crop_pct"):
        facts["crop_pct"] = float(config["crop_pct"])
    if config.get("interpolation") in RESAMPLE.values():
        facts["interpolation"] = config["interpolation"]
    if config.get("crop_mode"):
        facts["squash"] = config["crop_mode"] == "squash"
    return facts


def from_hf(config) -> dict:
    """Facts of a preprocessor_config.json; raises UserError for what is unknown here."""
    facts = {}
    if config.get("do_normalize", True):
        for key in ("mean", "std"):
            if config.get(f"image_{key}"):
                facts[key] = tuple(config[f"image_{key}"])
    elif config:
        facts = dict(mean=(0.0,) * 3, std=(1.0,) * 3)
    resample = config.get("resample")
    if resample is not None:
        if resample not in RESAMPLE:
            raise UserError(
                f"its images are resized by Pillow's filter {resample}; known are "
                f"{', '.join(f'{n} ({name})' for n, name in RESAMPLE.items())}"
            )
        facts["interpolation"] = RESAMPLE[resample]
    size, cropped = config.get("size"), config.get("do_center_crop", False)
    if size is None:
        return facts
    if not isinstance(size, dict):  # before 2022: the short side where it is cropped
        size = dict(shortest_edge=size) if cropped else dict(height=size, width=size)
    short = size.get("shortest_edge", size.get("height"))
    crop = config.get("crop_size", short) if cropped else short
    crop = crop["height"] if isinstance(crop, dict) else crop
    return facts | dict(squash="height" in size, crop_pct=crop / short)


def to_hf(data) -> dict:
    """The preprocessor_config.json that prepares images as `config.data` says."""
    height, width = data["size"]
    short = max(data["resize"], height, width)
    if data["squash"]:
        size = dict(height=short, width=short)
    else:
        size = dict(shortest_edge=short)
    numbers = {name: number for number, name in RESAMPLE.items()}
    return dict(
        image_processor_type="BitImageProcessor",
        do_resize=True,
        size=size,
        resample=numbers[data["interpolation"]],
        do_center_crop=True,
        crop_size=dict(height=height, width=width),
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=list(data["mean"]),
        image_std=list(data["std"]),
        do_convert_rgb=True,
    )


def to_timm(data) -> dict:
    """The part of a `pretrained_cfg` that prepares images as `config.data` says."""
    side = min(data["size"])
    resize = max(data["resize"], *data["size"])
    crop_pct = side / resize
    if math.floor(side / crop_pct) < resize:  # how timm goes back
        crop_pct = math.nextafter(crop_pct, 0)
    return dict(
        interpolation=data["interpolation"],
        crop_pct=crop_pct,
        crop_mode="squash" if data["squash"] else "center",
        mean=list(data["mean"]),
        std=list(data["std"]),
    )


def find_resize(size, crop_pct) -> int:
    """The short side that a crop of `size` (H, W) is cut from, rounded as timm does."""
    return math.floor(min(size) / crop_pct + 1e-6)
