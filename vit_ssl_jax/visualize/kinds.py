"""Every kind of picture of a scene: a PIL image and a line about it."""

import numpy as np
import tqdm
from PIL import Image

from vit_ssl_jax import finished, pictures, weights
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.visualize import attention, components, drawing, parameters
from vit_ssl_jax.visualize.scene import Scene, name_of, read_pixels

RED = (230, 30, 30)
NEIGHBOURS = 6
BRIGHTEST = 0.02  # of rollout's patches: some are attended to by all others
FILTERS = 126  # of the patch embedding, at most: nine rows of 14


def draw(kind: str, scene: Scene) -> tuple[Image.Image, str]:
    """Draws a kind of `visualize.KINDS`; raises UserError where there is none of it."""
    how = dict(
        attention=draw_attention,
        rollout=draw_rollout,
        pca=draw_pca,
        similarity=draw_similarity,
        neighbours=draw_neighbours,
        positions=draw_positions,
        filters=draw_filters,
        method=draw_method,
    )
    return how[kind](scene)


def draw_attention(scene: Scene) -> tuple[Image.Image, str]:
    """A row a head, the mean of all heads first."""
    module = scene.encoder.module
    how = dict(layer=scene.layer, query=scene.query)
    maps = attention.maps(scene.encoder, scene.shown, **how)
    rows = [first_row(scene, mark=scene.query == scene.number)]
    rows.append(("mean of the heads", map_tiles(maps.mean(axis=1), module.grid)))
    for head in range(module.heads):
        share = f": {100 * maps[:, head].sum(-1).mean():.0f} % on patches"
        text = f"head {head + 1}" + share * bool(module.cls + module.registers)
        rows.append((text, map_tiles(maps[:, head], module.grid)))
    title = f"{whose(scene)} in block {scene.layer} of {module.depth}"
    scale = "each map from 0 (dark) to its own greatest share"
    line = f"{title}, {module.heads} heads, {len(maps)} images"
    return drawing.sheet(f"{title}; {scale}", rows), line


def draw_rollout(scene: Scene) -> tuple[Image.Image, str]:
    """A row of rolled-out attention."""
    module = scene.encoder.module
    rolled = attention.rollout(scene.encoder, scene.shown, query=scene.query)
    title = (
        f"{whose(scene)}, followed through all {module.depth} blocks "
        "(attention rollout, Abnar & Zuidema 2020)"
    )
    rows = [first_row(scene, mark=scene.query == scene.number)]
    low, high = rolled.min(axis=1), np.quantile(rolled, 1 - BRIGHTEST, axis=1)
    text = (
        f"each map from its least share to the one that {100 * BRIGHTEST:.0f} % of its "
        f"patches exceed, in the mean {low.mean():.2g} to {high.mean():.2g}"
    )
    stretched = (rolled - low[:, None]) / np.maximum(high - low, 1e-12)[:, None]
    rows.append((text, map_tiles(stretched, module.grid, high=1.0)))
    return drawing.sheet(title, rows), f"{title}, {len(rolled)} images"


def draw_pca(scene: Scene) -> tuple[Image.Image, str]:
    """Components of all patches, then of those of the foreground."""
    grid = scene.encoder.module.grid
    size = drawing.tile_size(grid)
    every, shares = components.to_rgb(scene.features)
    kept = components.foreground(scene.features, grid)
    front, of_front = components.to_rgb(scene.features, kept)
    text = (
        f"foreground, one side of 0 on the first component ({100 * kept.mean():.0f} % of "
        f"the patches), with components of its own: {percent(of_front)}"
    )
    rows = [first_row(scene)]
    for words, rgb in {
        f"all patches: {percent(shares)} of their variance": every,
        text: front,
    }.items():
        rows.append((words, drawing.tiles(rgb.reshape(-1, *grid, 3), size)))
    title = (
        f"Three principal components of the patches' features after block {scene.layer} "
        "as red, green, blue; one basis for all images"
    )
    line = (
        f"{percent(shares)} of the variance of {len(every)} x {every.shape[1]} patches, "
        f"{100 * kept.mean():.0f} % of them foreground"
    )
    return drawing.sheet(title, rows), line


def draw_similarity(scene: Scene) -> tuple[Image.Image, str]:
    """To every image's own patch, then to the first image's."""
    grid, number = scene.encoder.module.grid, scene.number
    rows = [first_row(scene, mark=True)]
    place = f"the patch in row {scene.patch[0]}, column {scene.patch[1]}"
    to = {f"to {place} of the same image": None}
    if len(scene.shown) > 1:
        to[f"to {place} of {scene.names[0]}"] = 0
    for text, image in to.items():
        cosines = components.similarity(scene.features, number, image)
        low = cosines.min()
        text = f"{text}: {low:.2f} (dark) to 1 (bright)"
        rows.append((text, map_tiles(cosines, grid, low, 1.0)))
    title = f"Cosine similarity of the patches' features after block {scene.layer}"
    return drawing.sheet(title, rows), f"{title}, {place}, {len(scene.shown)} images"


