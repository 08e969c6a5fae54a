"""RelViT: tell how the patches of an image lie, by what they show.

Where are my Neighbors? Exploiting Patches Relations in Self-Supervised Vision
Transformer (Camporese et al., 2022). The encoder sees patches without positions
(`vit.posemb="none"`); cheap heads on its patch tokens tell their relations, distances,
angles and positions. With a weight on `labels` it learns classes at the same time.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vit_ssl_jax.checks import BELOW_ONE, MIN_ZERO, one_of
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import Method
from vit_ssl_jax.models import initial, layers, outputs, vit
from vit_ssl_jax.ops import arrangement, images, jitter, megapatch, patches, relations

TASKS = ("relations", "distances", "angles", "positions", "labels")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyper-parameters of the objective."""

    relations: float  # weight of the nine-way relation of all pairs; 0: no such head
    distances: float  # weight of the distance of all pairs
    angles: float  # weight of the angle of all pairs
    positions: float  # weight of every patch's position
    labels: float  # weight of the image's class, told by the class token (joint mode)
    smoothing: float  # label smoothing of the relations
    shuffle: bool  # permute patches, image by image
    patch_augment: bool  # crop, jitter and gray every patch on its own
    mega: int  # side of a random grid of mega-patches, 0: the patches as they are
    add_cls: bool  # add the class token's output to those of the patches
    compat: str  # "none": jitter pixels in [0, 1]; "official": standardized ones


RANGES = dict.fromkeys(TASKS, MIN_ZERO) | {
    "smoothing": BELOW_ONE,
    "compat": one_of("none", "official"),
}


