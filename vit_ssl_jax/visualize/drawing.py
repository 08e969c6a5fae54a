"""Arrays as pictures: maps in colours, tiles in rows, rows with captions."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 144  # pixels: about the longer side of a tile
GAP, MARGIN, TEXT, WIDE = 3, 8, 12, 560  # pixels; WIDE: at least, for the captions
# From dark to bright, as even steps of lightness: matplotlib's viridis at nine places.
COLOURS = np.array(
    [
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ],
    float,
)


def heat(values: np.ndarray, low: float = 0.0, high: float | None = None) -> np.ndarray:
    """Numbers as colours, dark to bright: `[...] -> uint8 [... 3]`.

    low, high: what is darkest and brightest; None: the greatest value.
    """
    values = np.asarray(values, float)
    high = values.max() if high is None else high
    place = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    steps = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(place, steps, COLOURS[:, i]) for i in range(3)]
    return np.uint8(np.round(np.stack(channels, axis=-1)))


def tile_size(grid: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a tile: every patch of the grid has as many whole pixels."""
    cell = max(1, round(SIDE / max(grid)))
    return grid[0] * cell, grid[1] * cell


def tile(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image at the size of a tile: uint8 `[h w 3] -> [H W 3]`; smoothed if shrunk."""
    shrunk = pixels.shape[0] > size[0]
    how = Image.Resampling.LANCZOS if shrunk else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], how))


def tiles(images: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """Images `[B h w 3]`, uint8 or in [0, 1], as tiles `[H W 3]`."""
    images = np.asarray(images)
    if images.dtype != np.uint8:
        images = np.uint8(np.round(255 * images))
    return [tile(image, size) for image in images]


def mosaic(pictures: np.ndarray, columns: int, scale: int) -> np.ndarray:
    """Small pictures in rows, each pixel enlarged: uint8 `[n h w 3] -> [H W 3]`."""
    pictures = pictures.repeat(scale, 1).repeat(scale, 2)
    missing = -len(pictures) % columns
    shape = [(0, missing), (0, GAP), (0, GAP), (0, 0)]
    padded = np.pad(pictures, shape, constant_values=255)
    _, height, width, _ = padded.shape
    rows = padded.reshape(-1, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    return rows.reshape(-1, columns * width, 3)[:-GAP, :-GAP]


def sheet(title: str, rows: list[tuple[str, list[np.ndarray]]]) -> Image.Image:
    """Rows of tiles below each other, each below its caption, all below a title."""
    font = ImageFont.load_default(TEXT)
    widths = [sum(x.shape[1] + GAP for x in row) - GAP for _, row in rows]
    width = max(WIDE, *widths) + 2 * MARGIN
    head = wrap(title, font, width - 2 * MARGIN)
    rows = [(wrap(text, font, width - 2 * MARGIN), row) for text, row in rows]
    line = TEXT + 4
    heights = [
        line * len(text) + max(x.shape[0] for x in row) + MARGIN for text, row in rows
    ]
    height = 2 * MARGIN + line * len(head) + sum(heights)
    out = Image.new("RGB", (width, height), "white")
    pen, top = ImageDraw.Draw(out), MARGIN
    for text in head:
        pen.text((MARGIN, top), text, fill="black", font=font)
        top += line
    top += MARGIN
    for (text, row), tall in zip(rows, heights, strict=True):
        for i, words in enumerate(text):
            pen.text((MARGIN, top + i * line), words, fill=(70, 70, 70), font=font)
        left = MARGIN
        for pixels in row:
            out.paste(Image.fromarray(pixels), (left, top + line * len(text)))
            left += pixels.shape[1] + GAP
        top += tall
    return out


def wrap(text: str, font, width: int) -> list[str]:
    """Text in lines that are no wider than so many pixels, where words allow it."""
    lines = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def frame(pixels: np.ndarray, patch: tuple[int, int], grid: tuple[int, int], colour):
    """A tile with a frame of two pixels around one of its patches."""
    rows, columns = pixels.shape[0] // grid[0], pixels.shape[1] // grid[1]
    top, left = patch[0] * rows, patch[1] * columns
    image = Image.fromarray(pixels)
    box = (left - 1, top - 1, left + columns, top + rows)
    ImageDraw.Draw(image).rectangle(box, outline=colour, width=2)
    return np.asarray(image)
