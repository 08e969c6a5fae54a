"""Colours of training images for dense tasks, changed by chance: uint8 `[h w 3]`.

"photometric" is mmsegmentation's PhotoMetricDistortion: brightness by up to 32, contrast
and saturation by 0.5 to 1.5, hue by up to 18 of 180, each half of the time, contrast
before or after the others. "gamma" is the Monocular-Depth-Estimation-Toolbox's ColorAug:
half of the images to the power of 0.9 to 1.1, brighter by 0.75 to 1.25, each channel
by 0.9 to 1.1 (the power is of bytes, 0 to 255, as there).
"""

import cv2
import numpy as np

KINDS = ("", "photometric", "gamma")


def distort(rng, image: np.ndarray, kind: str) -> np.ndarray:
    """An image in other colours; `kind` is one of KINDS, "" leaves it."""
    if kind == "photometric":
        return photometric(rng, image)
    return gamma(rng, image) if kind == "gamma" else image


def photometric(rng, image: np.ndarray) -> np.ndarray:
    """Brightness, contrast, saturation, hue; each half of the time."""

    def linear(image, factor=1.0, offset=0.0):
        """Rounded down, as mmsegmentation's cast does."""
        return np.clip(np.float32(image) * factor + offset, 0, 255).astype(np.uint8)

    def chance():
        return rng.random() < 0.5

    if chance():
        image = linear(image, offset=rng.uniform(-32, 32))
    first = chance()
    if first and chance():
        image = linear(image, rng.uniform(0.5, 1.5))
    if chance():
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = linear(hsv[..., 1], rng.uniform(0.5, 1.5))
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if chance():
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        turn = rng.integers(-18, 18)
        hsv[..., 0] = (hsv[..., 0].astype(int) + turn) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if not first and chance():
        image = linear(image, rng.uniform(0.5, 1.5))
    return image


def gamma(rng, image: np.ndarray) -> np.ndarray:
    """A power, brightness, and a factor of every channel; half of the time."""
    if rng.random() >= 0.5:
        return image
    power, brightness = rng.uniform(0.9, 1.1), rng.uniform(0.75, 1.25)
    channels = [brightness * rng.uniform(0.9, 1.1) for _ in range(3)]
    changed = np.float32(image) ** np.float32(power) * np.float32(channels)
    return np.clip(np.round(changed), 0, 255).astype(np.uint8)