class RelViT(nn.Module):
    """Encoder and one head a task."""

    encoder: vit.ViT
    tasks: tuple  # of TASKS
    num_positions: int  # patches an image
    num_classes: int
    add_cls: bool

    @nn.compact
    def __call__(self, views, train):
        """`{task: output}` float32, of `tasks` alone.

        `relations [B N N 9]`, `distances` and `angles [B N N]`, `positions [B N N]`
        (tokens, positions), `labels [B classes]`. Pairs are (query, key).
        """
        tokens = self.encoder(views["image"], train)
        cls, tokens = tokens[:, :1], tokens[:, int(self.encoder.cls) :]
        if self.add_cls:
            tokens = tokens + cls
        style, width = self.encoder.style, self.encoder.width
        init = initial.torch_uniform(width)
        bound = dict(style=style, kernel_init=init, bias_init=init)
        out = {}
        if "relations" in self.tasks:
            count = relations.RELATIONS
            head = outputs.PairScores(count, width // count, style, name="relations")
            out["relations"] = head(tokens)
        for task in ("distances", "angles"):
            if task in self.tasks:
                head = outputs.PairScores(1, width, style, name=task)
                out[task] = head(tokens)[..., 0]
        if "positions" in self.tasks:
            head = layers.dense(self.num_positions, name="positions", **bound)
            out["positions"] = head(tokens).astype(jnp.float32)
        if "labels" in self.tasks:
            head = layers.dense(self.num_classes, name="head", **bound)
            out["labels"] = head(cls[:, 0]).astype(jnp.float32)
        return out


def make_views(key, batch, *, normalize, patch, grid, c):
    """`image [B h w C]` standardised, `order [B N]` int32, and with labels `label [B]`.

    Token t shows the patch that stood at `order[t]` of `grid`. Mega-patches come first:
    with them h, w are smaller, N is `mega ** 2`.
    """
    cut_key, order_key, augment_key = jax.random.split(key, 3)
    image, official = batch["image"], c.compat == "official"
    if official:  # their data sets standardise before patches are touched
        image = normalize(image)
    if c.mega:
        image = megapatch.merge_at_random(cut_key, image, patch, c.mega, official)
    tokens = grid[0] * grid[1]
    order = jnp.broadcast_to(jnp.arange(tokens), (len(image), tokens))
    if c.shuffle:
        order = jnp.argsort(jax.random.uniform(order_key, order.shape), axis=1)
    if c.shuffle or c.patch_augment:
        cells = patches.take(patches.patchify(image, patch), order)
        if c.patch_augment:
            cells = jitter.augment_patches(
                augment_key, cells.reshape(-1, patch, patch, 3)
            )
        image = patches.unpatchify(cells.reshape(*order.shape, -1), patch, grid)
    image = image if official else normalize(image)
    views = {"image": image, "order": order.astype(jnp.int32)}
    return views | ({"label": batch["label"]} if c.labels else {})


def make_targets(ema, views, step, *, tasks, grid):
    """Labels by task: of pairs `[B N N]`, positions `[B N]`, classes `[B]`.

    All but the classes come from the order alone.
    """
    del ema, step
    order = views["order"]
    targets = {
        "relations": relations.relations(order, grid),
        "distances": relations.distances(order, grid),
        "angles": relations.angles(order, grid),
        "positions": order,
        "labels": views.get("label"),
    }
    return {task: targets[task] for task in tasks}


def loss_fn(outputs, targets, *, weights, smoothing):
    """Weighted sum of the tasks' losses: `{task: [...]}` of both -> scalar, metrics.

    Cross-entropy of relations, positions and labels, squared error of distances and
    angles, each the mean over all its entries.
    """
    losses, metrics = {}, {}
    for task, output in outputs.items():
        target = targets[task]
        if task in ("distances", "angles"):
            losses[task] = jnp.mean(jnp.square(output - target))
            continue
        one_hot = jax.nn.one_hot(target, output.shape[-1])
        if task == "relations":
            one_hot = optax.smooth_labels(one_hot, smoothing)
        losses[task] = optax.softmax_cross_entropy(output, one_hot).mean()
        right = output.argmax(-1) == target
        metrics[f"{task}_top1"] = right.mean()  # share of right relations or positions
    if "labels" in outputs:
        metrics["top1"] = metrics.pop("labels_top1")  # share of right classes
    metrics |= {f"{task}_loss": loss for task, loss in losses.items()}  # before weights
    return sum(weights[task] * loss for task, loss in losses.items()), metrics


def draw(outputs, targets, views, *, grid, patch, mean_std):
    """Patches put where they are said to be, and pairs as maps: see `arrangement.show`."""
    seen, how = (
        images.denormalize(views["image"], *mean_std),
        dict(grid=grid, patch=patch),
    )
    rows = arrangement.show(seen, outputs, targets, views["order"], **how)
    if "labels" in outputs:
        rows["true class"] = targets["labels"]
        rows["predicted class"] = outputs["labels"].argmax(-1).astype(jnp.int32)
    return rows


def check(c, encoder, num_classes):
    """Raises UserError for what can't work."""
    name = "config.method"
    if not any(getattr(c, task) for task in TASKS):
        raise UserError(f"{name}.relations: all weights are 0; raise one of them")
    if c.relations and encoder.width < relations.RELATIONS:
        raise UserError(
            f"{name}.relations: nine heads have no room in a width of {encoder.width}; "
            "set a wider config.vit.variant, or relations=0"
        )
    if c.labels and num_classes < 2:
        raise UserError(
            f"{name}.labels: {c.labels} needs labels, but the data has none; set it "
            "to 0, or give class folders or a labelled set"
        )
    for key in ("labels", "add_cls"):
        if getattr(c, key) and not encoder.cls:
            raise UserError(f"{name}.{key}: it needs config.vit.cls=True")
    places = "rope (or the variant's)" if encoder.rope else repr(encoder.posemb)
    if places != "'none'" and not c.labels and not c.shuffle:
        raise UserError(
            f"config.vit.posemb: {places} tells the encoder where patches lie, which "
            "is the answer; set it to 'none', or config.method.shuffle=True"
        )
    if encoder.grid == (1, 1):
        raise UserError(
            "config.vit.variant: a single patch has no neighbours; use a smaller patch"
        )
    if c.compat == "official" and c.shuffle and not c.patch_augment:
        raise UserError(
            f"{name}.shuffle: the published code would permute labels but no pixels; "
            "set patch_augment=True or compat='none'"
        )
    check_mega(c, encoder)


def check_mega(c, encoder):
    """Raises UserError for mega-patches that can't be."""
    rows, cols = encoder.grid
    if c.mega and not 2 <= c.mega < min(rows, cols):
        raise UserError(
            f"config.method.mega: {c.mega} is neither 0 (off) nor at least 2 and below "
            f"the shorter side of the grid of {rows}x{cols} patches"
        )
    if c.mega and (encoder.posemb != "none" or encoder.rope):
        raise UserError(
            f"config.method.mega: {c.mega} mega-patches have no place in the position "
            "table; set config.vit.posemb=none"
        )
    if c.mega and c.compat == "official" and rows != cols:
        raise UserError(
            "config.method.compat: 'official' cuts rows and columns alike, which needs "
            "a square image; set it to 'none'"
        )


def make(c, context):
    """Closes the functions over a run's numbers."""
    encoder = context.vit()
    check(c, encoder, context.num_classes)
    grid = (c.mega, c.mega) if c.mega else encoder.grid
    weights = {task: getattr(c, task) for task in TASKS if getattr(c, task)}
    layout = dict(patch=encoder.patch, grid=grid)
    return Method(
        model=RelViT(
            encoder=encoder,
            tasks=tuple(weights),
            num_positions=grid[0] * grid[1],
            num_classes=context.num_classes,
            add_cls=c.add_cls,
        ),
        make_views=functools.partial(
            make_views, normalize=context.normalize, c=c, **layout
        ),
        make_targets=functools.partial(make_targets, tasks=tuple(weights), grid=grid),
        loss_fn=functools.partial(loss_fn, weights=weights, smoothing=c.smoothing),
        draw=functools.partial(draw, mean_std=context.mean_std, **layout),
        needs_labels=bool(c.labels),
    )
