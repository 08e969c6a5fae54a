"""What an encoder learned, as arrays and as pictures; of all that `vit_ssl_jax.load` opens."""

import difflib
from collections.abc import Callable
from typing import Any

from vit_ssl_jax.errors import UserError

# What can be drawn, and whether it takes images.
KINDS = {
    "attention": True,  # of every head of a block
    "rollout": True,  # of all blocks together
    "pca": True,  # of the patches' features, as colours
    "similarity": True,  # of all patches to a chosen one
    "neighbours": True,  # the images that are most alike
    "positions": False,  # the position table's similarity to itself
    "filters": False,  # of the patch embedding
    "method": True,  # what the objective makes of the images
}
QUERIES = ("cls", "mean", "patch")  # whose attention


def draw(
    checkpoint: Any,
    images: Any = "",
    kind: str = "pca",
    say: Callable = print,
    **options,
):
    """Draws one kind of picture, a PIL image:

        visualize.draw("runs/mine", "photos", "attention", layer=-1)

    checkpoint: as in `vit_ssl_jax.load`. images: a folder, files with commas between
    them, or as in `Encoder.encode`; the first `count` that can be read are drawn. kind:
    of KINDS. options: as in `scene.open_scene`. say: gets what was guessed or left
    out. Raises UserError for what can't be.
    """
    check_kinds([kind], images)
    from vit_ssl_jax.visualize import kinds, scene  # after the check: they load jax

    picture, line = kinds.draw(
        kind, scene.open_scene(checkpoint, images, say=say, **options)
    )
    say(f"{kind}: {line}")
    return picture


def check_kinds(names: list[str], images: Any) -> None:
    """Raises UserError for a name that is none of KINDS, or takes images where none are."""
    for name in names:
        if name not in KINDS:
            near = difflib.get_close_matches(name, KINDS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"--what: {name!r} is none of {', '.join(KINDS)}{hint}")
        if KINDS[name] and isinstance(images, str) and not images:
            without = ",".join(kind for kind, takes in KINDS.items() if not takes)
            raise UserError(f"{name} takes --images=DIR; without are --what={without}")
