"""Several augmented crops of every image, cut on the device (SwAV, 2020; DINO, 2021).

B images, V crops an image. Every crop of an image is drawn by itself.
"""

import jax
import jax.numpy as jnp

from vit_ssl_jax.ops import images, jitter, views

RATIO = (3 / 4, 4 / 3)  # of a crop's width / height
COLOURS = dict(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
JITTERED, GREYED = 0.8, 0.2  # probabilities
SIGMA = (0.1, 2.0)  # of the blur, pixels
LOCAL = 2  # local crops that are shown
TAPS = 13  # of its kernel, three of the largest deviations to each side


def draw(key, image, *, size, scale, blur, solarize, interpolation):
    """Crops `[B H W 3]` in [0, 1] to `[B V h w 3]`, `(h, w) = size`.

    scale: range of a crop's area as part of the image's. blur, solarize: probabilities
    of the V crops, tuples. In the published order: random resized crop, flip,
    colour jitter in random order, grey, blur, solarising from 128 of 255 on.
    """
    keys = jax.random.split(key, len(blur))
    how = dict(size=size, scale=scale, interpolation=interpolation)

    def one(xs):
        crop_key, blurred, solarized = xs
        chances = dict(blur=blurred, solarize=solarized)
        return augment(crop_key, image, **how, **chances)

    # One after the other: a crop is an image itself, and 12 are traced as one.
    chances = (jnp.asarray(p, jnp.float32) for p in (blur, solarize))
    return jnp.moveaxis(jax.lax.map(one, (keys, *chances)), 0, 1)


def draw_kinds(key, image, kinds, interpolation):
    """Crops of several sizes: `{name: [B V h w 3]}`, a kind of no crops left out.

    `kinds` has the other keywords of `draw` by name.
    """
    keys = jax.random.split(key, len(kinds))
    each = zip(keys, kinds.items(), strict=True)
    return {
        name: draw(k, image, **how, interpolation=interpolation)
        for k, (name, how) in each
        if how["blur"]
    }


def augment(key, image, *, size, scale, blur, solarize, interpolation):
    """One crop of every image: `[B H W 3] -> [B h w 3]`, see `draw`."""
    keys = jax.random.split(key, 8)
    how = dict(size=size, scale=scale, ratio=RATIO, interpolation=interpolation)
    x = views.random_resized_crop(keys[0], image, **how)
    x = views.random_flip(keys[1], x)
    x = jitter.sometimes(keys[2], JITTERED, jitter.jitter(keys[3], x, **COLOURS), x)
    grey = jnp.broadcast_to(jitter.greyscale(x), x.shape)
    x = jitter.sometimes(keys[4], GREYED, grey, x)
    low, high = SIGMA
    sigma = jax.random.uniform(keys[5], (len(x),), minval=low, maxval=high)
    taps = min(TAPS, 2 * min(size) - 1)  # mirrored at the border
    x = jitter.sometimes(keys[6], blur, views.gaussian_blur(x, sigma, taps), x)
    return jitter.sometimes(keys[7], solarize, views.solarize(x), x)


def show(views, mean_std):
    """Pictures of crops: every global and the first local ones, `[B H W 3]` in [0, 1].

    `views` has standardised crops `global [B V H W 3]` and perhaps `local [B V h w 3]`,
    which are enlarged.
    """
    crops = {
        f"global crop {i + 1}": x for i, x in enumerate(views["global"].swapaxes(0, 1))
    }
    shape = crops["global crop 1"].shape
    if "local" in views:
        for i in range(min(LOCAL, views["local"].shape[1])):
            small = views["local"][:, i]
            crops[f"local crop {i + 1}"] = jax.image.resize(small, shape, "bilinear")
    return {name: images.denormalize(x, *mean_std) for name, x in crops.items()}