def draw_neighbours(scene: Scene) -> tuple[Image.Image, str]:
    """A row an image: it, and those that are nearest to it."""
    whole = scene.whole
    numbers, vectors = embed(scene)
    if len(vectors) < 2:
        raise UserError("neighbours need at least two images; give a folder of them")
    count = min(NEIGHBOURS, len(vectors) - 1)
    asked = list(range(min(len(scene.shown), len(vectors))))
    order, cosines = components.nearest(vectors, asked, count)
    wanted = sorted({numbers[i] for i in {*asked, *order.reshape(-1).tolist()}})
    pixels = read_pixels(scene.encoder, whole.pick(wanted))
    size = drawing.tile_size(scene.encoder.module.grid)
    shown = dict(zip(wanted, drawing.tiles(pixels, size), strict=True))
    rows = []
    for i, (near, alike) in enumerate(zip(order, cosines, strict=True)):
        near = [numbers[j] for j in near]
        named = [f"{name_of(whole, j, scene.top)} {c:.3f}" for j, c in zip(near, alike)]
        text = f"{name_of(whole, numbers[i], scene.top)}: {', '.join(named)}"
        rows.append((text, [shown[numbers[i]], *(shown[j] for j in near)]))
    line = (
        f"the {count} nearest of {len(vectors):,} images by the cosine of their "
        f"vectors ({scene.pool} of block {scene.layer})"
    )
    if missing := len(whole) - len(numbers):
        line += f"; {missing} can't be read"
    return drawing.sheet(f"An image on the left, then {line}", rows), line


def embed(scene: Scene) -> tuple[list[int], np.ndarray]:
    """Vectors of all images that can be read: their numbers, float32 `[n D]`."""
    whole, numbers, vectors = scene.whole, [], []
    batches = scene.encoder.batches(whole, scene.layer, scene.pool, 64)
    with tqdm.tqdm(total=len(whole), unit=" images", disable=len(whole) < 1000) as bar:
        for ids, valid, rows in batches:
            numbers += ids[valid].tolist()
            vectors.append(rows[valid])
            bar.update(len(ids))
    return numbers, np.concatenate(vectors)


def draw_positions(scene: Scene) -> tuple[Image.Image, str]:
    """A small map a patch, where the patch is in the grid."""
    alike = parameters.position_similarity(scene.encoder)
    grid = scene.encoder.module.grid
    low = alike.min()
    maps = drawing.heat(alike.reshape(-1, *grid), low, 1.0)
    cells = drawing.mosaic(maps, grid[1], max(1, round(48 / max(grid))))
    title = (
        "Cosine similarity of each patch's position to all others, a map a patch: "
        f"{low:.2f} (dark) to 1 (bright)"
    )
    line = f"{scene.encoder.module.posemb} table of {grid[0]}x{grid[1]} patches"
    return drawing.sheet(title, [(line, [cells])]), f"similarity of the {line}"


def draw_filters(scene: Scene) -> tuple[Image.Image, str]:
    """The main directions of the patch embedding's filters, then the filters."""
    filters = parameters.filters(scene.encoder)
    main = parameters.principal_filters(scene.encoder)
    length = np.linalg.norm(filters.reshape(len(filters), -1), axis=1)
    chosen = filters[np.argsort(-length, kind="stable")[:FILTERS]]
    patch = filters.shape[1]
    rows = []
    for text, images in {
        f"their {len(main)} first principal components": main,
        f"the {len(chosen)} of the greatest norm, of {len(filters)}": chosen,
    }.items():
        greatest = np.abs(images).max(axis=(1, 2, 3), keepdims=True)
        pixels = 127.5 + 127.5 * images / np.maximum(greatest, 1e-12)
        pixels = np.uint8(np.round(pixels))
        rows.append((text, [drawing.mosaic(pixels, 14, max(1, round(40 / patch)))]))
    title = (
        f"Filters of the patch embedding, {patch}x{patch} px; grey is 0, each to its own "
        "greatest weight"
    )
    return drawing.sheet(title, rows), f"{len(filters)} filters of {patch}x{patch} px"


def draw_method(scene: Scene) -> tuple[Image.Image, str]:
    """What the objective makes of the images."""
    saved = finished.read_trained(scene.checkpoint).saved
    if isinstance(saved, weights.Weights) and saved.parts == ["encoder"]:
        raise UserError("these weights are an encoder's, without an objective to draw")
    data, count = {"train": scene.shown}, len(scene.shown)
    rows = pictures.draw(scene.checkpoint, "train", data=data, count=count)
    if not rows:
        name = scene.encoder.config.method.name
        raise UserError(f"{name} has no picture of what it does")
    return pictures.sheet(rows), f"{', '.join(rows)} of {count} images"


def first_row(scene: Scene, mark: bool = False) -> tuple[str, list[np.ndarray]]:
    """The images with their names; with `mark` the chosen patch has a frame."""
    grid = scene.encoder.module.grid
    images = drawing.tiles(scene.pixels, drawing.tile_size(grid))
    if mark:
        images = [drawing.frame(x, scene.patch, grid, RED) for x in images]
    return ", ".join(scene.names), images


def map_tiles(maps, grid, low=0.0, high=None) -> list[np.ndarray]:
    """Maps `[B N]` of a grid in colours; `high` None: each to its own greatest."""
    size = drawing.tile_size(grid)
    images = [drawing.heat(x.reshape(grid), low, high) for x in maps]
    return drawing.tiles(np.stack(images), size)


def whose(scene: Scene) -> str:
    """Whose attention is drawn."""
    if scene.query == "cls":
        return "What the class token attends to"
    if scene.query == "mean":
        return "What the patches attend to on average"
    return f"What the patch in row {scene.patch[0]}, column {scene.patch[1]} attends to"


def percent(shares) -> str:
    """Shares as "41 + 12 + 7 %"."""
    return " + ".join(f"{100 * share:.0f}" for share in shares) + " %"
