"""Models of the original libraries, with random weights: timm's and transformers'."""

import functools
import importlib.util
import warnings

import numpy as np
import pytest


def need():
    """Skips a file of tests where one of the libraries isn't installed."""
    for package in ("torch", "timm", "transformers"):
        if not importlib.util.find_spec(package):
            pytest.skip(f"needs {package}", allow_module_level=True)


@functools.cache
def load():
    """`(torch, timm, transformers)`.

    Both libraries import torchvision, whose operators a torch of another build than its
    own can't load; they aren't called here, so a declaration will do.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torchvision  # noqa: F401
        except RuntimeError:
            library = torch.library.Library("torchvision", "DEF")
            load.library = library  # lives as long as its operators
            library.define("nms(Tensor a, Tensor b, float c) -> Tensor")
            library.define("qnms(Tensor a, Tensor b, float c) -> Tensor")
        import timm
        import transformers
    transformers.utils.logging.disable_progress_bar()
    return torch, timm, transformers


def randomise(model, seed=0):
    """Draws all weights of a torch model anew, far from how they are initialised."""
    torch, _, _ = load()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, x in model.named_parameters():
            scale = ("norm" in name and "weight" in name) or "lambda" in name
            x.copy_(
                torch.randn(x.shape, generator=draw) * 0.1 + (scale or "gamma" in name)
            )
    return model.eval()


def pixels(*shape, seed=0):
    """Standardised images `[B H W 3]` float32."""
    return np.random.default_rng(seed).normal(size=(*shape, 3)).astype(np.float32)


def channels_first(images):
    """Images as torch takes them, `[B 3 H W]`."""
    torch, _, _ = load()
    return torch.from_numpy(np.moveaxis(images, -1, 1).copy())
