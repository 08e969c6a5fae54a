"""RandAugment (Cubuk et al., 2020) by the strings of timm, which MAE fine-tunes with.

"rand-m9-mstd0.5-inc1": two of fifteen distortions, drawn with replacement, each done
with probability 1/2 at a magnitude from N(9, 0.5), cut to 0..10. "inc1": every
distortion grows with the magnitude. Pixels are changed by Pillow, as the published
recipes had it.
"""

import dataclasses
import re
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vit_ssl_jax.errors import UserError

DISTORTIONS = (
    *("autocontrast", "equalize", "invert", "rotate", "posterize", "solarize"),
    *("solarize_add", "color", "contrast", "brightness", "sharpness"),
    *("shear_x", "shear_y", "translate_x", "translate_y"),
)
ENHANCERS = {
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
}
LARGEST = 10  # magnitude
PART = re.compile(r"([a-z]+)(\d+(?:\.\d+)?)")
# What a string may say after "rand-": when it doesn't, and what it may be.
VALUES = {
    "m": (10.0, f"from 0 to {LARGEST}", lambda x: x <= LARGEST),
    "mstd": (0.0, f"from 0 to {LARGEST}", lambda x: x <= LARGEST),
    "n": (2.0, "a whole number of at least 1", lambda x: x >= 1 and x == int(x)),
    "p": (0.5, "from 0 to 1", lambda x: x <= 1),
    "inc": (0.0, "0 or 1", lambda x: x in (0, 1)),
}

Augment = Callable[[np.random.Generator, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Policy:
    """What a string of RandAugment means.

    m, mstd: mean and standard deviation of the magnitude, 0 to 10.
    n: distortions per image.
    p: probability that one of them is done.
    inc: whether posterize, solarize and the four enhancements grow with the magnitude.
    """

    m: float
    mstd: float
    n: int
    p: float
    inc: bool


def make_randaugment(text: str, mean: tuple[float, float, float]) -> Augment:
    """Makes the function (rng, uint8 `[h w 3]`) -> uint8 `[h w 3]` that a string names.

    text: such as "rand-m9-mstd0.5-inc1"; "" leaves images as they are.
    mean: of the pixels, 0 to 1 per channel: the colour of what is moved into view.

    Raises UserError for a string that isn't understood.
    """
    if not text:
        return lambda rng, image: image
    policy = parse(text)
    fill = tuple(min(255, round(255 * value)) for value in mean)

    def augment(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        names = [DISTORTIONS[i] for i in rng.integers(len(DISTORTIONS), size=policy.n)]
        names = [name for name in names if rng.random() < policy.p]
        if not names:
            return image
        pixels = Image.fromarray(np.ascontiguousarray(image))
        for name in names:
            level = draw_magnitude(rng, policy) / LARGEST
            sign = 1 if rng.random() < 0.5 else -1
            pixels = distort(pixels, name, level * sign, fill=fill, inc=policy.inc)
        return np.asarray(pixels)

    return augment


def parse(text: str) -> Policy:
    """Reads "rand-m9-mstd0.5-inc1"; raises UserError for what isn't understood."""
    numbers = {key: default for key, (default, _, _) in VALUES.items()}
    first, *parts = text.split("-")
    matches = [PART.fullmatch(part) for part in parts]
    keys = [match[1] for match in matches if match]
    if first != "rand" or None in matches or not set(keys) <= VALUES.keys():
        raise UserError(
            f"config.data.randaugment: {text!r} isn't understood; write 'rand' and any "
            f"of {', '.join(VALUES)} with a number, such as rand-m9-mstd0.5-inc1, or ''"
        )
    if len(set(keys)) < len(keys):
        raise UserError(f"config.data.randaugment: {text!r} says a value twice")
    numbers |= {match[1]: float(match[2]) for match in matches}
    for key, (_, wanted, fits) in VALUES.items():
        if not fits(numbers[key]):
            raise UserError(
                f"config.data.randaugment: {key}{numbers[key]:g} of {text!r} is not "
                f"{wanted}"
            )
    numbers |= {"n": int(numbers["n"]), "inc": bool(numbers["inc"])}
    return Policy(**numbers)


def draw_magnitude(rng: np.random.Generator, policy: Policy) -> float:
    """Draws a magnitude from N(m, mstd), cut to 0..10."""
    return float(np.clip(rng.normal(policy.m, policy.mstd), 0, LARGEST))


def distort(
    image: Image.Image, name: str, level: float, *, fill: tuple[int, ...], inc: bool
) -> Image.Image:
    """Applies one of DISTORTIONS to an image.

    level: magnitude / 10, from -1 to 1; the sign is the direction, where there is one.
    fill: colour (0 to 255) of what is moved into view.
    inc: see `Policy`.
    """
    size, (width, height) = abs(level), image.size
    match name:
        case "autocontrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
        case "invert":
            return ImageOps.invert(image)
        case "rotate":
            method = Image.Resampling.BICUBIC
            return image.rotate(30 * level, method, fillcolor=fill)
        case "posterize":
            bits = int(4 * size)
            return _keep_bits(image, 4 - bits if inc else bits)
        case "solarize":
            threshold = int(256 * size)
            return ImageOps.solarize(image, 256 - threshold if inc else threshold)
        case "solarize_add":
            return _lighten_dark(image, min(128, int(110 * size)))
        case "color" | "contrast" | "brightness" | "sharpness":
            factor = max(0.1, 1 + 0.9 * level) if inc else 0.1 + 1.8 * size
            return ENHANCERS[name](image).enhance(factor)
        case "shear_x":
            return _move(image, (1, 0.3 * level, 0, 0, 1, 0), fill)
        case "shear_y":
            return _move(image, (1, 0, 0, 0.3 * level, 1, 0), fill)
        case "translate_x":
            return _move(image, (1, 0, 0.45 * level * width, 0, 1, 0), fill)
        case "translate_y":
            return _move(image, (1, 0, 0, 0, 1, 0.45 * level * height), fill)
    raise ValueError(name)


def _keep_bits(image: Image.Image, bits: int) -> Image.Image:
    """Keeps the highest bits of each value; black for 0, which Pillow's refuses."""
    return image.point([value >> (8 - bits) << (8 - bits) for value in range(256)] * 3)


def _lighten_dark(image: Image.Image, amount: int) -> Image.Image:
    """Adds `amount` (up to 128) to the values below 128."""
    table = [value + amount if value < 128 else value for value in range(256)]
    return image.point([min(255, value) for value in table] * 3)


def _move(image: Image.Image, matrix: tuple, fill: tuple[int, ...]) -> Image.Image:
    """Takes pixel (x, y) from (a x + b y + c, d x + e y + f), matrix = (a, ..., f)."""
    kind, method = Image.Transform.AFFINE, Image.Resampling.BICUBIC
    return image.transform(image.size, kind, matrix, method, fillcolor=fill)
