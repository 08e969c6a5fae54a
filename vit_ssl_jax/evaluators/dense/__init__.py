"""What segmentation and depth share: a linear head on the patches of a frozen encoder.

`tokens` are what it sees, `training` how it learns, `windows` how its answers for cells
of patches become answers for pixels.
"""

import dataclasses

from vit_ssl_jax import partition
from vit_ssl_jax.checks import MIN_ONE, MIN_ZERO, POSITIVE, one_of, span
from vit_ssl_jax.data import distortion, pairs
from vit_ssl_jax.evaluators import Wants
from vit_ssl_jax.evaluators.dense import tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the head's features, images and training."""

    bank: str  # split that is learned from
    queries: str  # split that is judged
    layers: tuple  # blocks whose patches are taken side by side: -1 is the last
    norm: bool  # whether they have passed the ViT's final norm
    cls: bool  # the class token beside each patch, where the ViT has one
    scale: tuple  # (smallest, largest) factor of a training image's sides
    flip: bool  # half of the training images
    distortion: str  # of their colors, see data.distortion; "": none
    rate: float  # peak learning rate of AdamW
    decay: float  # weight decay
    clip: float  # largest norm of a gradient; 0: any
    schedule: str  # "poly" (linear to 0) or "cosine"
    warmup: int  # steps
    warmup_start: float  # factor of the rate at the first of them
    steps: int  # of training the head
    batch_size: int  # images a step
    accum: int  # pieces in which a batch goes through the encoder
    checkpoint_every: int  # steps
    seed: int  # of the head's start and the order of images

    def __post_init__(self):
        object.__setattr__(self, "layers", tuple(map(int, self.layers)))
        object.__setattr__(self, "scale", tuple(self.scale))

    @property
    def name(self):
        """The protocol, in front of every metric."""
        layers = "_".join(map(str, self.layers))
        parts = f"layers{layers}", "cls" * self.cls, "norm" * self.norm
        numbers = f"lr{self.rate:g}_wd{self.decay:g}_{self.schedule}_s{self.steps}"
        return "_".join((*filter(None, parts), numbers, f"b{self.batch_size}"))


RANGES = {
    "layers": (
        "a tuple of blocks, at least one and none twice",
        lambda x: len(x) > 0 and len(set(x)) == len(x),
    ),
    "scale": span("factor of the sides"),
    "distortion": one_of(*distortion.KINDS),
    "rate": POSITIVE,
    "decay": MIN_ZERO,
    "clip": MIN_ZERO,
    "schedule": one_of("poly", "cosine"),
    "warmup": ("at least 0 (steps)", lambda x: x >= 0),
    "warmup_start": ("from 0 to 1", lambda x: 0 <= x <= 1),
    "steps": MIN_ONE,
    "batch_size": MIN_ONE,
    "accum": MIN_ONE,
    "checkpoint_every": MIN_ONE,
    "seed": ("from 0 to 2**32 - 1", lambda x: 0 <= x < 2**32),
}


def wants(c):
    """Images with maps, plain and augmented."""
    del c
    return Wants(plain=("queries",), augmented=("bank",), labels=False, maps=True)


def check(c, run, open_split, kind):
    """Raises UserError for what doesn't fit the mesh, the encoder or the maps."""
    words = f"and accum={c.accum} pieces"
    partition.check_batch("batch_size", c.batch_size, run.mesh, c.accum, words)
    tokens.find_layers(c.layers, run.encoder.depth)
    for key in ("bank", "queries"):
        pairs.check(open_split(key), kind)
